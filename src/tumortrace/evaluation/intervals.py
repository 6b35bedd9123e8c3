"""Metrics with confidence intervals: Wilson's for proportions, the bootstrap for everything else and for groups."""

from __future__ import annotations

from collections.abc import Callable, Collection, Hashable, Mapping, Sequence
from typing import Any, TypeVar

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from tumortrace.errors import PredictionsError
from tumortrace.evaluation.metrics import CALLED, METRICS, Tally, describe, measure, tally
from tumortrace.evaluation.reliability_intervals import ece_interval
from tumortrace.evaluation.resampling import (
    PROPORTIONS,
    draws_groups,
    proportions,
    resamples,
    single_groups,
    wilson,
    wilson_of_groups,
)
from tumortrace.evaluation.table import Predictions, check_table, check_threshold

Floats = NDArray[np.float64]
FEW_GROUPS = 10
UNDEFINED_ALLOWED = 0.05
#: Metrics that are no plain proportions, with the least value that each can have; the greatest is 1.
BOUNDED = {"auroc": 0.0, "average_precision": 0.0, "balanced_accuracy": 0.0, "f1": 0.0, "mcc": -1.0}
ROUNDING = 1e-9
K = TypeVar("K", bound=Hashable)


def evaluate_table(
    table: pd.DataFrame, threshold: float, *, replicates: int = 1000, seed: int = 0, confidence: float = 0.95
) -> dict[str, Any]:
    """Every metric of a predictions table with its confidence interval.

    Where every image has a group and there are two or more, replicates draw whole groups with replacement (Field &
    Welsh 2007), because images of one slide or patient resemble each other; plain proportions in which no replicate
    differs, such as 1, get Wilson's score interval (Wilson 1927) with groups counted as images. Otherwise replicates
    draw single images, and plain proportions get Wilson's interval. Bootstrap intervals are percentiles of the
    replicates (Efron & Tibshirani 1993), except that of `ece`, which noise can only make larger: see `ece_interval`,
    and those of `BOUNDED` metrics at an end of their range, as an AUROC of 1, from which no replicate differs: these
    get Wilson's of as many trials as the rarer class has images or groups.

    Args:
        table: Columns `label` (0 or 1), `probability` (in [0, 1]) and optionally `group`; others are ignored.
        threshold: An image is called positive where its probability is at or above it.
        replicates: Number of bootstrap replicates.
        seed: Seed of the replicates; the order of the rows does not matter.
        confidence: Share of intervals that should contain the truth, in (0, 1).

    Returns:
        `{metric: {"value": v, "ci95": [low, high]}, "confusion_matrix": {"tn", "fp", "fn", "tp"}, "threshold", "n",
        "n_groups", "prevalence", "intervals"}`, ready for JSON. `value` is None where the data do not define the
        metric, `ci95` (`ci90` at confidence .9) also where more than 5 % of the replicates do not; `n_groups` is
        None unless every image has a group; `intervals` says how the intervals were made and what they leave out.

    Raises:
        PredictionsError: The table, the threshold, or the settings cannot be used.

    Example:
        >>> table = pd.DataFrame({"label": [0, 0, 1, 1] * 10, "probability": [0.1, 0.6, 0.4, 0.9] * 10})
        >>> result = evaluate_table(table, threshold=0.5, replicates=200)
        >>> result["auroc"]["value"], [round(end, 2) for end in result["accuracy"]["ci95"]]
        (0.75, [0.35, 0.65])
    """
    check_threshold(threshold)
    check_settings(replicates, confidence)
    predictions = check_table(table)
    points = describe(tally(predictions), threshold)
    entries = with_intervals(
        predictions,
        METRICS,
        lambda sample: list(measure(sample, threshold).values()),
        replicates=replicates,
        seed=seed,
        confidence=confidence,
        counted=proportions(points["confusion_matrix"]),
        bounded=BOUNDED,
    )
    name = f"ci{100 * confidence:g}"
    entries["ece"][name] = ece_interval(predictions, replicates=replicates, seed=seed, confidence=confidence)
    result: dict[str, Any] = dict(entries)
    stuck = [m for m in METRICS if (ends := entries[m][name]) is not None and ends[0] == ends[1]]
    ends = [m for m, least in BOUNDED.items() if entries[m][name] and _at_end(entries[m]["value"], least)]
    return result | {
        "confusion_matrix": points["confusion_matrix"],
        "threshold": points["threshold"],
        "n": points["n"],
        "n_groups": predictions.n_groups,
        "prevalence": points["prevalence"],
        "intervals": _method(predictions, replicates, seed, confidence, stuck, ends),
    }


