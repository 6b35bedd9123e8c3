"""The classification report: precision, recall and F1 of each class, and their averages."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tumortrace.evaluation.metrics import Tally, confusion, ratio

SCORES = ("precision", "recall", "f1")
CLASSES = ("negative", "positive")
AVERAGES = ("macro", "weighted")
ROWS = (*CLASSES, *AVERAGES)
REPORT_NAMES = tuple((row, score) for row in ROWS for score in SCORES)


def class_scores(counts: Tally, threshold: float) -> list[float]:
    """Precision, recall and F1 of each class, their plain mean and their mean weighted by support.

    Args:
        counts: Tally of the predictions.
        threshold: An image is called positive where its probability is at or above it.

    Returns:
        In the order of `REPORT_NAMES`; NaN where not defined. A class without images has no weight in the weighted
        mean; any other undefined score leaves a mean undefined.

    Example:
        >>> from tumortrace.evaluation.metrics import tally
        >>> from tumortrace.evaluation.table import check_arrays
        >>> scores = class_scores(tally(check_arrays([0, 0, 0, 1], [0.1, 0.2, 0.7, 0.9])), 0.5)
        >>> {name: round(score, 3) for name, score in zip(REPORT_NAMES, scores) if name[1] == "f1"}
        {('negative', 'f1'): 0.8, ('positive', 'f1'): 0.667, ('macro', 'f1'): 0.733, ('weighted', 'f1'): 0.767}
    """
    tn, fp, fn, tp = confusion(counts, threshold)
    negative = [ratio(tn, tn + fn), ratio(tn, tn + fp), ratio(2 * tn, 2 * tn + fn + fp)]
    positive = [ratio(tp, tp + fp), ratio(tp, tp + fn), ratio(2 * tp, 2 * tp + fp + fn)]
    pairs = list(zip(negative, positive, strict=True))
    macro = [(one + other) / 2 for one, other in pairs]
    return negative + positive + macro + [_weighted(one, tn + fp, other, fn + tp) for one, other in pairs]


def class_proportions(matrix: dict[str, int]) -> dict[tuple[str, str], tuple[int, int]]:
    """Successes and trials behind the scores that are plain proportions.

    Example:
        >>> class_proportions({"tn": 5, "fp": 1, "fn": 2, "tp": 8})["negative", "precision"]
        (5, 7)
    """
    tn, fp, fn, tp = (matrix[name] for name in ("tn", "fp", "fn", "tp"))
    return {
        ("negative", "precision"): (tn, tn + fn),
        ("negative", "recall"): (tn, tn + fp),
        ("positive", "precision"): (tp, tp + fp),
        ("positive", "recall"): (tp, tp + fn),
    }


def classification_report(
    entries: Mapping[tuple[str, str], dict[str, Any]], matrix: dict[str, int]
) -> dict[str, dict[str, Any]]:
    """The report as a record.

    Args:
        entries: Value and interval of each score, by `REPORT_NAMES`.
        matrix: The confusion matrix behind them.

    Returns:
        `{row: {"precision": entry, "recall": entry, "f1": entry, "support": images}}`.
    """
    negative, positive = matrix["tn"] + matrix["fp"], matrix["fn"] + matrix["tp"]
    support = {"negative": negative, "positive": positive}
    return {
        row: {score: entries[row, score] for score in SCORES} | {"support": support.get(row, negative + positive)}
        for row in ROWS
    }


def _weighted(one: float, weight: float, other: float, other_weight: float) -> float:
    if weight == 0 or other_weight == 0:
        return other if weight == 0 else one
    return (weight * one + other_weight * other) / (weight + other_weight)
