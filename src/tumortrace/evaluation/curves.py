"""Points of the ROC, precision-recall and reliability curves, for figures and tables."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from tumortrace.errors import PredictionsError
from tumortrace.evaluation.intervals import UNDEFINED_ALLOWED, check_settings
from tumortrace.evaluation.metrics import Tally, bin_edges, tally
from tumortrace.evaluation.resampling import resamples, wilson
from tumortrace.evaluation.table import check_arrays, check_table

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Curves:
    """Curves of a binary classifier, class 1 being positive.

    Attributes:
        fpr: False positive rate, ascending from 0 to 1, one point per distinct probability and (0, 0).
        tpr: True positive rate at each of them.
        roc_threshold: Threshold of each, descending; infinity at (0, 0).
        recall: Recall, ascending, one point per distinct probability.
        precision: Precision at each of them.
        pr_threshold: Threshold of each, descending.
        bin_probability: Mean probability in each reliability bin, ascending. The bins are those of `ece`: 15 of
            equal mass, without the empty ones.
        bin_share: Observed share of positives in each bin.
        bin_low: Lower end of the share's 95 % Wilson interval.
        bin_high: Upper end.
        bin_count: Number of images in each bin.
    """

    fpr: Floats
    tpr: Floats
    roc_threshold: Floats
    recall: Floats
    precision: Floats
    pr_threshold: Floats
    bin_probability: Floats
    bin_share: Floats
    bin_low: Floats
    bin_high: Floats
    bin_count: NDArray[np.int64]


def curves(label: ArrayLike, probability: ArrayLike) -> Curves:
    """The points of the three curves.

    Args:
        label: 0 or 1, shape (n,).
        probability: Probability of class 1, shape (n,), in [0, 1].

    Returns:
        The curves; those of ROC and precision-recall are empty where only one class is present.

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
    edges = bin_edges(counts)
    below = np.append(0, np.cumsum(counts.total))[edges]
    count = np.diff(below)
    full = count > 0
    positive = np.diff(np.append(0, np.cumsum(counts.positive))[edges])[full]
    summed = np.diff(np.append(0, np.cumsum(counts.total * counts.probability))[edges])[full]
    low, high = wilson(positive, count[full])
    return Curves(
        fpr=fpr,
        tpr=tpr,
        roc_threshold=np.append(np.inf, levels) if both else np.empty(0),
        recall=true / true[-1] if both else np.empty(0),
        precision=true / called if both else np.empty(0),
        pr_threshold=levels if both else np.empty(0),
        bin_probability=summed / count[full],
        bin_share=positive / count[full],
        bin_low=low,
        bin_high=high,
        bin_count=count[full].astype(np.int64),
    )


def roc_points(counts: Tally) -> tuple[Floats, Floats]:
    """False and true positive rates from (0, 0) to (1, 1); both empty where only one class is present."""
    false = np.append(0, np.cumsum(counts.negative[::-1]))
    true = np.append(0, np.cumsum(counts.positive[::-1]))
    if false[-1] == 0 or true[-1] == 0:
        return np.empty(0), np.empty(0)
    return false / false[-1], true / true[-1]


def roc_band(
    table: pd.DataFrame, *, points: int = 101, replicates: int = 200, seed: int = 0, confidence: float = 0.95
) -> tuple[Floats, Floats, Floats]:
    """A pointwise bootstrap band of the ROC curve, from the replicates that `evaluate_table` draws.

    Args:
        table: Columns `label`, `probability` and optionally `group`.
        points: Number of false positive rates, evenly spaced from 0 to 1.
        replicates: Number of bootstrap replicates.
        seed: Seed of the replicates.
        confidence: Share of bands that should contain the truth at any one point, in (0, 1).

    Returns:
        False positive rates, lower and upper true positive rates, each of shape (points,); empty where
        more than 5 % of the replicates have one class only.

    Raises:
        PredictionsError: The table or the settings cannot be used.

    Example:
        >>> table = pd.DataFrame({"label": [0, 0, 1, 1] * 5, "probability": [0.1, 0.6, 0.4, 0.9] * 5})
        >>> fpr, low, high = roc_band(table, points=3)
        >>> fpr, bool((low <= high).all())
        (array([0. , 0.5, 1. ]), True)
    """

    def height(counts: Tally, grid: Floats) -> Floats | None:
        fpr, tpr = roc_points(counts)
        return np.interp(grid, fpr, tpr) if len(fpr) else None

    return _band(table, height, points, replicates, seed, confidence)


