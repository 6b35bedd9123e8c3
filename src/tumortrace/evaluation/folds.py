"""Cross-validation in numbers: per fold, over the folds with a corrected interval, pooled, and recipes compared."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
import pandas as pd
from scipy.stats import t as student

from tumortrace.errors import PredictionsError
from tumortrace.evaluation.classes import with_classes
from tumortrace.evaluation.comparisons import holm
from tumortrace.evaluation.intervals import called, evaluate_calls, measure_called
from tumortrace.evaluation.measures import MEASURES
from tumortrace.evaluation.table import check_table
from tumortrace.evaluation.tally import tally
from tumortrace.records.metrics import SplitMetrics
from tumortrace.records.plans import CrossvalRecord, FoldResult, FoldTest, RecipeComparison, RecipeResult, Spread

#: Metrics whose difference between recipes is tested; of the others an interval is given.
TESTED = ("auroc", "accuracy")
METHOD = {
    "interval": "Corrected resampled t interval (Nadeau & Bengio 2003; for folds Bouckaert & Frank 2004): training "
    "sets of folds overlap, so the variance of the mean is s² (1/J + n_test/n_rest), with J folds in all, J − 1 "
    "degrees of freedom and n_rest the images that a fold's model was made from. It is about models trained anew on "
    "as many images of the same kind, and is cut off at the metric's bounds.",
    "pooled": "All out-of-fold predictions taken together, each called at its own fold's threshold; ranks are compared "
    "across models of different folds, so that the pooled AUROC may differ from the mean of the folds.",
    "comparison": "Corrected resampled t-test on the differences between two recipes on the same folds, two-sided, of "
    f"{' and '.join(TESTED)}; Holm's correction over all these tests.",
}


@dataclass(frozen=True)
class Corrected:
    """Mean of a metric over folds.

    Attributes:
        mean: Over the folds that define it.
        sd: Standard deviation, with n − 1; None of fewer than two folds.
        n: Number of these folds.
        ci95: The corrected interval; None where all folds are equal or there are fewer than two.
        t: Mean in corrected standard errors; None where the interval is.
        p: Two-sided, of the mean being 0.
    """

    mean: float
    sd: float | None
    n: int
    ci95: tuple[float, float] | None
    t: float | None
    p: float | None


def corrected_t(values: Sequence[float], ratio: float, confidence: float = 0.95) -> Corrected:
    """Mean over folds with the corrected resampled t interval and test (Nadeau & Bengio 2003).

    Folds share training images, so the plain standard error s/√J is far too small; s √(1/J + ratio) takes its place.

    Args:
        values: One per fold of all repeats; NaN where a fold does not define it.
        ratio: Test images to images that the fold's model was made from: 1/(k − 1) with k folds.
        confidence: Nominal coverage, in (0, 1).

    Raises:
        PredictionsError: No fold defines a value, or the ratio is not above 0.

    Example:
        >>> found = corrected_t([0.8, 0.9, 0.85, 0.95, 0.75], ratio=0.25)
        >>> round(found.mean, 3), round(found.sd, 3), [round(end, 3) for end in found.ci95]
        (0.85, 0.079, [0.703, 0.997])
    """
    known = np.array([value for value in values if not math.isnan(value)], dtype=np.float64)
    if not len(known) or not ratio > 0:
        raise PredictionsError(f"{len(known)} folds at ratio {ratio}", expected="a fold, and a ratio above 0")
    mean, n = float(known.mean()), len(known)
    sd = float(known.std(ddof=1)) if n > 1 else None
    if sd is None or np.ptp(known) == 0:  # equal folds are no certainty
        return Corrected(mean, sd, n, None, None, None)
    error = sd * math.sqrt(1 / n + ratio)
    half = float(student.ppf((1 + confidence) / 2, n - 1)) * error
    p = float(2 * student.sf(abs(mean) / error, n - 1))
    return Corrected(mean, sd, n, (mean - half, mean + half), mean / error, p)


def summarise_folds(table: pd.DataFrame, *, replicates: int = 1000, seed: int = 0) -> CrossvalRecord:
    """Everything that out-of-fold predictions say.

    Args:
        table: Columns `id`, `group`, `recipe`, `repeat`, `fold`, `label`, `probability` and `prediction`; each image
            once per recipe and repeat.
        replicates: Of the pooled intervals, as for `evaluate_table`, like `seed`.

    Returns:
        `recipes`, `comparisons` (second minus first), `ratio` and `method` of the record.

    Raises:
        PredictionsError: The table cannot be used.
    """
    ratio = _ratio(table)
    measured = {str(name): _per_fold(part) for name, part in table.groupby("recipe", sort=False)}
    recipes = {
        name: RecipeResult(
            folds=_rows(folds),
            summary={metric: _summary(folds[metric], ratio, metric) for metric in MEASURES},
            pooled=pooled(table[table["recipe"] == name], replicates=replicates, seed=seed),
        )
        for name, folds in measured.items()
    }
    comparisons = [_compared(first, second, measured, ratio) for first, second in combinations(measured, 2)]
    tests = [test for comparison in comparisons for test in comparison.tests.values()]
    for test, corrected in zip(tests, holm([test.p for test in tests]), strict=True):
        test.p_holm = corrected
    return CrossvalRecord(recipes=recipes, comparisons=comparisons, ratio=ratio, method=METHOD)


def _ratio(table: pd.DataFrame) -> float:
    """Test images to the rest, on average over the folds."""
    sizes = table.drop_duplicates(["repeat", "fold", "id"]).groupby(["repeat", "fold"]).size()
    whole = sizes.groupby("repeat").transform("sum")
    return float((sizes / (whole - sizes)).mean())


def _per_fold(table: pd.DataFrame) -> pd.DataFrame:
    """Every metric of each fold, undefined ones NaN; index (repeat, fold)."""
    rows = []
    for (repeat, fold), part in table.groupby(["repeat", "fold"]):
        values = measure_called(tally(check_table(part)), tally(check_table(called(part))))
        groups = part["group"].nunique() if part["group"].notna().all() else None
        rows.append({"repeat": repeat, "fold": fold, "n": len(part), "n_groups": groups} | values)
    return pd.DataFrame(rows).set_index(["repeat", "fold"]).astype(dict.fromkeys(MEASURES, float))


def _rows(folds: pd.DataFrame) -> list[FoldResult]:
    """The folds as records: NaN becomes None."""
    plain = folds.reset_index().astype(object)
    return [FoldResult.model_validate(row) for row in plain.where(plain.notna(), None).to_dict("records")]


def _summary(values: pd.Series, ratio: float, metric: str, difference: bool = False) -> Spread | None:
    """Mean, spread, and the interval cut off at the bounds of the metric, or of differences of it."""
    if values.isna().all():
        return None
    corrected = corrected_t(values.tolist(), ratio)
    ends = corrected.ci95
    if ends:
        low, high = MEASURES[metric].bounds
        low, high = (low - high, high - low) if difference else (low, high)
        ends = max(low, ends[0]), min(high, ends[1])
    return Spread(mean=corrected.mean, sd=corrected.sd, n=corrected.n, ci95=ends)


def pooled(table: pd.DataFrame, *, replicates: int = 1000, seed: int = 0) -> SplitMetrics:
    """Metrics of all out-of-fold predictions of one recipe, each at its own fold's threshold.

    Args:
        table: As for `summarise_folds`; repeats of an image are drawn together.
        replicates: As for `evaluate_table`, like `seed`.
    """
    if table["repeat"].max() == table["repeat"].min() or table["group"].notna().all():
        return _pooled(table, replicates, seed)
    result = _pooled(table.assign(group=table["id"]), replicates, seed)
    method = result.intervals.replace("whole groups", "images with all their repeats").replace(" groups,", " images,")
    return result.model_copy(update={"n_groups": None, "intervals": method})


def _pooled(table: pd.DataFrame, replicates: int, seed: int) -> SplitMetrics:
    metrics = evaluate_calls(table, replicates=replicates, seed=seed)
    return with_classes(metrics, table, replicates=replicates, seed=seed)


def _compared(first: str, second: str, measured: dict[str, pd.DataFrame], ratio: float) -> RecipeComparison:
    differences = measured[second][list(MEASURES)] - measured[first][list(MEASURES)]
    tests = {}
    for metric in TESTED:
        defined = not differences[metric].isna().all()
        corrected = corrected_t(differences[metric].tolist(), ratio) if defined else None
        tests[metric] = FoldTest(t=corrected.t if corrected else None, p=corrected.p if corrected else None)
    spreads = {metric: _summary(differences[metric], ratio, metric, difference=True) for metric in MEASURES}
    return RecipeComparison(first=first, second=second, differences=spreads, tests=tests)
