"""What every learner promises, and what all of them share: where they stand, what they measure, how they draw."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeAlias, TypeVar

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from tumortrace.evaluation.class_measures import WATCHED, class_scores
from tumortrace.evaluation.measures import MEASURES, classification, rises
from tumortrace.models.architecture import Network
from tumortrace.models.description import Architecture
from tumortrace.models.layers import LogOdds
from tumortrace.training.options import Stopping
from tumortrace.training.task import Task

#: An epoch, or a candidate, as a row of the history: numbers and text by column, None where a metric is undefined.
Row: TypeAlias = dict[str, Any]
AfterEpoch: TypeAlias = Callable[[Row], bool]
Kept = TypeVar("Kept")


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
    history: list[Row] = field(default_factory=list)


class Learner(Protocol):
    """What makes a model of a task: gradient descent, a probe of a frozen body, or a classical learner.

    Attributes:
        device: Where it computes.
        precision: As `resolve_precision` names it.
        network: What learns.
        weights: Where its weights come from: `origin`, `sha256`, `unused`.
        progress: Where it stands.
        notes: What the record has to say about how it learns.
    """

    device: torch.device
    precision: str
    weights: Row
    progress: Progress
    notes: list[str]

    def __init__(self, task: Task) -> None: ...

    @property
    def network(self) -> Network:
        """What learns."""

    @property
    def evaluated(self) -> Network:
        """The network that is validated and kept."""

    @property
    def architecture(self) -> Architecture:
        """What the bundle has to say to build the network again, without any network connection."""

    def resume(self) -> bool:
        """Continue from the last checkpoint; false where there is none, or nothing that is worth one."""

    def fit(self, after_epoch: AfterEpoch | None = None) -> Progress:
        """Learn to the end, and leave the best weights in `evaluated`; `after_epoch` ends it by returning true."""


def improves(value: float | None, best: float | None, stopping: Stopping) -> bool:
    """Whether a value of the stopping metric beats the best so far; None is an undefined one."""
    if value is None:  # undefined on this validation split: the first epoch counts
        return best is None
    if best is None:
        return True
    gain = value - best if rises(stopping.metric) else best - value
    return gain > stopping.least_improvement


def keep_best(
    candidates: Iterable[tuple[Row, float | None, Kept]],
    progress: Progress,
    stopping: Stopping,
    after_epoch: AfterEpoch | None,
) -> Kept:
    """The best of candidates, each with its row of the history and its value of the stopping metric."""
    best: Kept | None = None
    for row, value, candidate in candidates:
        progress.history.append(row)
        progress.epoch = len(progress.history)
        if improves(value, progress.best_value, stopping):
            progress.best_value, progress.best_epoch, best = value, progress.epoch, candidate
        if after_epoch is not None and after_epoch(row):
            break
    assert best is not None
    return best


def scores(
    logits: Tensor, labels: np.ndarray, classes: Tensor | None = None, kinds: np.ndarray | None = None
) -> dict[str, float | None]:
    """Loss and metrics of a split while a model is being made, at a threshold of .5.

    Args:
        logits: Of the positive class, shape (N,).
        labels: 0 or 1, shape (N,).
        classes: Of more than two classes their logits, shape (N, K).
        kinds: The class of each then, in [0, K), shape (N,).

    Returns:
        `loss`, the mean binary cross-entropy, and every metric, of more than two classes also those of `WATCHED`; None
        where one is undefined, as all are where the loss is no number.

    Example:
        >>> measured = scores(torch.tensor([-1.0, 2.0]), np.array([0, 1]))
        >>> round(measured["loss"], 4), measured["accuracy"]
        (0.2201, 1.0)
    """
    exact = logits.double()
    loss = float(functional.binary_cross_entropy_with_logits(exact, torch.from_numpy(labels).double()))
    if not math.isfinite(loss):
        return {"loss": loss, **dict.fromkeys((*MEASURES, *(() if classes is None else WATCHED)))}
    measured = classification(labels.astype(np.int64), torch.sigmoid(exact).numpy(), 0.5).metrics
    if classes is None or kinds is None:
        return {"loss": loss, **measured}
    return {"loss": loss, **measured, **class_scores(classes.double().softmax(1).numpy(), kinds)}


@torch.inference_mode()
def measure(head: nn.Module, features: np.ndarray, labels: np.ndarray, kinds: np.ndarray) -> dict[str, float | None]:
    """`scores` of what a head makes of features, shape (N, D); `kinds` are their classes."""
    parts = [
        outputs_of(head.eval(), torch.from_numpy(np.array(features[start : start + 4096], dtype=np.float32)))
        for start in range(0, len(features), 4096)
    ]
    logits, classes = (torch.cat(part) for part in zip(*parts, strict=True))
    return scores(logits, labels, classes if classes.shape[1] else None, kinds)


def outputs_of(head: nn.Module, features: Tensor) -> tuple[Tensor, Tensor]:
    """What a head in inference mode makes of features: logits (N,), and those of its classes (N, K), K 0 where two."""
    together = head[-1] if isinstance(head, nn.Sequential) else None
    if not isinstance(together, LogOdds) or not together.several:
        return head(features).float().cpu().view(-1), torch.empty(len(features), 0)
    classes: Tensor = head[:-1](features)  # type: ignore[index]
    return together.of(classes).float().cpu().view(-1), classes.float().cpu()


def seed_of(*numbers: int) -> int:
    """A seed below 2^31 that follows from whole numbers.

    Example:
        >>> seed_of(0, 7) == seed_of(0, 7), seed_of(0, 7) == seed_of(0, 8)
        (True, False)
    """
    return int(np.random.SeedSequence(numbers).generate_state(1)[0] >> 1)


def seed_everything(*numbers: int) -> None:
    """Seed torch from whole numbers: (seed, epoch, step) names one random state, and none has to be saved."""
    torch.manual_seed(int(np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0] >> np.uint64(1)))