def precision_recall_band(
    table: pd.DataFrame, *, points: int = 101, replicates: int = 200, seed: int = 0, confidence: float = 0.95
) -> tuple[Floats, Floats, Floats]:
    """A pointwise bootstrap band of the precision-recall curve; arguments as for `roc_band`.

    The precision at a recall is that of the highest threshold which reaches it: a step, as in average precision, and no
    straight line between points, which would promise too much (Davis & Goadrich 2006).

    Returns:
        Recalls, lower and upper precisions, each of shape (points,); empty as for `roc_band`.

    Example:
        >>> table = pd.DataFrame({"label": [0, 0, 1, 1] * 5, "probability": [0.1, 0.6, 0.4, 0.9] * 5})
        >>> recall, low, high = precision_recall_band(table, points=3)
        >>> recall, bool((low <= high).all())
        (array([0. , 0.5, 1. ]), True)
    """

    def height(counts: Tally, grid: Floats) -> Floats | None:
        called, true = np.cumsum(counts.total[::-1]), np.cumsum(counts.positive[::-1])
        if true[-1] in (0, called[-1]):
            return None
        at = np.searchsorted(true / true[-1], grid, side="left")
        at[grid == 0] = np.searchsorted(called, 1)  # at recall 0, the highest probability that the replicate holds
        return true[at] / called[at]

    return _band(table, height, points, replicates, seed, confidence)


def _band(
    table: pd.DataFrame,
    height: Callable[[Tally, Floats], Floats | None],
    points: int,
    replicates: int,
    seed: int,
    confidence: float,
) -> tuple[Floats, Floats, Floats]:
    """Percentiles of a curve's height over the replicates, at evenly spaced places from 0 to 1."""
    check_settings(replicates, confidence)
    if points < 2:
        raise PredictionsError(f"{points} points", expected="2 or more", remedy="use 101")
    grid = np.linspace(0, 1, points)
    drawn = [height(sample, grid) for sample in resamples(check_table(table), replicates, seed)]
    heights = [values for values in drawn if values is not None]
    if len(heights) < (1 - UNDEFINED_ALLOWED) * replicates:
        return np.empty(0), np.empty(0), np.empty(0)
    low, high = np.quantile(heights, [(1 - confidence) / 2, (1 + confidence) / 2], axis=0)
    return grid, low, high


# The decision curve: what a model is worth to those who act on it (Vickers & Elkin 2006).


#: Probabilities from which on one acts, .025 apart.
THRESHOLDS: NDArray[np.float64] = np.round(np.arange(1, 40) / 40, 3)
BENEFIT_NAMES: tuple[tuple[str, float], ...] = tuple((kind, float(t)) for kind in ("model", "all") for t in THRESHOLDS)


def net_benefit(counts: Tally) -> NDArray[np.float64]:
    """Net benefit of acting on the model, and of acting on every image, at each of `THRESHOLDS`.

    Whoever acts at a probability of t or more holds a missed tumour to be (1 - t) / t times as bad as a needless
    action. Net benefit is true positives less false positives at that rate, as a share of all images:
    tp / n - fp / n * t / (1 - t). Acting on no image has net benefit 0.

    Returns:
        In the order of `BENEFIT_NAMES`: first of the model, then of acting on all.

    Example:
        >>> from tumortrace.evaluation.metrics import tally
        >>> from tumortrace.evaluation.table import check_arrays
        >>> benefit = net_benefit(tally(check_arrays([0, 0, 1, 1], [0.1, 0.6, 0.4, 0.9])))
        >>> places = [BENEFIT_NAMES.index(name) for name in (("model", 0.5), ("model", 0.2), ("all", 0.2))]
        >>> benefit[places].round(4).tolist()
        [0.0, 0.4375, 0.375]
    """
    below = np.searchsorted(counts.probability, THRESHOLDS, side="left")
    positives, negatives = np.append(0, np.cumsum(counts.positive)), np.append(0, np.cumsum(counts.negative))
    n, odds = positives[-1] + negatives[-1], THRESHOLDS / (1 - THRESHOLDS)
    model = (positives[-1] - positives[below] - (negatives[-1] - negatives[below]) * odds) / n
    return np.concatenate([model, (positives[-1] - negatives[-1] * odds) / n])


def decision_curve(entries: Mapping[tuple[str, float], dict[str, Any]]) -> list[dict[str, Any]]:
    """One record per threshold, `{"threshold": t, "model": entry, "all": entry}`, of entries by `BENEFIT_NAMES`."""
    return [{"threshold": t, "model": entries["model", t], "all": entries["all", t]} for t in THRESHOLDS.tolist()]
