"""Points of the ROC, precision-recall, reliability and decision curves, for figures and tables."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from tumortrace.errors import PredictionsError
from tumortrace.evaluation.intervals import percentile_interval, wilson
from tumortrace.evaluation.replicates import Replicates
from tumortrace.evaluation.table import check_arrays
from tumortrace.evaluation.tally import BINS, Floats, Tally, by_replicate, equal_mass_bins, sum_bins, tally
from tumortrace.records.metrics import Benefit, Estimate


@dataclass(frozen=True)
class Curves:
    """ROC and precision-recall curve of a binary classifier, class 1 being positive.

    Attributes:
        fpr: False positive rate, ascending from 0 to 1, one point per distinct probability and (0, 0).
        tpr: True positive rate at each of them.
        roc_threshold: Threshold of each, descending; infinity at (0, 0).
        recall: Recall, ascending, one point per distinct probability.
        precision: Precision at each of them.
        pr_threshold: Threshold of each, descending.
    """

    fpr: Floats
    tpr: Floats
    roc_threshold: Floats
    recall: Floats
    precision: Floats
    pr_threshold: Floats


def curves(label: ArrayLike, probability: ArrayLike) -> Curves:
    """The points of both curves.

    Args:
        label: 0 or 1, shape (n,).
        probability: Probability of class 1, shape (n,), in [0, 1].

    Returns:
        The curves, empty where only one class is present.

    Raises:
        PredictionsError: A label or a probability is not possible.

    Example:
        >>> result = curves([0, 0, 1, 1], [0.1, 0.6, 0.4, 0.9])
        >>> result.fpr, result.tpr
        (array([0. , 0. , 0.5, 0.5, 1. ]), array([0. , 0.5, 0.5, 1. , 1. ]))
    """
    counts = tally(check_arrays(label, probability))
    fpr, tpr = roc_points(counts)
    levels = counts.probability[::-1]
    called, true = np.cumsum(counts.total[::-1]), np.cumsum(counts.positive[::-1])
    both = len(fpr) > 0
    return Curves(
        fpr=fpr,
        tpr=tpr,
        roc_threshold=np.append(np.inf, levels) if both else np.empty(0),
        recall=true / true[-1] if both else np.empty(0),
        precision=true / called if both else np.empty(0),
        pr_threshold=levels if both else np.empty(0),
    )


def roc_points(counts: Tally) -> tuple[Floats, Floats]:
    """False and true positive rates from (0, 0) to (1, 1); both empty where only one class is present."""
    false = np.append(0, np.cumsum(counts.negative[::-1]))
    true = np.append(0, np.cumsum(counts.positive[::-1]))
    if false[-1] == 0 or true[-1] == 0:
        return np.empty(0), np.empty(0)
    return false / false[-1], true / true[-1]


@dataclass(frozen=True)
class ReliabilityBins:
    """What probabilities meant: bins of equal mass, ascending, without the empty ones; arrays of shape (bins,).

    Attributes:
        low: Least probability in each.
        high: Greatest.
        probability: Mean probability.
        share: Observed share of positives.
        share_low: Lower end of the share's 95 % Wilson interval.
        share_high: Upper end.
        count: Number of images.
    """

    low: Floats
    high: Floats
    probability: Floats
    share: Floats
    share_low: Floats
    share_high: Floats
    count: NDArray[np.int64]


def reliability_bins(label: ArrayLike, probability: ArrayLike) -> ReliabilityBins:
    """The bins of `ece`, as reports and pages draw them.

    Args:
        label: 0 or 1, shape (n,).
        probability: Probability of class 1, shape (n,), in [0, 1].

    Raises:
        PredictionsError: A label or a probability is not possible.

    Example:
        >>> bins = reliability_bins([0, 0, 1, 1], [0.1, 0.1, 0.6, 0.8])
        >>> bins.low, bins.share, bins.count
        (array([0.1, 0.6, 0.8]), array([0., 1., 1.]), array([2, 1, 1]))
    """
    counts = tally(check_arrays(label, probability))
    place, levels = equal_mass_bins(counts), counts.probability
    full, first = np.unique(place, return_index=True)
    last = np.append(first[1:], len(levels)) - 1
    positive, count, summed = (
        sum_bins(values, place, BINS)[full] for values in (counts.positive, counts.total, counts.total * levels)
    )
    low, high = wilson(positive, count)
    return ReliabilityBins(
        levels[first], levels[last], summed / count, positive / count, low, high, count.astype(np.int64)
    )


Band = tuple[Floats, Floats, Floats]


def roc_band(replicates: Replicates, points: int = 101) -> Band:
    """A pointwise bootstrap band of the ROC curve.

    Args:
        replicates: Of the predictions; the first 200 are used.
        points: Number of false positive rates, evenly spaced from 0 to 1.

    Returns:
        False positive rates, lower and upper true positive rates, each of shape (points,); empty where
        more than 5 % of the replicates have one class only.

    Raises:
        PredictionsError: There are fewer than two points.

    Example:
        >>> import pandas as pd
        >>> table = pd.DataFrame({"label": [0, 0, 1, 1] * 5, "probability": [0.1, 0.6, 0.4, 0.9] * 5})
        >>> fpr, low, high = roc_band(Replicates(table), points=3)
        >>> fpr, bool((low <= high).all())
        (array([0. , 0.5, 1. ]), True)
    """
    grid = _grid(points)

    @by_replicate
    def height(counts: Tally) -> Floats:
        fpr, tpr = roc_points(counts)
        return np.interp(grid, fpr, tpr) if len(fpr) else np.full(points, np.nan)

    return _band(grid, replicates.measure(height, DRAWN), replicates.confidence)


def precision_recall_band(replicates: Replicates, points: int = 101) -> Band:
    """A pointwise bootstrap band of the precision-recall curve; arguments as for `roc_band`.

    The precision at a recall is that of the highest threshold which reaches it: a step, as in average precision, and no
    straight line between points, which would promise too much (Davis & Goadrich 2006).

    Returns:
        Recalls, lower and upper precisions, each of shape (points,); empty as for `roc_band`.

    Example:
        >>> import pandas as pd
        >>> table = pd.DataFrame({"label": [0, 0, 1, 1] * 5, "probability": [0.1, 0.6, 0.4, 0.9] * 5})
        >>> recall, low, high = precision_recall_band(Replicates(table), points=3)
        >>> recall, bool((low <= high).all())
        (array([0. , 0.5, 1. ]), True)
    """
    grid = _grid(points)

    @by_replicate
    def height(counts: Tally) -> Floats:
        called, true = np.cumsum(counts.total[::-1]), np.cumsum(counts.positive[::-1])
        if true[-1] in (0, called[-1]):
            return np.full(points, np.nan)
        at = np.searchsorted(true / true[-1], grid, side="left")
        at[grid == 0] = np.searchsorted(called, 1)  # at recall 0, the highest probability that the replicate holds
        return np.asarray(true[at] / called[at])

    return _band(grid, replicates.measure(height, DRAWN), replicates.confidence)


DRAWN = 200  # replicates behind a band


def _grid(points: int) -> Floats:
    if points < 2:
        raise PredictionsError(f"{points} points", expected="2 or more", remedy="use 101")
    return np.linspace(0, 1, points)


def _band(grid: Floats, heights: Floats, confidence: float) -> Band:
    ends = percentile_interval(heights, confidence)
    return (np.empty(0), np.empty(0), np.empty(0)) if ends is None else (grid, *ends)


# The decision curve: what a model is worth to those who act on it (Vickers & Elkin 2006).


#: Probabilities from which on one acts, .025 apart.
THRESHOLDS: Floats = np.round(np.arange(1, 40) / 40, 3)
BENEFIT_NAMES: tuple[tuple[str, float], ...] = tuple((kind, float(t)) for kind in ("model", "all") for t in THRESHOLDS)


def net_benefit(counts: Tally) -> Floats:
    """Net benefit of acting on the model, and of acting on every image, at each of `THRESHOLDS`.

    Whoever acts at a probability of t or more holds a missed tumour to be (1 - t) / t times as bad as a needless
    action. Net benefit is true positives less false positives at that rate, as a share of all images:
    tp / n - fp / n * t / (1 - t). Acting on no image has net benefit 0.

    Returns:
        In the order of `BENEFIT_NAMES`: first of the model, then of acting on all.

    Example:
        >>> from tumortrace.evaluation.table import check_arrays
        >>> benefit = net_benefit(tally(check_arrays([0, 0, 1, 1], [0.1, 0.6, 0.4, 0.9])))
        >>> places = [BENEFIT_NAMES.index(name) for name in (("model", 0.5), ("model", 0.2), ("all", 0.2))]
        >>> benefit[places].round(4).tolist()
        [0.0, 0.4375, 0.375]
    """
    below = np.searchsorted(counts.probability, THRESHOLDS, side="left")
    called_positive, called_negative = (
        np.append(np.cumsum(side[..., ::-1], axis=-1)[..., ::-1], np.zeros((*side.shape[:-1], 1)), axis=-1)
        for side in (counts.positive, counts.negative)
    )
    n, odds = counts.total.sum(-1)[..., None], THRESHOLDS / (1 - THRESHOLDS)
    model = (called_positive[..., below] - called_negative[..., below] * odds) / n
    return np.concatenate([model, (called_positive[..., :1] - called_negative[..., :1] * odds) / n], axis=-1)


def decision_curve(estimates: Mapping[tuple[str, float], Estimate]) -> list[Benefit]:
    """One record per threshold, of estimates by `BENEFIT_NAMES`."""
    return [Benefit(threshold=t, model=estimates["model", t], all=estimates["all", t]) for t in THRESHOLDS.tolist()]
