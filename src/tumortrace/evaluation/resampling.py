"""Bootstrap replicates of predictions: of whole slides or patients where these are known, else of images."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import norm

from tumortrace.evaluation.metrics import Tally, tally
from tumortrace.evaluation.table import Predictions


def resamples(predictions: Predictions, replicates: int, seed: int) -> Iterator[Tally]:
    """Bootstrap replicates of the predictions, as tallies over the same levels.

    Whole groups are drawn where every image has one and there are two or more, else single images. Classes are not
    drawn apart: their shares vary as those of a new sample would, without which precision, F1 or the calibration error
    look surer than they are.

    Example:
        >>> from tumortrace.evaluation.table import check_arrays
        >>> sample = next(resamples(check_arrays([0, 0, 1], [0.1, 0.2, 0.9]), replicates=1, seed=0))
        >>> int(sample.positive.sum()) + int(sample.negative.sum())
        3
    """
    random = np.random.default_rng(seed)
    counts = tally(predictions)
    levels = len(counts.probability)
    level = np.searchsorted(counts.probability, predictions.probability)
    unit, units = predictions.group, predictions.n_groups
    if unit is None or units is None or not draws_groups(predictions):
        units = len(level)
        unit = np.empty(units, dtype=np.int64)
        unit[np.lexsort((predictions.label, level))] = np.arange(units)  # the order of the rows must not matter
    classes = [(level[rows], unit[rows]) for rows in (predictions.label == 1, predictions.label == 0)]
    for _ in range(replicates):
        times = np.bincount(random.integers(units, size=units), minlength=units).astype(np.float64)
        positive, negative = (np.bincount(rows, weights=times[of], minlength=levels) for rows, of in classes)
        yield replace(counts, positive=np.asarray(positive, float), negative=np.asarray(negative, float))


def single_groups(predictions: Predictions) -> Iterator[Tally]:
    """Each group by itself, as a tally over the same levels as `resamples`; none where groups are not known.

    Example:
        >>> from tumortrace.evaluation.table import Predictions
        >>> both = Predictions(np.array([0, 1, 1]), np.array([0.1, 0.2, 0.9]), np.array([0, 0, 1]), 2, 0)
        >>> [group.positive.tolist() for group in single_groups(both)]
        [[0.0, 1.0, 0.0], [0.0, 0.0, 1.0]]
    """
    counts = tally(predictions)
    level = np.searchsorted(counts.probability, predictions.probability)
    for code in range(predictions.n_groups or 0):
        own = predictions.group == code
        sides = (np.bincount(level[own & (predictions.label == k)], minlength=len(counts.probability)) for k in (0, 1))
        negative, positive = (np.asarray(side, dtype=np.float64) for side in sides)
        yield replace(counts, positive=positive, negative=negative)


def draws_groups(predictions: Predictions) -> bool:
    """Whether replicates draw whole groups: every image has one, and there are two or more."""
    return predictions.n_groups is not None and predictions.n_groups >= 2


# Shares of images with Wilson's intervals.


Floats = NDArray[np.float64]
PROPORTIONS = ("accuracy", "sensitivity", "specificity", "precision", "npv")


def proportions(matrix: dict[str, int]) -> dict[str, tuple[int, int]]:
    """Successes and trials behind each plain proportion.

    Example:
        >>> proportions({"tn": 5, "fp": 1, "fn": 2, "tp": 8})["sensitivity"]
        (8, 10)
    """
    tn, fp, fn, tp = (matrix[name] for name in ("tn", "fp", "fn", "tp"))
    counts = ((tn + tp, tn + fp + fn + tp), (tp, tp + fn), (tn, tn + fp), (tp, tp + fp), (tn, tn + fn))
    return dict(zip(PROPORTIONS, counts, strict=True))


def wilson(successes: ArrayLike, trials: ArrayLike, confidence: float = 0.95) -> tuple[Floats, Floats]:
    """Wilson's score interval of a proportion (Wilson 1927, without continuity correction).

    Args:
        successes: Counts, any shape.
        trials: Counts of at least 1, the same shape.
        confidence: Nominal coverage, in (0, 1).

    Returns:
        Lower and upper ends, in [0, 1], of the same shape.

    Example:
        >>> low, high = wilson(9, 10)
        >>> round(float(low), 4), round(float(high), 4)
        (0.5958, 0.9821)
    """
    k, n = np.asarray(successes, dtype=np.float64), np.asarray(trials, dtype=np.float64)
    z = norm.ppf((1 + confidence) / 2)
    centre = (k + z**2 / 2) / (n + z**2)
    half = z / (n + z**2) * np.sqrt(k * (n - k) / n + z**2 / 4)
    # Exactly 0 and 1 at the ends, which rounding would miss by 1e-17.
    return np.where(k == 0, 0.0, centre - half), np.where(k == n, 1.0, centre + half)


def wilson_of_groups(share: float, groups: int, confidence: float = 0.95) -> list[float]:
    """Wilson's interval of a share of which no bootstrap replicate of whole groups differs, groups counted as images.

    Where each group has the same share, mostly 0 or 1, drawing groups gives an interval of width 0, which is no
    certainty. How much the images of a group tell beyond the first is not known, so that each group counts once.

    Args:
        share: In [0, 1].
        groups: How many the share is of, at least 1.
        confidence: Nominal coverage, in (0, 1).

    Example:
        >>> [round(end, 3) for end in wilson_of_groups(1.0, 9)]
        [0.701, 1.0]
    """
    low, high = wilson(share * groups, groups, confidence)
    return [float(low), float(high)]
