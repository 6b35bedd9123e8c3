"""Whether models differ on the same images: paired bootstrap, McNemar's test, and Holm's correction."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from scipy.stats import binomtest, norm, rankdata

from tumortrace.errors import PredictionsError
from tumortrace.evaluation.intervals import called, estimated, measure_called, percentile_interval, share_with_interval
from tumortrace.evaluation.measures import MEASURES
from tumortrace.evaluation.replicates import Replicates
from tumortrace.evaluation.table import check_arrays, check_table
from tumortrace.evaluation.tally import Floats
from tumortrace.records.metrics import Estimate


@dataclass(frozen=True)
class McNemar:
    """Outcome of the test.

    Attributes:
        only_first: Images that the first model alone calls rightly.
        only_second: Images that the second model alone calls rightly.
        p: Two-sided, exact.
    """

    only_first: int
    only_second: int
    p: float


def mcnemar(first: ArrayLike, second: ArrayLike, group: ArrayLike | None = None) -> McNemar:
    """McNemar's exact test (1947) of whether two models are right equally often.

    Under the hypothesis the two models may be swapped for any image: the p-value is binomial. With groups they are
    swapped for whole groups, because images of one slide or patient resemble each other; all swaps are counted,
    which is the same test where each group has one image.

    Args:
        first: Whether the first model is right, bool, shape (n,).
        second: The same of the second model.
        group: Slide or patient of each image, shape (n,); None takes the images as independent.

    Raises:
        PredictionsError: The lengths differ.

    Example:
        >>> mcnemar([1, 1, 1, 1, 1, 0, 1], [0, 0, 0, 0, 0, 1, 1])
        McNemar(only_first=5, only_second=1, p=0.21875)
    """
    one, other = np.asarray(first, dtype=bool), np.asarray(second, dtype=bool)
    if one.ndim != 1 or one.shape != other.shape:
        raise PredictionsError(f"shapes {one.shape} and {other.shape}", expected="two flat arrays of one length")
    difference = other.astype(np.int64) - one
    counts = int((difference < 0).sum()), int((difference > 0).sum())
    if group is not None:
        codes = np.unique(np.asarray(group, dtype=str), return_inverse=True)[1]
        difference = np.bincount(codes, weights=difference).round().astype(np.int64)
    return McNemar(*counts, _swapping(difference[difference != 0]))


def _swapping(differences: NDArray[np.int64]) -> float:
    """Share of all sign patterns whose sum lies as far from 0 as that of `differences`, or farther."""
    sizes = np.abs(differences)
    if not len(sizes):
        return 1.0
    if (sizes == sizes[0]).all():
        return float(binomtest(int((differences > 0).sum()), len(sizes), 0.5).pvalue)
    share = np.zeros(int(sizes.sum()) + 1)  # by the sum of the sizes whose sign is plus
    share[0] = 1.0
    for size in sizes:
        share[size:] = (share[size:] + share[:-size]) / 2
        share[:size] /= 2
    reached = np.abs(2 * np.arange(len(share)) - len(share) + 1)
    return min(1.0, float(share[reached >= abs(int(differences.sum()))].sum()))


def holm(p: Sequence[float | None]) -> list[float | None]:
    """P-values corrected for their number (Holm 1979); None, an undefined one, stays None and is not counted.

    Example:
        >>> holm([0.01, None, 0.04, 0.03])
        [0.03, None, 0.06, 0.06]
    """
    defined = sorted((value, place) for place, value in enumerate(p) if value is not None)
    corrected: list[float | None] = [None] * len(p)
    largest = 0.0
    for rank, (value, place) in enumerate(defined):
        largest = max(largest, min(1.0, (len(defined) - rank) * value))
        corrected[place] = largest
    return corrected


def paired_differences(
    tables: Mapping[str, pd.DataFrame], *, replicates: int = 1000, seed: int = 0, confidence: float = 0.95
) -> dict[tuple[str, str], dict[str, Estimate]]:
    """Difference of every metric between each two models, with intervals from a paired bootstrap.

    Every replicate draws the same images for all models: whole groups where every image has one and there are two
    or more, else single images. Intervals are percentiles of the replicates' differences.

    Args:
        tables: By name, the models' predictions of the same images: columns `id`, `label`, `probability`,
            `prediction` (0 or 1, the call at the model's own threshold) and optionally `group`.
        replicates: As for `evaluate_table`, like `seed` and `confidence`.

    Returns:
        Second minus first, by pair and metric; None where not defined.

    Raises:
        PredictionsError: A table or the settings cannot be used, or the images differ.

    Example:
        >>> one = pd.DataFrame({"id": list("abcd"), "label": [0, 0, 1, 1], "probability": [0.1, 0.6, 0.4, 0.9]})
        >>> one["prediction"] = [0, 1, 0, 1]
        >>> both = paired_differences({"one": one, "same": one}, replicates=50)
        >>> both["one", "same"]["accuracy"]
        Estimate(value=0.0, ci95=(0.0, 0.0))
    """
    _require_same_images(tables)
    ordered = {name: table.assign(id=table["id"].astype(str)).sort_values("id") for name, table in tables.items()}
    drawn = Replicates(next(iter(ordered.values())), replicates, seed, confidence)
    measured = {name: _measured(drawn, table) for name, table in ordered.items()}
    return {
        (first, second): {
            metric: _difference(measured[second][metric] - measured[first][metric], confidence) for metric in MEASURES
        }
        for first, second in combinations(tables, 2)
    }


def _measured(replicates: Replicates, table: pd.DataFrame) -> dict[str, Floats]:
    """Every metric of the table and then of each of the same replicates of it, shape (1 + replicates,)."""
    scored, calls = replicates.of(table), replicates.of(called(table))
    blocks = [measure_called(scored.tally, calls.tally)]
    blocks += [measure_called(*pair) for pair in zip(scored.tallies(), calls.tallies(), strict=True)]
    return {metric: np.hstack([block[metric] for block in blocks]) for metric in MEASURES}


def _difference(values: Floats, confidence: float) -> Estimate:
    if not np.isfinite(values[0]):
        return estimated(None, None, confidence)
    return estimated(float(values[0]), percentile_interval(values[1:], confidence), confidence)


def _require_same_images(tables: Mapping[str, pd.DataFrame]) -> None:
    known = [
        table[["id", "label"]].astype({"id": str}).sort_values("id").reset_index(drop=True) for table in tables.values()
    ]
    for name, table in zip(tables, known, strict=True):
        if table["id"].duplicated().any() or not table.equals(known[0]):
            raise PredictionsError("not the same images", where=name, expected="each id once, the same in all tables")


# Whether two models differ in AUROC on the same images: DeLong's test in its fast form, extended to groups.


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


# How often two sets of calls of the same images agree.


def agreement(
    first: ArrayLike,
    second: ArrayLike,
    group: ArrayLike | None = None,
    *,
    replicates: int = 1000,
    seed: int = 0,
    confidence: float = 0.95,
) -> Estimate:
    """Share of images that are called alike, with its interval as `share_with_interval` makes it.

    Args:
        first: Calls, 0 or 1, shape (n,).
        second: The other calls of the same images.
        group: Slide or patient of each, shape (n,), or None.
        replicates: As for `evaluate_table`, like `seed` and `confidence`.

    Raises:
        PredictionsError: The arrays differ in length, are empty or hold something else.

    Example:
        >>> agreement([0, 1, 1, 0], [0, 1, 0, 0]).value
        0.75
    """
    one, other = np.asarray(first), np.asarray(second)
    if one.ndim != 1 or one.shape != other.shape:
        raise PredictionsError(f"shapes {one.shape} and {other.shape}", expected="two flat arrays of one length")
    checked = check_table(pd.DataFrame({"label": one, "probability": np.asarray(other, dtype=float)}), "calls")
    alike = checked.label == checked.probability
    return share_with_interval(alike, group, replicates=replicates, seed=seed, confidence=confidence)
