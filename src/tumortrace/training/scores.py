"""What is measured of logits while a model is being made: loss and metrics, at a threshold of .5."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from tumortrace.evaluation.metrics import METRICS, classification


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
        return {"loss": loss, **dict.fromkeys(METRICS)}
    found = classification(labels.astype(np.int64), torch.sigmoid(exact).numpy(), 0.5)
    return {"loss": loss, **{name: found[name] for name in METRICS}}
