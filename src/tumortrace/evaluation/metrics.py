"""Metrics of a binary classifier, class 1 being positive.

All of them depend on the predictions only through a tally: how many positive and negative images there are at each
distinct probability. Counting that once makes every metric a few sums, whether over the images or over a bootstrap
replicate of them.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from tumortrace.evaluation.table import Predictions, check_arrays, check_threshold

#: Metrics that depend on the calls alone.
CALLED = ("accuracy", "balanced_accuracy", "sensitivity", "specificity", "precision", "npv", "f1", "mcc")
METRICS = ("auroc", "average_precision", *CALLED, "brier", "nll", "ece")
ECE_BINS = 15
Floats = NDArray[np.float64]


def classification(label: ArrayLike, probability: ArrayLike, threshold: float = 0.5) -> dict[str, Any]:
    """Every metric in `METRICS` at a threshold, without intervals.

    Args:
        label: 0 or 1, shape (n,).
        probability: Probability of class 1, shape (n,), in [0, 1].
        threshold: An image is called positive where its probability is at or above it.

    Returns:
        `{metric: float or None, ..., "confusion_matrix": {"tn", "fp", "fn", "tp"}, "threshold", "n", "prevalence"}`.
        A metric that the data do not define is None, never 0 or 1: with one class only `auroc`,
        `average_precision`, `balanced_accuracy` and `mcc`; without positive images `sensitivity`, without negative ones
        `specificity`, without positive predictions `precision`, without negative ones `npv`, without either kind
        of prediction `mcc`, and `f1` where nothing is positive nor called so.

        `auroc` and `average_precision` as in scikit-learn (ties count half; step-wise sum), `brier` is the mean squared
        error of the probability, `nll` the mean negative log-likelihood in nats with probabilities clipped by
        2.2e-16 as in scikit-learn, `ece` the expected calibration error over 15 equal-mass bins.

    Raises:
        PredictionsError: A label, a probability or the threshold is not possible.

    Example:
        >>> result = classification([0, 0, 1, 1], [0.1, 0.6, 0.4, 0.9], threshold=0.5)
        >>> result["auroc"], result["sensitivity"], result["confusion_matrix"]
        (0.75, 0.5, {'tn': 1, 'fp': 1, 'fn': 1, 'tp': 1})
    """
    check_threshold(threshold)
    return describe(tally(check_arrays(label, probability)), threshold)


@dataclass(frozen=True)
class Tally:
    """How many images there are at each distinct probability.

    Attributes:
        probability: Distinct probabilities, ascending, shape (k,).
        positive: Number of positive images at each, shape (k,), whole numbers as float64.
        negative: The same of negative images.
        surprise: Negative log-likelihood, in nats, of a negative and of a positive image at each, shape (2, k).
    """

    probability: Floats
    positive: Floats
    negative: Floats
    surprise: Floats

    @property
    def total(self) -> Floats:
        """Number of images at each probability."""
        return self.positive + self.negative


def tally(predictions: Predictions) -> Tally:
    """The tally of checked predictions.

    Example:
        >>> counts = tally(check_arrays([0, 1, 1], [0.5, 0.5, 0.9]))
        >>> counts.probability, counts.positive, counts.negative
        (array([0.5, 0.9]), array([1., 1.]), array([1., 0.]))
    """
    levels, level = np.unique(predictions.probability, return_inverse=True)
    positive = np.bincount(level, weights=predictions.label, minlength=len(levels))
    negative = np.bincount(level, weights=1 - predictions.label, minlength=len(levels))
    epsilon = np.finfo(np.float64).eps
    surprise = -np.log(np.clip([1 - levels, levels], epsilon, 1 - epsilon))
    return Tally(levels, positive.astype(np.float64), negative.astype(np.float64), surprise)


def describe(counts: Tally, threshold: float) -> dict[str, Any]:
    """`measure` for reading: undefined metrics as None, with the confusion matrix and the counts."""
    values = measure(counts, threshold)
    matrix = confusion_matrix(counts, threshold)
    n = sum(matrix.values())
    return {
        **{metric: None if math.isnan(value) else value for metric, value in values.items()},
        "confusion_matrix": matrix,
        "threshold": float(threshold),
        "n": n,
        "prevalence": (matrix["fn"] + matrix["tp"]) / n,
    }


def confusion_matrix(counts: Tally, threshold: float) -> dict[str, int]:
    """The four counts at a threshold, ready for JSON.

    Example:
        >>> confusion_matrix(tally(check_arrays([0, 1, 1], [0.6, 0.5, 0.2])), 0.5)
        {'tn': 0, 'fp': 1, 'fn': 1, 'tp': 1}
    """
    return {
        name: int(count) for name, count in zip(("tn", "fp", "fn", "tp"), confusion(counts, threshold), strict=True)
    }


def confusion(counts: Tally, threshold: float) -> tuple[float, float, float, float]:
    """True negatives, false positives, false negatives, true positives at a threshold."""
    cut = int(np.searchsorted(counts.probability, threshold, side="left"))
    fn, tn = float(counts.positive[:cut].sum()), float(counts.negative[:cut].sum())
    tp, fp = float(counts.positive[cut:].sum()), float(counts.negative[cut:].sum())
    return tn, fp, fn, tp


def measure(counts: Tally, threshold: float) -> dict[str, float]:
    """Every metric in `METRICS`, NaN where it is not defined."""
    n = counts.positive.sum() + counts.negative.sum()
    squared = counts.positive @ (1 - counts.probability) ** 2 + counts.negative @ counts.probability**2
    surprise = counts.negative @ counts.surprise[0] + counts.positive @ counts.surprise[1]
    return {
        "auroc": auroc(counts),
        "average_precision": average_precision(counts),
        **measure_calls(counts, threshold),
        "brier": ratio(float(squared), n),
        "nll": ratio(float(surprise), n),
        "ece": expected_calibration_error(counts),
    }


def measure_calls(counts: Tally, threshold: float) -> dict[str, float]:
    """The metrics in `CALLED`, which depend on the calls alone; NaN where not defined."""
    tn, fp, fn, tp = confusion(counts, threshold)
    sensitivity, specificity = ratio(tp, tp + fn), ratio(tn, tn + fp)
    spread = math.sqrt(tp + fp) * math.sqrt(tp + fn) * math.sqrt(tn + fp) * math.sqrt(tn + fn)
    return {
        "accuracy": ratio(tn + tp, tn + fp + fn + tp),
        "balanced_accuracy": (sensitivity + specificity) / 2,
        "sensitivity": sensitivity,
        "specificity": specificity,
        "precision": ratio(tp, tp + fp),
        "npv": ratio(tn, tn + fn),
        "f1": ratio(2 * tp, 2 * tp + fp + fn),
        "mcc": ratio(tp * tn - fp * fn, spread),
    }


def auroc(counts: Tally) -> float:
    """Probability that a positive image scores above a negative one, ties counting half (Hanley & McNeil 1982)."""
    negative_below = np.cumsum(counts.negative) - counts.negative
    wins = counts.positive @ (negative_below + counts.negative / 2)
    return ratio(float(wins), float(counts.positive.sum() * counts.negative.sum()))


def average_precision(counts: Tally) -> float:
    """Precision averaged over the steps of recall, without interpolation, as in scikit-learn."""
    positives = float(counts.positive.sum())
    if counts.negative.sum() == 0:
        return math.nan  # would be 1 whatever the model says
    called = np.cumsum(counts.total[::-1])[::-1]
    true = np.cumsum(counts.positive[::-1])[::-1]
    precision = true / np.maximum(called, 1)  # 0/0 only at levels that a bootstrap replicate has no image at
    return ratio(float(counts.positive @ precision), positives)


def expected_calibration_error(counts: Tally, bins: int = ECE_BINS) -> float:
    """Mean distance between probability and observed share of positives over equal-mass bins, in [0, 1].

    The l1 calibration error of the positive class with bins of equal size (Nixon et al. 2019; Kumar et al. 2019).
    It is never below 0, so noise makes it too large: about .07 at 300 images and .02 at 3,000 of a perfect model.
    """
    gap = np.append(0, np.cumsum(counts.total * counts.probability - counts.positive))[bin_edges(counts, bins)]
    return ratio(float(np.abs(np.diff(gap)).sum()), float(counts.total.sum()))


def bin_edges(counts: Tally, bins: int = ECE_BINS) -> NDArray[np.int64]:
    """Where equal-mass bins begin and end among the levels of a tally, shape (bins + 1,), ascending.

    Images of one probability always share a bin: the one that their middle rank falls into. So the bins do not
    depend on the order of the images; with many ties they are of unequal size, or empty.

    Example:
        >>> bin_edges(tally(check_arrays([0, 0, 1, 1], [0.1, 0.2, 0.2, 0.2])), bins=2)
        array([0, 1, 2])
    """
    total = counts.total
    middle = np.cumsum(total) - total / 2
    inner = np.searchsorted(bins * middle / total.sum(), np.arange(1, bins), side="left")
    return np.concatenate(([0], inner, [len(total)]))


def ratio(part: float, whole: float) -> float:
    """`part / whole`, NaN where there is no whole."""
    return part / whole if whole > 0 else math.nan
