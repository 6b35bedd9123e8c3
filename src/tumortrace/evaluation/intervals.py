"""Values with confidence intervals: Wilson's for proportions, the bootstrap for everything else and for groups."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any, TypeVar

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from tumortrace.errors import PredictionsError
from tumortrace.evaluation.inverted_tests import brier_reliability_interval, gap_interval
from tumortrace.evaluation.measures import CALLED, MEASURES, Measure, describe, gaps, measure
from tumortrace.evaluation.replicates import Replicates, draws
from tumortrace.evaluation.table import check_threshold
from tumortrace.evaluation.tally import Confusion, Floats, Tally, confusion, ratio
from tumortrace.records.metrics import Estimate, Mean, SplitMetrics

FEW_GROUPS = 10
UNDEFINED_ALLOWED = 0.05
ROUNDING = 1e-9
K = TypeVar("K", bound=Hashable)


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
    z = NormalDist().inv_cdf((1 + confidence) / 2)
    centre = (k + z**2 / 2) / (n + z**2)
    half = z / (n + z**2) * np.sqrt(k * (n - k) / n + z**2 / 4)
    # Exactly 0 and 1 at the ends, which rounding would miss by 1e-17.
    return np.where(k == 0, 0.0, centre - half), np.where(k == n, 1.0, centre + half)


def _wilson(successes: float, trials: float, confidence: float) -> list[float]:
    low, high = wilson(successes, trials, confidence)
    return [float(low), float(high)]


def percentile_interval(samples: Floats, confidence: float = 0.95) -> list[Any] | None:
    """The middle part of bootstrap replicates (Efron & Tibshirani 1993); None where more than 5 % of them are NaN.

    Args:
        samples: Value of each replicate, shape (replicates,), or values, shape (replicates, m).
        confidence: Share of the replicates between the ends, in (0, 1).

    Returns:
        The ends: numbers, or arrays of shape (m,).

    Example:
        >>> percentile_interval(np.arange(101.0), 0.5)
        [25.0, 75.0]
    """
    defined = samples[~np.isnan(samples).reshape(len(samples), -1).any(axis=1)]
    if len(defined) < (1 - UNDEFINED_ALLOWED) * len(samples):
        return None
    ends = np.quantile(defined, [(1 - confidence) / 2, (1 + confidence) / 2], axis=0)
    return ends.tolist() if samples.ndim == 1 else list(ends)


def estimated(value: float | None, ends: list[float] | None, confidence: float = 0.95) -> Estimate:
    """A value and its interval, which another confidence than 95 % gives another name, as in `ci90`."""
    return Estimate.model_validate({"value": value, f"ci{100 * confidence:g}": ends})


@dataclass(frozen=True)
class Kind:
    """How the interval of a value is made; by default, percentiles of the replicates.

    Attributes:
        counted: Successes and trials of a plain proportion: it gets Wilson's interval where replicates draw single
            images. Where they draw groups and no replicate differs, Wilson's with groups counted as images: drawing
            groups that all have the same share, mostly 0 or 1, gives an interval of width 0, which is no certainty.
        bounds: Of another value: at either of them, where no replicate differs, it gets Wilson's interval of as many
            trials as the rarer class has images, or groups where these are drawn.
        mirrored: The basic bootstrap's interval, cut off at 0, because replicates push the value upwards.
    """

    counted: tuple[float, float] | None = None
    bounds: tuple[float, float] | None = None
    mirrored: bool = False


def estimate(
    replicates: Replicates, function: Callable[[Tally], ArrayLike], kinds: Mapping[K, Kind]
) -> dict[K, Estimate]:
    """Whatever can be measured on a tally, with the confidence interval of each value.

    Args:
        replicates: Of the predictions.
        function: The values of a tally, in the order of `kinds`: shape (m,), or (r, m) of replicates; NaN where it does
            not define one.
        kinds: How the interval of each is made, by name.

    Returns:
        By name, None where not defined, as in `evaluate_table`.

    Example:
        >>> few = Replicates(pd.DataFrame({"label": [0, 1, 1, 1], "probability": [0.1, 0.2, 0.8, 0.9]}), 99)
        >>> estimate(few, lambda counts: (counts.positive.sum(-1) / counts.total.sum(-1))[..., None], {"share": Kind()})
        {'share': Estimate(value=0.75, ci95=(0.25, 1.0))}
    """
    values, drawn = np.asarray(function(replicates.tally), dtype=np.float64).tolist(), replicates.measure(function).T
    alone = np.asarray(function(replicates.groups())) if replicates.grouped else np.empty((0, len(values)))
    groups = np.isfinite(alone).sum(axis=0).tolist()  # those with an image that a share is of
    return {
        name: _estimated(replicates, kind, value, samples, trials)
        for (name, kind), value, samples, trials in zip(kinds.items(), values, drawn, groups, strict=True)
    }


def _estimated(replicates: Replicates, kind: Kind, value: float, samples: Floats, groups: int) -> Estimate:
    confidence = replicates.confidence
    if np.isnan(value):
        return estimated(None, None, confidence)
    if kind.counted and not replicates.grouped:
        return estimated(value, _wilson(*kind.counted, confidence), confidence)
    ends = percentile_interval(samples, confidence)
    if ends and kind.mirrored:
        low, high = 2 * value - ends[1], 2 * value - ends[0]
        ends = [min(max(0.0, low), value), max(value, high)]
    elif ends and kind.counted and ends[0] == ends[1]:
        ends = _wilson(value * groups, groups, confidence)
    elif ends and kind.bounds and ends[1] - ends[0] < ROUNDING and _at_end(value, kind.bounds):
        (least, most), trials = kind.bounds, _rarer(replicates)
        low, high = _wilson(trials * float(value > least + ROUNDING), trials, confidence)
        ends = [least + (most - least) * low, least + (most - least) * high]
    return estimated(value, ends, confidence)


def _at_end(value: float, bounds: tuple[float, float]) -> bool:
    return min(abs(value - end) for end in bounds) < ROUNDING


def _rarer(replicates: Replicates) -> int:
    """Number of images of the rarer class, or of groups with such images where replicates draw groups."""
    if replicates.grouped:
        alone = replicates.groups()
        present = [int((side.sum(-1) > 0).sum()) for side in (alone.positive, alone.negative)]
    else:
        present = np.bincount(replicates.predictions.label, minlength=2).tolist()
    return min(count for count in present if count)


def estimate_measures(replicates: Replicates, threshold: float, rows: Mapping[str, Measure]) -> dict[str, Estimate]:
    """The value of each measure with the interval that its row asks for."""
    calls = confusion(replicates.tally, threshold)
    drawn = {name: row for name, row in rows.items() if row.interval not in INVERTED}

    def values(counts: Tally) -> Floats:
        return np.stack([*measure(counts, threshold, drawn).values()], axis=-1)

    kinds = {name: kind_of(row, calls) for name, row in drawn.items()}
    entries = estimate(replicates, values, kinds) if kinds else {}
    for name, row in rows.items():
        if row.interval in INVERTED:
            value = float(row.value(replicates.tally, calls))
            entries[name] = estimated(value, INVERTED[row.interval](replicates, row), replicates.confidence)
    return {name: entries[name] for name in rows}


#: Intervals that are no percentiles of a measure's own replicates.
INVERTED: dict[str, Callable[[Replicates, Measure], list[float]]] = {
    "gaps": lambda replicates, row: gap_interval(replicates, row.gaps or gaps),
    "brier_reliability": lambda replicates, _: brier_reliability_interval(replicates),
}


def kind_of(row: Measure, calls: Confusion) -> Kind:
    """How the interval of a measure is made, were these the calls."""
    if row.share is not None:
        successes, trials = row.share(calls)
        return Kind(counted=(float(successes), float(trials)))
    return Kind(bounds=row.bounds if row.interval == "bounded" else None, mirrored=row.interval == "mirrored")


def evaluate_table(
    table: pd.DataFrame, threshold: float, *, replicates: int = 1000, seed: int = 0, confidence: float = 0.95
) -> SplitMetrics:
    """Every metric of a predictions table with its confidence interval.

    Where every image has a group and there are two or more, replicates draw whole groups with replacement, and plain
    proportions in which no replicate differs, such as 1, get Wilson's score interval with groups counted as images.
    Otherwise replicates draw single images, and plain proportions get Wilson's interval. Bootstrap intervals are
    percentiles of the replicates, except that of `ece`, which noise can only make larger: see `gap_interval`, and
    those of bounded metrics at an end of their range, as an AUROC of 1, from which no replicate differs: these get
    Wilson's of as many trials as the rarer class has images or groups.

    Args:
        table: Columns `label` (0 or 1), `probability` (in [0, 1]) and optionally `group`; others are ignored.
        threshold: An image is called positive where its probability is at or above it.
        replicates: Number of bootstrap replicates.
        seed: Seed of the replicates; the order of the rows does not matter.
        confidence: Share of intervals that should contain the truth, in (0, 1).

    Returns:
        An estimate of each metric, with `confusion_matrix, threshold, n, n_groups, prevalence` and `intervals`. `value`
        is None where the data do not define the metric, `ci95` (`ci90` at confidence .9) also where more than 5 % of
        the replicates do not; `n_groups` is None unless every image has a group; `intervals` says how the intervals
        were made and what they leave out.

    Raises:
        PredictionsError: The table, the threshold, or the settings cannot be used.

    Example:
        >>> table = pd.DataFrame({"label": [0, 0, 1, 1] * 10, "probability": [0.1, 0.6, 0.4, 0.9] * 10})
        >>> result = evaluate_table(table, threshold=0.5, replicates=200)
        >>> result["auroc"].value, [round(end, 2) for end in result["accuracy"].ci95]
        (0.75, [0.35, 0.65])
    """
    check_threshold(threshold)
    return evaluate(Replicates(table, replicates, seed, confidence), threshold)


def evaluate(replicates: Replicates, threshold: float) -> SplitMetrics:
    """`evaluate_table` on replicates that are drawn."""
    entries = estimate_measures(replicates, threshold, MEASURES)
    points = describe(replicates.tally, threshold)
    about = {
        "confusion_matrix": points.confusion_matrix,
        "threshold": points.threshold,
        "n": points.n,
        "n_groups": replicates.predictions.n_groups,
        "prevalence": points.prevalence,
        "intervals": _method(replicates, entries),
    }
    return SplitMetrics.model_validate(entries | about)


def _method(replicates: Replicates, entries: Mapping[str, Estimate]) -> str:
    """How the intervals were made, for whoever reads them."""
    name = f"ci{100 * replicates.confidence:g}"
    known = {m: (made.value or 0.0, *ends) for m, made in entries.items() if (ends := getattr(made, name))}
    stuck = [m for m, (_, low, high) in known.items() if low == high]
    ends = [m for m, (v, *_) in known.items() if MEASURES[m].interval == "bounded" and _at_end(v, MEASURES[m].bounds)]
    n_groups, ungrouped = replicates.predictions.n_groups, replicates.predictions.ungrouped
    share, drawn = f"{100 * replicates.confidence:g} %", f"{replicates.number} replicates, seed {replicates.seed}"
    if replicates.grouped:
        text = f"{share} intervals: percentile bootstrap that draws whole groups ({n_groups} groups, {drawn}); "
        text += "Wilson score with groups for images for shares in which no replicate differs"
        rough = f" With fewer than {FEW_GROUPS} groups they are rough, and rather too narrow."
        notes = rough if n_groups is not None and n_groups < FEW_GROUPS else ""
    else:
        *most, last = (m for m, row in MEASURES.items() if row.share)
        text = f"{share} intervals: Wilson score for {', '.join(most)} and {last}; percentile "
        text += f"bootstrap of single images ({drawn}) for the others"
        unknown = "No image" if ungrouped == len(replicates.predictions.label) else "Not every image"
        notes = f" {unknown} has a group; where several come from one slide or patient, these are too narrow."
        if n_groups == 1:
            notes = " All images come from one group: nothing is said about others."
    if ends:
        units = "groups hold" if replicates.grouped else "there are images of"
        notes += (
            f" No replicate differs in {', '.join(ends)}: Wilson score of as many trials as {units} the rarer class."
        )
    if stuck:
        notes += f" No replicate differs in {', '.join(stuck)}: width 0 there is no certainty."
    return f"{text}; ece by inverted tests of its bins.{notes}"


# Metrics of predictions that were not all called at one threshold, as those of several folds are.


def called(table: pd.DataFrame) -> pd.DataFrame:
    """The table with each image's call, 0 or 1, in place of its probability.

    Raises:
        PredictionsError: There is no column `prediction`, or it holds something else.

    Example:
        >>> called(pd.DataFrame({"label": [0, 1], "probability": [0.2, 0.4], "prediction": [0, 1]}))["probability"]
        0    0.0
        1    1.0
        Name: probability, dtype: float64
    """
    if "prediction" not in table or not table["prediction"].isin([0, 1]).all():
        raise PredictionsError("no calls", where="column prediction", expected="0 or 1 for each image")
    return table.assign(probability=table["prediction"].astype(float))


def measure_called(scored: Tally, calls: Tally) -> dict[str, Floats]:
    """Every metric, those of calls from the tally of the calls themselves; see `measure`."""
    return measure(scored, 0.5) | measure(calls, 0.5, CALLED)


def evaluate_calls(table: pd.DataFrame, *, replicates: int = 1000, seed: int = 0) -> SplitMetrics:
    """What `evaluate_table` returns, with the metrics of calls taken from `prediction` instead of one threshold.

    Args:
        table: Columns `label`, `probability`, `prediction` (0 or 1) and optionally `group`.
        replicates: As for `evaluate_table`, like `seed`.

    Returns:
        As `evaluate_table`; `threshold` is None.

    Raises:
        PredictionsError: The table cannot be used.

    Example:
        >>> table = pd.DataFrame({"label": [0, 1] * 9, "probability": [0.2, 0.4] * 9, "prediction": [0, 1] * 9})
        >>> evaluate_calls(table, replicates=50)["sensitivity"].value
        1.0
    """
    drawn = Replicates(table, replicates, seed)
    scored, calls = evaluate(drawn, 0.5), evaluate(drawn.of(called(table)), 0.5)
    method = scored.intervals.partition(" No replicate differs")[0]  # said of calls at .5, which are not these
    taken: dict[str, Any] = {"confusion_matrix": calls.confusion_matrix, "threshold": None, "intervals": method}
    return scored.model_copy(update={name: calls[name] for name in CALLED} | taken)


# Shares and means of something known of each image.


def share_with_interval(
    holds: ArrayLike, group: ArrayLike | None = None, *, replicates: int = 1000, seed: int = 0, confidence: float = 0.95
) -> Estimate:
    """The share of images of which something holds.

    Whole groups are drawn (percentile bootstrap) where every image has one and there are two or more; where no
    replicate differs, as where it holds of all images, the interval is Wilson's with groups counted as images.
    Without groups it is Wilson's.

    Args:
        holds: Whether it does, bool, shape (n,).
        group: Slide or patient of each image, shape (n,), or None.
        replicates: As for `evaluate_table`, like `seed` and `confidence`.

    Returns:
        Value and interval None where there are no images.

    Example:
        >>> share = share_with_interval([True, True, False, True])
        >>> share.value, [round(end, 2) for end in share.ci95]
        (0.75, [0.3, 0.95])
        >>> [round(end, 2) for end in share_with_interval([True] * 40, list("abcd") * 10).ci95]
        [0.51, 1.0]
    """
    held = np.asarray(holds, dtype=bool)
    if not len(held):
        return estimated(None, None, confidence)
    table = pd.DataFrame({"label": held.astype(np.int64), "probability": 0.5})
    if group is not None:
        table["group"] = np.asarray(group, dtype=object)
    kinds = {"share": Kind(counted=(held.sum(), len(held)))}
    drawn = Replicates(table, replicates, seed, confidence)
    return estimate(drawn, lambda counts: ratio(counts.positive.sum(-1), counts.total.sum(-1))[..., None], kinds)[
        "share"
    ]


def mean_with_interval(
    values: ArrayLike, groups: Sequence[str | None] | None = None, *, replicates: int = 1000, seed: int = 0
) -> Mean:
    """Mean over images and its 95 % interval, by percentile bootstrap (Efron & Tibshirani 1993).

    Replicates draw whole groups with replacement where every image has one and there are two or more (Field & Welsh
    2007), else single images.

    Args:
        values: One per image; NaN where it is not defined, which is left out.
        groups: Slide or patient of each image.
        replicates: As for `evaluate_table`, like `seed`.

    Returns:
        The mean, its interval and the number of images that it is of. The mean is None where no value is defined, the
        interval also where fewer than two units could be drawn.

    Example:
        >>> result = mean_with_interval([0.0, 1.0, 1.0, 1.0])
        >>> result.value, result.ci95, result.n
        (0.75, (0.25, 1.0), 4)
    """
    numbers = np.asarray(values, dtype=np.float64)
    defined = ~np.isnan(numbers)
    kept = numbers[defined]
    if not len(kept):
        return Mean(value=None, ci95=None, n=0)
    names = None if groups is None else np.asarray(groups, dtype=object)[defined]
    if names is not None and all(isinstance(name, str) for name in names) and len(set(names)) > 1:
        unit = np.unique(names.astype(str), return_inverse=True)[1]
    else:
        unit = np.arange(len(kept))
    units = int(unit.max()) + 1
    interval = None
    if units > 1:
        sums, counts = np.bincount(unit, kept), np.bincount(unit).astype(np.float64)
        times = draws(units, replicates, seed)
        interval = percentile_interval((times @ sums) / (times @ counts))
    return Mean.model_validate({"value": float(kept.mean()), "ci95": interval, "n": len(kept)})