def with_intervals(
    predictions: Predictions,
    names: Sequence[K],
    measures: Callable[[Tally], ArrayLike],
    *,
    replicates: int = 1000,
    seed: int = 0,
    confidence: float = 0.95,
    counted: Mapping[K, tuple[int, int]] | None = None,
    mirrored: Collection[K] = (),
    bounded: Mapping[K, float] | None = None,
) -> dict[K, dict[str, Any]]:
    """Whatever can be measured on a tally, with the confidence interval of each value.

    Args:
        predictions: Checked predictions.
        names: Of the values.
        measures: The values of a tally in the order of their names, NaN where it does not define one.
        replicates: Number of bootstrap replicates; all values are measured on the same ones.
        seed: Seed of the replicates.
        confidence: Share of intervals that should contain the truth, in (0, 1).
        counted: Successes and trials of the values that are plain proportions: they get Wilson's interval where
            replicates draw single images, and `wilson_of_groups` where no replicate of whole groups differs.
        mirrored: Values with the basic bootstrap interval, cut off at 0, because replicates push them upwards.
        bounded: Least of the other values whose greatest is 1: at either end, where no replicate differs, they get
            Wilson's interval of as many trials as the rarer class has images, or groups where these are drawn.

    Returns:
        `{name: {"value": v, "ci95": [low, high]}}`, None where not defined, as in `evaluate_table`.

    Example:
        >>> from tumortrace.evaluation.table import check_arrays
        >>> few = check_arrays([0, 1, 1, 1], [0.1, 0.2, 0.8, 0.9])
        >>> with_intervals(few, ["share"], lambda counts: [counts.positive.sum() / counts.total.sum()], replicates=99)
        {'share': {'value': 0.75, 'ci95': [0.25, 1.0]}}
    """
    values = np.asarray(measures(tally(predictions)), dtype=np.float64).tolist()
    drawn = np.array([measures(sample) for sample in resamples(predictions, replicates, seed)], dtype=np.float64)
    known = {} if counted is None or draws_groups(predictions) else counted
    result: dict[K, dict[str, Any]] = {}
    key = f"ci{100 * confidence:g}"
    for name, number, samples in zip(names, values, drawn.T, strict=True):
        value = None if np.isnan(number) else number
        interval = None
        if value is not None and name in known:
            interval = [float(end) for end in wilson(*known[name], confidence)]
        elif value is not None:
            interval = percentile_interval(samples, confidence, mirrored_at=value if name in mirrored else None)
        result[name] = {"value": value, key: interval}
    _widen_shares(result, [name for name in names if name in (counted or {})], key, predictions, measures, confidence)
    for name, least in (bounded or {}).items():
        value, ends = result[name]["value"], result[name][key]
        if ends is not None and ends[1] - ends[0] < ROUNDING and _at_end(value, least):
            low, high = wilson_of_groups(float(value > least + ROUNDING), _rarer(predictions), confidence)
            result[name][key] = [least + (1 - least) * low, least + (1 - least) * high]
    return result


def _at_end(value: float, least: float) -> bool:
    return min(abs(value - least), abs(value - 1)) < ROUNDING


def _rarer(predictions: Predictions) -> int:
    """Number of images of the rarer class, or of groups with such images where replicates draw groups."""
    if draws_groups(predictions):
        parts = [(group.positive.sum() > 0, group.negative.sum() > 0) for group in single_groups(predictions)]
        found = np.sum(parts, axis=0)
    else:
        found = np.bincount(predictions.label.astype(np.int64), minlength=2)
    return int(min(found[found > 0]))


def _widen_shares(
    result: dict[K, dict[str, Any]],
    shares: Sequence[K],
    key: str,
    predictions: Predictions,
    measures: Callable[[Tally], ArrayLike],
    confidence: float,
) -> None:
    """Give shares in which no replicate of whole groups differs the interval of `wilson_of_groups`, in place."""
    alike = [name for name in shares if (ends := result[name][key]) is not None and ends[0] == ends[1]]
    if not alike or not draws_groups(predictions):
        return
    order = list(result)
    values = np.array([measures(group) for group in single_groups(predictions)], dtype=np.float64)
    groups = np.isfinite(values).sum(axis=0)  # those with an image that the share is of
    for name in alike:
        result[name][key] = wilson_of_groups(result[name]["value"], int(groups[order.index(name)]), confidence)


