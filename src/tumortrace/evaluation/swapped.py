"""The other class as the positive one: the same calls, seen from the other side."""

from __future__ import annotations

import numpy as np
import pandas as pd

from tumortrace.evaluation.metrics import check_threshold
from tumortrace.evaluation.table import check_table

OPPOSITE = {"positive": "negative", "negative": "positive", "refer": "refer"}


def swap_classes(table: pd.DataFrame, threshold: float) -> tuple[pd.DataFrame, float]:
    """A predictions table with the classes exchanged, and the threshold at which no image is called otherwise.

    An image at the threshold is called positive, so after the exchange it has to lie below the new one: that is
    1 - threshold, or the next number above where an image lies on it. Where rounding has made 1 - probability of two
    images equal that are called differently, the one is moved to the next number below. So sensitivity and specificity
    change places exactly, and so do precision and negative predictive value.

    Args:
        table: Columns `label`, `probability` and optionally `decision` and `logit`; others are kept.
        threshold: An image is called positive where its probability is at or above it.

    Returns:
        The table with 1 - label and 1 - probability (decisions and logits turned too), and the threshold.

    Raises:
        PredictionsError: The table or the threshold cannot be used.

    Example:
        >>> table, threshold = swap_classes(pd.DataFrame({"label": [0, 1, 1], "probability": [0.25, 0.5, 0.75]}), 0.5)
        >>> table["label"].tolist(), table["probability"].tolist(), (table["probability"] >= threshold).tolist()
        ([1, 0, 0], [0.75, 0.5, 0.25], [True, False, False])
    """
    check_threshold(threshold)
    predictions = check_table(table)
    called = predictions.probability >= threshold
    other = 1 - predictions.probability
    swapped = max(1 - threshold, 0.0)
    if (other[called] >= swapped).any():
        swapped = float(np.nextafter(swapped, 2))
    stays = other[~called].min(initial=np.inf)  # the lowest that has to be called
    if stays < swapped:
        swapped = float(stays)
        other[called & (other >= swapped)] = np.nextafter(swapped, -1)
    result = table.assign(label=1 - predictions.label, probability=other)
    if "decision" in table:
        result["decision"] = table["decision"].map(OPPOSITE)
    if "logit" in table:
        result["logit"] = -table["logit"]
    return result, swapped
