"""Shares of images with Wilson's intervals."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import norm

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
