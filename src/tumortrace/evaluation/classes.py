"""More than two classes: what is measured of them, beside all that is measured of tumour against the rest."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from tumortrace.errors import PredictionsError
from tumortrace.evaluation.class_measures import BOUNDS, CLASS_MEASURES, TINY, accuracy
from tumortrace.evaluation.intervals import (
    ROUNDING,
    estimate_measures,
    estimated,
    mean_with_interval,
    percentile_interval,
    share_with_interval,
    wilson,
)
from tumortrace.evaluation.measures import MEASURES
from tumortrace.evaluation.replicates import BLOCK, Replicates, draws
from tumortrace.evaluation.tally import Floats, ratio
from tumortrace.records.metrics import ClassEstimates, ClassMetrics, Estimate, Mean, SplitMetrics

#: Columns of a predictions table that speak of the classes; that of each class's probability has its name behind it.
CLASS, PREDICTED, SET, PROBABILITY = "class", "predicted_class", "class_set", "probability_"
SEPARATOR = "|"  # between the names of a prediction set


def evaluate_classes(
    table: pd.DataFrame, names: Sequence[str], *, ordered: bool = False, replicates: int = 1000, seed: int = 0
) -> ClassMetrics:
    """Every figure of K classes with its 95 % interval, by slide or patient where these are known.

    Args:
        table: Columns `class`, `predicted_class` (names), `probability_NAME` of each class (in [0, 1], sum 1), and
            optionally `group` and `class_set` (names parted by `|`); images whose class is missing are left out.
        names: The K classes, three or more, in their order.
        ordered: Whether that order means something, as grades do; then the quadratic kappa is measured.
        replicates: Number of bootstrap replicates, the same for all.
        seed: Of the replicates.

    Returns:
        Of all classes `accuracy`, `balanced_accuracy`, `macro_f1`, `weighted_f1`, `kappa`, `macro_auroc`, `nll`,
        `top_label_ece` and `classwise_ece`, and `confusion_matrix`; `by_class` of each the precision, recall, F1,
        AUROC against the rest, calibration error and number of images, and coverage of its prediction sets.

        Accuracy, precision and recall are shares, whose intervals are Wilson's where no group is known; calibration
        errors have those of inverted tests (`gap_interval`), that of their mean over classes the mean of the ends,
        which is at least as wide as need be; all else has percentiles of the bootstrap.

    Raises:
        PredictionsError: A column is missing, a class is unknown, or the probabilities are none.

    Example:
        >>> rows = {"class": list("abc") * 9, "predicted_class": list("abb") * 9}
        >>> shares = {"probability_a": [0.8, 0.1, 0.1] * 9, "probability_b": [0.1, 0.8, 0.5] * 9}
        >>> table = pd.DataFrame(rows | shares | {"probability_c": [0.1, 0.1, 0.4] * 9})
        >>> measured = evaluate_classes(table, ["a", "b", "c"], replicates=50)
        >>> round(measured["accuracy"].value, 3), measured.confusion_matrix[2], measured.by_class["b"]["recall"].value
        (0.667, [0, 9, 0], 1.0)
    """
    checked, how = _Checked.of(table, names), {"replicates": replicates, "seed": seed}
    overall: dict[str, Estimate] = {}
    for name, (value, samples) in _drawn(checked, checked.units(), ordered, replicates, seed).items():
        overall[name] = _estimate(checked, value, samples, BOUNDS.get(name, (0.0, 1.0)))
    overall["accuracy"] = share_with_interval(checked.right, checked.groups, **how)
    likelihood = -np.log(np.clip(checked.probability[np.arange(len(checked.label)), checked.label], TINY, 1))
    overall["nll"] = _plain(mean_with_interval(likelihood, checked.named_groups, **how))
    overall["top_label_ece"] = _calibration_error(checked, checked.right, checked.probability.max(1), replicates, seed)
    by_class = {name: _one_class(checked, index, replicates, seed) for index, name in enumerate(names)}
    overall["classwise_ece"] = _mean_of([figures["ece"] for figures in by_class.values()])
    if checked.sets is not None:
        held = checked.sets[np.arange(len(checked.label)), checked.label]
        overall["set_coverage"] = share_with_interval(held, checked.groups, **how)
        sizes = checked.sets.sum(1)
        overall["set_size"] = _plain(mean_with_interval(sizes, checked.named_groups, **how))
    return ClassMetrics.model_validate(
        {
            "names": list(names),
            "n": len(checked.label),
            "ordered": ordered,
            "confusion_matrix": checked.counts().astype(int).tolist(),
            **overall,
            "by_class": by_class,
        }
    )


def class_differences(
    tables: Mapping[str, pd.DataFrame], names: Sequence[str], *, replicates: int = 1000, seed: int = 0
) -> dict[tuple[str, str], dict[str, Estimate]]:
    """Difference of the figures of all classes between each two models, with intervals from a paired bootstrap.

    Args:
        tables: By name, what models say of the same images, as for `evaluate_classes`, each with `id`.
        names: The classes.
        replicates: The same draws of the same images, or groups, for all models.
        seed: Of the draws.

    Returns:
        Second minus first, by pair and metric: `accuracy`, `macro_auroc` and those of `CLASS_MEASURES`.

    Example:
        >>> table = pd.DataFrame({"id": list("xyz"), "class": list("abc"), "predicted_class": list("abb")})
        >>> table = table.assign(probability_a=0.4, probability_b=0.4, probability_c=0.2)
        >>> class_differences({"one": table, "same": table}, list("abc"), replicates=9)["one", "same"]["accuracy"]
        Estimate(value=0.0, ci95=(0.0, 0.0))
    """
    checked = {name: _Checked.of(table.sort_values("id"), names) for name, table in tables.items()}
    units = next(iter(checked.values())).units()
    drawn = {name: _drawn(one, units, False, replicates, seed) for name, one in checked.items()}
    return {
        (first, second): {
            metric: _difference(value - drawn[first][metric][0], samples - drawn[first][metric][1])
            for metric, (value, samples) in drawn[second].items()
        }
        for first, second in combinations(tables, 2)
    }


def _difference(value: float, samples: Floats) -> Estimate:
    return estimated(None, None) if np.isnan(value) else estimated(value, percentile_interval(samples))


def with_classes(
    metrics: SplitMetrics, table: pd.DataFrame, *, ordered: bool = False, replicates: int = 1000, seed: int = 0
) -> SplitMetrics:
    """The metrics of a table, and those of its classes where it has probabilities of more than two.

    Args:
        metrics: As `evaluate_table` gives them.
        table: What they are of.
        ordered: As for `evaluate_classes`, like `replicates` and `seed`.
    """
    names = classes_of(table)
    if len(names) < 3 or CLASS not in table or table[CLASS].isna().all():
        return metrics
    measured = evaluate_classes(table, names, ordered=ordered, replicates=replicates, seed=seed)
    return metrics.model_copy(update={"classes": measured})


def class_columns(names: Sequence[str]) -> list[str]:
    """The columns of the classes' probabilities.

    Example:
        >>> class_columns(["benign", "invasive"])
        ['probability_benign', 'probability_invasive']
    """
    return [PROBABILITY + name for name in names]


def classes_of(table: pd.DataFrame) -> list[str]:
    """Names of the classes that a predictions table has probabilities of; none where it has two."""
    return [column.removeprefix(PROBABILITY) for column in map(str, table) if column.startswith(PROBABILITY)]


@dataclass(frozen=True)
class _Checked:
    """A table of K classes as arrays: label and predicted (n,), probability (n, K), sets (n, K) or None, groups."""

    names: tuple[str, ...]
    label: NDArray[np.int64]
    predicted: NDArray[np.int64]
    probability: Floats
    sets: NDArray[np.bool_] | None
    groups: NDArray[np.object_] | None

    @classmethod
    def of(cls, table: pd.DataFrame, names: Sequence[str]) -> _Checked:
        missing = [column for column in (CLASS, PREDICTED, *class_columns(names)) if column not in table]
        if missing:
            raise PredictionsError(
                f"no column {missing[0]!r}", expected=f"columns {CLASS}, {PREDICTED} and {PROBABILITY}NAME"
            )
        table = table[table[CLASS].notna()]
        if table.empty:
            raise PredictionsError("no image whose class is known", expected="one row per image")
        place = {name: index for index, name in enumerate(names)}
        codes = [table[column].map(place) for column in (CLASS, PREDICTED)]
        for column, code in zip((CLASS, PREDICTED), codes, strict=True):
            if code.isna().any():
                odd = table[column][code.isna()].iloc[0]
                raise PredictionsError(
                    f"found {odd!r}", where=f"column {column}", expected=f"one of {', '.join(names)}"
                )
        probability = table[class_columns(names)].to_numpy(dtype=np.float64)
        if not ((probability >= 0) & (probability <= 1)).all() or np.abs(probability.sum(1) - 1).max() > 1e-3:
            raise PredictionsError(
                "probabilities that are none", where=f"columns {PROBABILITY}NAME", expected="from 0 to 1, sum 1"
            )
        sets = None
        if SET in table:
            texts = table[SET].fillna("").astype(str)
            sets = np.array([[name in text.split(SEPARATOR) for name in names] for text in texts], dtype=bool)
        known = "group" in table and bool(table["group"].notna().all())
        groups = table["group"].astype(str).to_numpy(dtype=object) if known else None
        label, predicted = (np.asarray(code, dtype=np.int64) for code in codes)
        return cls(tuple(names), label, predicted, probability, sets, groups)

    @property
    def right(self) -> NDArray[np.bool_]:
        return self.label == self.predicted

    @property
    def named_groups(self) -> list[str | None] | None:
        return None if self.groups is None else list(self.groups)

    def counts(self) -> Floats:
        """How often each class is taken for each, shape (K, K)."""
        counts = np.zeros((len(self.names),) * 2)
        np.add.at(counts, (self.label, self.predicted), 1)
        return counts

    def units(self) -> NDArray[np.int64]:
        """What a replicate draws, shape (n,): groups where there are two or more, else images in a fixed order."""
        if self.groups is not None and len(set(self.groups)) > 1:
            return np.asarray(np.unique(self.groups.astype(str), return_inverse=True)[1], dtype=np.int64)
        units = np.empty(len(self.label), dtype=np.int64)
        units[np.lexsort((self.predicted, self.label, *self.probability.T))] = np.arange(len(units))
        return units

    def rarest(self) -> int:
        """Images, or groups where these are drawn, of the rarest class that is there."""
        present = [
            len(np.flatnonzero(chosen)) if self.groups is None else len(set(self.groups[chosen]))
            for chosen in (self.label == index for index in range(len(self.names)))
        ]
        return min(count for count in present if count)


def _drawn(
    checked: _Checked, units: NDArray[np.int64], ordered: bool, replicates: int, seed: int
) -> dict[str, tuple[float, Floats]]:
    """Figures of all classes, each with its value and its replicates, shape (replicates,), which draw `units`."""
    rows = [row for row in CLASS_MEASURES.values() if ordered or not row.ordered]
    classes = len(checked.names)
    cells = np.eye(classes * classes)[checked.label * classes + checked.predicted]
    ranked = [_Ranked.of(checked, index) for index in range(classes)]
    once, whole = np.ones((1, len(checked.label))), checked.counts()
    counts, aurocs = [], []
    times = draws(int(units.max()) + 1, replicates, seed)
    step = max(1, 16 * BLOCK // len(units))
    for start in range(0, replicates, step):
        block = times[start : start + step][:, units].astype(np.float64)
        counts.append(block @ cells)
        aurocs.append(np.mean([one.auroc(block) for one in ranked], axis=0))
    samples = np.concatenate(counts).reshape(-1, classes, classes)
    figures = {row.name: (float(row.value(whole)), row.value(samples)) for row in rows}
    right = (float(accuracy(whole)), accuracy(samples))
    auroc = (float(np.mean([one.auroc(once) for one in ranked])), np.concatenate(aurocs))
    return {"accuracy": right, **figures, "macro_auroc": auroc}


def _estimate(checked: _Checked, value: float, samples: Floats, bounds: tuple[float, float]) -> Estimate:
    """Percentiles of the replicates; at a bound from which none differs, Wilson's of the rarest class's trials."""
    if np.isnan(value):
        return estimated(None, None)
    ends = percentile_interval(samples)
    if ends and ends[1] - ends[0] < ROUNDING and min(abs(value - end) for end in bounds) < ROUNDING:
        trials, (least, most) = checked.rarest(), bounds
        low, high = wilson(trials * float(value > least + ROUNDING), trials)
        ends = [least + (most - least) * float(low), least + (most - least) * float(high)]
    return estimated(value, ends)


@dataclass(frozen=True)
class _Ranked:
    """Images in the order of one class's probability: which have the class, and where each level begins."""

    order: NDArray[np.int64]
    own: Floats
    starts: NDArray[np.int64]

    @classmethod
    def of(cls, checked: _Checked, index: int) -> _Ranked:
        values = checked.probability[:, index]
        order = np.argsort(values, kind="stable")
        starts = np.flatnonzero(np.append(True, np.diff(values[order]) > 0))
        return cls(order, (checked.label[order] == index).astype(np.float64), starts)

    def auroc(self, times: Floats) -> Floats:
        """One against the rest, of images drawn so often, shape (r, n): shape (r,), NaN without both."""
        drawn = times[:, self.order]
        positive, negative = (np.add.reduceat(drawn * side, self.starts, axis=1) for side in (self.own, 1 - self.own))
        below = np.cumsum(negative, axis=1) - negative / 2
        return ratio((positive * below).sum(1), positive.sum(1) * negative.sum(1))


