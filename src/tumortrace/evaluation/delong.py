"""Whether two models differ in AUROC on the same images: DeLong's test in its fast form, extended to groups."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import norm, rankdata

from tumortrace.errors import PredictionsError
from tumortrace.evaluation.table import check_arrays

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class DeLong:
    """Outcome of the test.

    Attributes:
        auroc: Of the first and of the second model.
        difference: Second minus first.
        standard_error: Of the difference; None where it is not defined.
        z: Difference in standard errors; None where the standard error is 0 or not defined.
        p: Two-sided; None where z is.
    """

    auroc: tuple[float, float]
    difference: float
    standard_error: float | None
    z: float | None
    p: float | None


def delong(label: ArrayLike, first: ArrayLike, second: ArrayLike, group: ArrayLike | None = None) -> DeLong:
    """The test of DeLong et al. (1988) for two correlated AUROCs, computed from ranks (Sun & Xu 2014).

    Images of one slide or patient resemble each other, which the test does not know: with groups, the structural
    components are summed by group first (Obuchowski 1997), which is the same where each group has one image.

    Args:
        label: 0 or 1, shape (n,).
        first: Probability of class 1 by the first model, shape (n,), in [0, 1].
        second: The same by the second model, of the same images.
        group: Slide or patient of each image, shape (n,); None takes the images as independent.

    Raises:
        PredictionsError: A label or a probability is not possible, or only one class is present.

    Example:
        >>> result = delong([0, 0, 0, 1, 1, 1], [0.1, 0.6, 0.3, 0.4, 0.9, 0.8], [0.1, 0.6, 0.3, 0.2, 0.7, 0.5])
        >>> [round(value, 3) for value in (*result.auroc, result.difference, result.p)]
        [0.889, 0.667, -0.222, 0.157]
    """
    labels = check_arrays(label, first).label
    check_arrays(label, second)
    positive = labels == 1
    if positive.all() or not positive.any():
        raise PredictionsError(
            f"only images of class {int(positive.any())}", expected="both classes", remedy="compare on other images"
        )
    components = [_components(positive, np.asarray(scores, dtype=np.float64)) for scores in (first, second)]
    aurocs = [float(values[positive].mean()) for values in components]
    deviation = (components[1] - aurocs[1]) - (components[0] - aurocs[0])
    codes = np.arange(len(labels)) if group is None else np.unique(np.asarray(group, dtype=str), return_inverse=True)[1]
    variance = _variance(deviation, positive, codes)
    difference = aurocs[1] - aurocs[0]
    error = None if variance is None else math.sqrt(variance)
    z = difference / error if error else None
    p = None if z is None else float(2 * norm.sf(abs(z)))
    return DeLong((aurocs[0], aurocs[1]), difference, error, z, p)


def _components(positive: NDArray[np.bool_], scores: Floats) -> Floats:
    """Per image, the share of the other class's images on the right side of it, ties counting half."""
    everywhere = rankdata(scores)
    result = np.empty(len(scores))
    result[positive] = (everywhere[positive] - rankdata(scores[positive])) / (~positive).sum()
    result[~positive] = 1 - (everywhere[~positive] - rankdata(scores[~positive])) / positive.sum()
    return result


def _variance(deviation: Floats, positive: NDArray[np.bool_], codes: NDArray[np.int64]) -> float | None:
    """Variance of the difference of the AUROCs; None where one group alone holds a class.

    `S10 / m + S01 / n + 2 S11 / (m n)` of Obuchowski (1997), each S a mean square or product of group sums.
    """
    groups = int(codes.max()) + 1
    sums, sizes = [], []
    for chosen in (positive, ~positive):
        sums.append(np.bincount(codes[chosen], weights=deviation[chosen], minlength=groups) / chosen.sum())
        sizes.append(len(np.unique(codes[chosen])))
    if min(sizes) < 2:
        return None
    own = sum(size / (size - 1) * float(part @ part) for size, part in zip(sizes, sums, strict=True))
    variance = own + 2 * groups / (groups - 1) * float(sums[0] @ sums[1])
    return max(variance, 0.0)