def check_settings(replicates: int, confidence: float) -> None:
    """Refuse a number of replicates or a confidence that makes no interval."""
    if replicates < 1:
        raise PredictionsError(f"{replicates} replicates", expected="1 or more", remedy="use 1000")
    if not 0 < confidence < 1:
        raise PredictionsError(f"confidence {confidence}", expected="a number between 0 and 1", remedy="use 0.95")


def percentile_interval(
    samples: Floats, confidence: float = 0.95, *, mirrored_at: float | None = None
) -> list[float] | None:
    """The middle part of bootstrap replicates; None where more than 5 % of them are NaN.

    Args:
        samples: Value of each replicate, shape (replicates,), NaN where not defined.
        confidence: Share of the replicates between the ends, in (0, 1).
        mirrored_at: The value of the data themselves, at which the percentiles are mirrored (the basic bootstrap), cut
            off at 0 and widened to the value; None takes them as they are.

    Example:
        >>> replicates = np.arange(101.0)
        >>> percentile_interval(replicates, 0.5), percentile_interval(replicates, 0.5, mirrored_at=60.0)
        ([25.0, 75.0], [45.0, 95.0])
    """
    defined = samples[~np.isnan(samples)]
    if len(defined) < (1 - UNDEFINED_ALLOWED) * len(samples):
        return None
    low, high = (float(end) for end in np.quantile(defined, [(1 - confidence) / 2, (1 + confidence) / 2]))
    if mirrored_at is None:
        return [low, high]
    return [min(max(0.0, 2 * mirrored_at - high), mirrored_at), max(mirrored_at, 2 * mirrored_at - low)]


def _method(
    predictions: Predictions, replicates: int, seed: int, confidence: float, stuck: list[str], ends: list[str]
) -> str:
    """How the intervals were made, for whoever reads them."""
    share, n_groups, drawn = f"{100 * confidence:g} %", predictions.n_groups, f"{replicates} replicates, seed {seed}"
    if draws_groups(predictions):
        text = f"{share} intervals: percentile bootstrap that draws whole groups ({n_groups} groups, {drawn}); "
        text += "Wilson score with groups for images for shares in which no replicate differs"
        rough = f" With fewer than {FEW_GROUPS} groups they are rough, and rather too narrow."
        notes = rough if n_groups is not None and n_groups < FEW_GROUPS else ""
    else:
        text = f"{share} intervals: Wilson score for {', '.join(PROPORTIONS[:-1])} and {PROPORTIONS[-1]}; percentile "
        text += f"bootstrap of single images ({drawn}) for the others"
        if n_groups == 1:
            notes = " All images come from one group: nothing is said about others."
        else:
            unknown = "No image" if predictions.ungrouped == len(predictions.label) else "Not every image"
            notes = f" {unknown} has a group; where several come from one slide or patient, these are too narrow."
    if ends:
        units = "groups hold" if draws_groups(predictions) else "there are images of"
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


def evaluate_calls(table: pd.DataFrame, *, replicates: int = 1000, seed: int = 0) -> dict[str, Any]:
    """What `evaluate_table` returns, with the metrics of calls taken from `prediction` instead of one threshold.

    Args:
        table: Columns `label`, `probability`, `prediction` (0 or 1) and optionally `group`.
        replicates: Number of bootstrap replicates.
        seed: Seed of the replicates.

    Returns:
        As `evaluate_table`; `threshold` is None.

    Raises:
        PredictionsError: The table cannot be used.

    Example:
        >>> table = pd.DataFrame({"label": [0, 1] * 9, "probability": [0.2, 0.4] * 9, "prediction": [0, 1] * 9})
        >>> evaluate_calls(table, replicates=50)["sensitivity"]["value"]
        1.0
    """
    scored = evaluate_table(table, 0.5, replicates=replicates, seed=seed)
    calls = evaluate_table(called(table), 0.5, replicates=replicates, seed=seed)
    taken = {name: calls[name] for name in (*CALLED, "confusion_matrix")}
    method = scored["intervals"].partition(" No replicate differs")[0]  # said of calls at .5, which are not these
    return scored | taken | {"threshold": None, "intervals": method}