def _one_class(checked: _Checked, index: int, replicates: int, seed: int) -> ClassEstimates:
    """One class against the rest, by the measures of two classes."""
    label, share = checked.label == index, checked.probability[:, index]
    called = _binary(checked, label, (checked.predicted == index).astype(np.float64))
    shares = {"precision": "precision", "recall": "sensitivity", "f1": "f1"}
    drawn = estimate_measures(
        Replicates(called, replicates, seed), 0.5, {name: MEASURES[name] for name in shares.values()}
    )
    figures = {name: drawn[of] for name, of in shares.items()}
    ranked = Replicates(_binary(checked, label, share), replicates, seed)
    figures |= estimate_measures(ranked, 0.5, {name: MEASURES[name] for name in ("auroc", "ece")})
    if checked.sets is not None:
        groups = None if checked.groups is None else checked.groups[label]
        figures["set_coverage"] = share_with_interval(
            checked.sets[label, index], groups, replicates=replicates, seed=seed
        )
    return ClassEstimates.model_validate({"support": int(label.sum())} | figures)


def _calibration_error(
    checked: _Checked, label: NDArray[np.bool_], share: Floats, replicates: int, seed: int
) -> Estimate:
    drawn = Replicates(_binary(checked, label, share), replicates, seed)
    return estimate_measures(drawn, 0.5, {"ece": MEASURES["ece"]})["ece"]


def _binary(checked: _Checked, label: NDArray[np.bool_], probability: Floats) -> pd.DataFrame:
    table = pd.DataFrame({"label": label.astype(np.int64), "probability": probability.clip(0, 1)})
    return table if checked.groups is None else table.assign(group=checked.groups)


def _mean_of(parts: Sequence[Estimate]) -> Estimate:
    """The mean of estimates, with the means of their ends."""
    values = [part.value for part in parts if part.value is not None]
    ends = [part.ci95 for part in parts if part.ci95 is not None]
    if not values:
        return estimated(None, None)
    mean = [float(end) for end in np.mean(ends, axis=0)] if len(ends) == len(values) else None
    return estimated(float(np.mean(values)), mean)


def _plain(mean: Mean) -> Estimate:
    return Estimate(value=mean.value, ci95=mean.ci95)
