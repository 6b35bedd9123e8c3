"""Where a training stands, and whether it is getting better."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from tumortrace.evaluation.measures import MEASURES, classification, rises
from tumortrace.training.options import Stopping


@dataclass
class Progress:
    """Where a training stands; all of it goes into the checkpoint as JSON.

    Attributes:
        stage: Which stage, from 0.
        stage_epoch: Finished epochs of the stage.
        epoch: Finished epochs of all stages.
        step: Steps of the epoch so far.
        loss_sum: Loss of the epoch so far, summed over its images.
        seconds: Of the epoch so far.
        best_epoch: From 1; 0 before the first.
        best_value: Of the metric that stops.
        history: One row per epoch.
    """

    stage: int = 0
    stage_epoch: int = 0
    epoch: int = 0
    step: int = 0
    loss_sum: float = 0.0
    seconds: float = 0.0
    best_epoch: int = 0
    best_value: float | None = None
    history: list[dict[str, Any]] = field(default_factory=list)


def improves(value: float | None, best: float | None, stopping: Stopping) -> bool:
    """Whether a value of the stopping metric beats the best so far; None is an undefined one."""
    if value is None:  # undefined on this validation split: the first epoch counts
        return best is None
    if best is None:
        return True
    gain = value - best if rises(stopping.metric) else best - value
    return gain > stopping.least_improvement


# What is measured of logits while a model is being made: loss and metrics, at a threshold of .5.


def scores(logits: Tensor, labels: np.ndarray) -> dict[str, float | None]:
    """Loss and metrics of a split.

    Args:
        logits: Of the positive class, shape (N,).
        labels: 0 or 1, shape (N,).

    Returns:
        `loss`, the mean binary cross-entropy, and every metric; None where one is undefined, as all are where the
        loss is no number.

    Example:
        >>> found = scores(torch.tensor([-1.0, 2.0]), np.array([0, 1]))
        >>> round(found["loss"], 4), found["accuracy"]
        (0.2201, 1.0)
    """
    exact = logits.double()
    loss = float(functional.binary_cross_entropy_with_logits(exact, torch.from_numpy(labels).double()))
    if not math.isfinite(loss):
        return {"loss": loss, **dict.fromkeys(MEASURES)}
    found = classification(labels.astype(np.int64), torch.sigmoid(exact).numpy(), 0.5)
    return {"loss": loss, **{name: found[name] for name in MEASURES}}


# Random states named by whole numbers, so that nothing about randomness has to be saved.


def seed_of(*numbers: int) -> int:
    """A seed below 2^31 that follows from whole numbers.

    Example:
        >>> seed_of(0, 7) == seed_of(0, 7), seed_of(0, 7) == seed_of(0, 8)
        (True, False)
    """
    return int(np.random.SeedSequence(numbers).generate_state(1)[0] >> 1)


def seed_everything(*numbers: int) -> None:
    """Seed torch's generators from a tuple of whole numbers, so that (seed, epoch, step) names one random state."""
    torch.manual_seed(int(np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0] >> np.uint64(1)))
