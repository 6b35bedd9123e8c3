"""The loss that is minimised."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional

from tumortrace.training.options import Loss


def binary_loss(logits: Tensor, targets: Tensor, options: Loss, share: float) -> Tensor:
    """Mean binary cross-entropy of a batch.

    Args:
        logits: Of the positive class, shape (N,).
        targets: Labels, or probabilities to learn, shape (N,).
        options: Label smoothing and class weights.
        share: Of the positives among all training images, by which "balanced" weighs.
    """
    weights = None
    if options.class_weights == "balanced":
        weights = (1 - targets) * 0.5 / (1 - share) + targets * 0.5 / share
    smoothed = targets * (1 - options.label_smoothing) + options.label_smoothing / 2
    return functional.binary_cross_entropy_with_logits(logits, smoothed, weights)