# The share of images of which something holds, with its interval: by whole groups where these are known.


def share_with_interval(
    holds: ArrayLike,
    group: ArrayLike | None = None,
    *,
    replicates: int = 1000,
    seed: int = 0,
    confidence: float = 0.95,
) -> dict[str, Any]:
    """The share of images of which something holds.

    Whole groups are drawn (percentile bootstrap) where every image has one and there are two or more; where no
    replicate differs, as where it holds of all images, the interval is Wilson's with groups counted as images.
    Without groups it is Wilson's.

    Args:
        holds: Whether it does, bool, shape (n,).
        group: Slide or patient of each image, shape (n,), or None.
        replicates: Number of bootstrap replicates.
        seed: Seed of the replicates.
        confidence: Nominal coverage, in (0, 1).

    Returns:
        `{"value": share, "ci95": [low, high]}`, both None where there are no images.

    Example:
        >>> found = share_with_interval([True, True, False, True])
        >>> found["value"], [round(end, 2) for end in found["ci95"]]
        (0.75, [0.3, 0.95])
        >>> [round(end, 2) for end in share_with_interval([True] * 40, list("abcd") * 10)["ci95"]]
        [0.51, 1.0]
    """
    check_settings(replicates, confidence)
    name, held = f"ci{100 * confidence:g}", np.asarray(holds, dtype=bool)
    if not len(held):
        return {"value": None, name: None}
    table = pd.DataFrame({"label": held.astype(np.int64), "probability": 0.5})
    if group is not None:
        table["group"] = np.asarray(group, dtype=object)
    checked, value = check_table(table), float(held.mean())
    if checked.group is None or checked.n_groups is None or not draws_groups(checked):
        low, high = wilson(held.sum(), len(held), confidence)
        return {"value": value, name: [float(low), float(high)]}
    count = checked.n_groups
    right, size = np.bincount(checked.group, weights=held, minlength=count), np.bincount(checked.group)
    random = np.random.default_rng(seed)
    drawn = (random.integers(count, size=count) for _ in range(replicates))
    ends = percentile_interval(np.array([right[rows].sum() / size[rows].sum() for rows in drawn]), confidence)
    if ends is not None and ends[0] == ends[1]:
        ends = wilson_of_groups(value, count, confidence)
    return {"value": value, name: ends}


# The mean of something measured once per image, with its interval.


def mean_with_interval(
    values: ArrayLike, groups: Sequence[str | None] | None = None, *, replicates: int = 1000, seed: int = 0
) -> dict[str, Any]:
    """Mean over images and its 95 % interval, by percentile bootstrap (Efron & Tibshirani 1993).

    Replicates draw whole groups with replacement where every image has one and there are two or more (Field & Welsh
    2007), else single images.

    Args:
        values: One per image; NaN where it is not defined, which is left out.
        groups: Slide or patient of each image.
        replicates: Number of bootstrap replicates.
        seed: Seed of the replicates.

    Returns:
        `{"value", "ci95", "n"}`: the mean, its interval and the number of images that it is of. The mean is None
        where no value is defined, the interval also where fewer than two units could be drawn.

    Example:
        >>> result = mean_with_interval([0.0, 1.0, 1.0, 1.0])
        >>> result["value"], result["ci95"], result["n"]
        (0.75, [0.25, 1.0], 4)
    """
    numbers = np.asarray(values, dtype=np.float64)
    defined = ~np.isnan(numbers)
    kept = numbers[defined]
    if not len(kept):
        return {"value": None, "ci95": None, "n": 0}
    names = None if groups is None else np.asarray(groups, dtype=object)[defined]
    if names is not None and all(isinstance(name, str) for name in names) and len(set(names)) > 1:
        unit = np.unique(names.astype(str), return_inverse=True)[1]
    else:
        unit = np.arange(len(kept))
    units = int(unit.max()) + 1
    interval = None
    if units > 1:
        sums, counts = np.bincount(unit, kept), np.bincount(unit).astype(np.float64)
        drawn = np.random.default_rng(seed).integers(units, size=(replicates, units))
        means = sums[drawn].sum(1) / counts[drawn].sum(1)
        interval = [float(end) for end in np.quantile(means, (0.025, 0.975))]
    return {"value": float(kept.mean()), "ci95": interval, "n": len(kept)}
