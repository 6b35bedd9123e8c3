"""Everything that is measured on one split, as the record that `metrics.json` holds of it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from tumortrace.errors import PredictionsError
from tumortrace.evaluation.classes import with_classes
from tumortrace.evaluation.curves import BENEFIT_NAMES, decision_curve, net_benefit
from tumortrace.evaluation.intervals import (
    Kind,
    estimate,
    estimate_measures,
    estimated,
    evaluate,
    evaluate_table,
    wilson,
)
from tumortrace.evaluation.measures import CALLED, MEASURES, prominent
from tumortrace.evaluation.replicates import Replicates
from tumortrace.evaluation.table import Predictions, check_table, check_threshold
from tumortrace.evaluation.tally import Confusion, Floats, confusion, ratio
from tumortrace.evaluation.thresholds import POINT_NAMES, operating_points, operating_points_record
from tumortrace.records.metrics import Called, ClassMetrics, ClassScores, Estimate, GroupMetrics, SplitMetrics

# How a model does on each slide or patient, and on each level of a column such as scanner or hospital.


MOST_LEVELS = 50
UNKNOWN = "not known"
GROUP_REPLICATES = 200


def each_group(table: pd.DataFrame, threshold: float, *, seed: int = 0) -> list[GroupMetrics]:
    """The main figures of each slide or patient.

    Their intervals speak of further images of the same group: Wilson's for shares, and for `auroc` the bootstrap of its
    images (200 replicates).

    Returns:
        In the order of the groups' names, with estimates of `auroc, accuracy, sensitivity, specificity` and
        `positive_share`, the share called positive. Empty where not every image has a group.

    Example:
        >>> table = pd.DataFrame({"label": [0, 1, 1], "probability": [0.2, 0.9, 0.1], "group": ["a", "a", "b"]})
        >>> [(row.group, row.n, row["sensitivity"].value) for row in each_group(table, 0.5)]
        [('a', 2, 1.0), ('b', 1, 0.0)]
    """
    predictions = check_table(table)
    if predictions.group is None:
        return []
    names = sorted(table["group"].astype("string").astype(str).unique())
    rows = []
    for code, name in enumerate(names):
        chosen = predictions.group == code
        alone = Predictions(predictions.label[chosen], predictions.probability[chosen], None, None, int(chosen.sum()))
        rows.append(_one_group(name, Replicates(alone, GROUP_REPLICATES, seed), threshold))
    return rows


def _one_group(name: str, replicates: Replicates, threshold: float) -> GroupMetrics:
    calls = confusion(replicates.tally, threshold)
    n, positives = len(replicates.predictions.label), int(calls.fn + calls.tp)
    ranked = estimate_measures(replicates, threshold, {"auroc": MEASURES["auroc"]})
    shares = {name: MEASURES[name].share for name in ("accuracy", "sensitivity", "specificity")}
    counted = {"positive_share": (calls.fp + calls.tp, np.asarray(float(n)))}
    counted |= {name: share(calls) for name, share in shares.items() if share}
    about = {"group": name, "n": n, "positives": positives, "prevalence": positives / n}
    return GroupMetrics.model_validate(about | ranked | {name: _share(*pair) for name, pair in counted.items()})


def _share(successes: Floats | float, trials: Floats | float) -> Estimate:
    if not trials:
        return estimated(None, None)
    low, high = wilson(successes, trials)
    return estimated(float(successes / trials), [float(low), float(high)])


def each_subgroup(
    table: pd.DataFrame, threshold: float, columns: Sequence[str], *, replicates: int = 1000, seed: int = 0
) -> dict[str, dict[str, SplitMetrics]]:
    """Every metric on each level of the named columns, such as scanner, hospital or sex.

    Args:
        table: As for `evaluate_table`, with the columns that are named.
        threshold: As for `evaluate_table`, like `replicates` and `seed`.
        columns: Names of columns with at most 50 levels; images without a value make up the level `not known`.

    Returns:
        `{column: {level: as evaluate_table}}`, levels by name.

    Raises:
        PredictionsError: There is no such column, or it has too many levels.

    Example:
        >>> table = pd.DataFrame({"label": [0, 1] * 9, "probability": [0.2, 0.4] * 9, "scanner": ["A", "B"] * 9})
        >>> found = each_subgroup(table, 0.5, ["scanner"], replicates=20)
        >>> {level: (part.n, part["auroc"].value) for level, part in found["scanner"].items()}
        {'A': (9, None), 'B': (9, None)}
    """
    return {
        column: {
            level: evaluate_table(table[levels == level], threshold, replicates=replicates, seed=seed)
            for level in sorted(levels.unique())
        }
        for column in columns
        for levels in [subgroup_levels(table, column)]
    }


def subgroup_levels(table: pd.DataFrame, column: str, where: object = None) -> pd.Series:
    """The level of each row as text.

    Raises:
        PredictionsError: There is no such column, or it has too many levels.

    Example:
        >>> subgroup_levels(pd.DataFrame({"scanner": ["A", None, " "]}), "scanner").tolist()
        ['A', 'not known', 'not known']
    """
    if column not in table:
        raise PredictionsError(
            f"no column {column!r}",
            where=where,
            expected="one of " + ", ".join(map(str, table.columns)),
            remedy="correct --subgroup",
        )
    levels = table[column].astype("string").str.strip()
    levels = levels.mask(levels.isna() | (levels == ""), UNKNOWN).astype(str)
    if (count := levels.nunique()) > MOST_LEVELS:
        raise PredictionsError(
            f"{count:,} different values",
            where=f"{where}, column {column}" if where else f"column {column}",
            expected=f"at most {MOST_LEVELS} subgroups",
            remedy="put its values into classes first, such as age bands",
        )
    return levels


SCORES = ("precision", "recall", "f1")
CLASSES = ("negative", "positive")
AVERAGES = ("macro", "weighted")
ROWS = (*CLASSES, *AVERAGES)
REPORT_NAMES = tuple((row, score) for row in ROWS for score in SCORES)


def class_scores(calls: Confusion) -> Floats:
    """Precision, recall and F1 of each class, their plain mean and their mean weighted by support.

    Returns:
        In the order of `REPORT_NAMES`; NaN where not defined. A class without images has no weight in the weighted
        mean; any other undefined score leaves a mean undefined.

    Example:
        >>> from tumortrace.evaluation.table import check_arrays
        >>> from tumortrace.evaluation.tally import tally
        >>> scores = class_scores(confusion(tally(check_arrays([0, 0, 0, 1], [0.1, 0.2, 0.7, 0.9])), 0.5))
        >>> {name: float(score.round(3)) for name, score in zip(REPORT_NAMES, scores) if name[1] == "f1"}
        {('negative', 'f1'): 0.8, ('positive', 'f1'): 0.667, ('macro', 'f1'): 0.733, ('weighted', 'f1'): 0.767}
    """
    tn, fp, fn, tp = calls
    f1 = ratio(2 * tn, 2 * tn + fn + fp), ratio(2 * tp, 2 * tp + fp + fn)
    shares = class_shares(calls)
    negative, positive = (
        np.stack([ratio(*shares[name, "precision"]), ratio(*shares[name, "recall"]), score], axis=-1)
        for name, score in zip(CLASSES, f1, strict=True)
    )
    weights = (tn + fp)[..., None], (fn + tp)[..., None]
    weighted = ratio(
        sum(np.where(w == 0, 0, w * s) for w, s in zip(weights, (negative, positive), strict=True)), sum(weights)
    )
    return np.concatenate([negative, positive, (negative + positive) / 2, weighted], axis=-1)


def class_shares(calls: Confusion) -> dict[tuple[str, str], tuple[Floats, Floats]]:
    """Successes and trials behind the scores that are plain proportions.

    Example:
        >>> class_shares(Confusion(5, 1, 2, 8))["negative", "precision"]
        (5, 7)
    """
    tn, fp, fn, tp = calls
    return {
        ("negative", "precision"): (tn, tn + fn),
        ("negative", "recall"): (tn, tn + fp),
        ("positive", "precision"): (tp, tp + fp),
        ("positive", "recall"): (tp, tp + fn),
    }


HALF = 0.5


def split_record(
    table: pd.DataFrame,
    threshold: float,
    *,
    subgroups: Sequence[str] = (),
    ordered: bool = False,
    replicates: int = 1000,
    seed: int = 0,
) -> SplitMetrics:
    """What `evaluate_table` returns, and all that one may ask besides.

    Args:
        table: Columns `label` (0 or 1), `probability` (in [0, 1]), optionally `group`, and those named as subgroups.
        threshold: An image is called positive where its probability is at or above it.
        subgroups: Columns on whose levels everything is measured apart.
        ordered: Of more than two classes, whether their order means something.
        replicates: Number of bootstrap replicates, the same ones for all values.
        seed: Seed of the replicates.

    Returns:
        The record of `evaluate_table`, with

        - `at_half`: the metrics that depend on calls, and their `confusion_matrix`, at the threshold .5;
        - `classification_report`: precision, recall, F1 and support by class, `macro` and `weighted`;
        - `operating_points`: `sensitivity_at_specificity` and `specificity_at_sensitivity` of .90, .95 and .99;
        - `decision_curve`: net benefit by threshold, of the `model` and of acting on `all`;
        - `groups`: the main figures of each slide or patient; empty where not every image has one;
        - `subgroups`: `{column: {level: metrics}}`;
        - `classes`: what `evaluate_classes` gives, where the table has probabilities of more than two.

        Every interval is as in `evaluate_table`: by the bootstrap, but for plain proportions of images without groups,
        and of the images of one group, which have Wilson's.

    Raises:
        PredictionsError: The table, the threshold or a subgroup cannot be used.

    Example:
        >>> table = pd.DataFrame({"label": [0, 0, 1, 1] * 10, "probability": [0.1, 0.6, 0.4, 0.9] * 10})
        >>> record = split_record(table, threshold=0.35, replicates=100)
        >>> record["sensitivity"].value, record.at_half["sensitivity"].value
        (1.0, 0.5)
        >>> record.classification_report["macro"].recall.value
        0.75
    """
    check_threshold(threshold)
    drawn = Replicates(table, replicates, seed)
    half = confusion(drawn.tally, HALF)
    at_half: dict[str, Any] = {"confusion_matrix": half.as_record(), "threshold": HALF}
    more = {
        "at_half": Called.model_validate(estimate_measures(drawn, HALF, CALLED) | at_half),
        "classification_report": _classification_report(drawn, threshold),
        "operating_points": operating_points_record(
            estimate(drawn, operating_points, dict.fromkeys(POINT_NAMES, Kind(bounds=(0.0, 1.0))))
        ),
        "decision_curve": decision_curve(estimate(drawn, net_benefit, dict.fromkeys(BENEFIT_NAMES, Kind()))),
        "groups": each_group(table, threshold, seed=seed),
        "subgroups": each_subgroup(table, threshold, subgroups, replicates=replicates, seed=seed),
    }
    metrics = evaluate(drawn, threshold).model_copy(update=more)
    return with_classes(metrics, table, ordered=ordered, replicates=replicates, seed=seed)


def _classification_report(replicates: Replicates, threshold: float) -> dict[str, ClassScores]:
    calls = confusion(replicates.tally, threshold)
    shares = {name: (float(k), float(n)) for name, (k, n) in class_shares(calls).items()}
    kinds = {name: Kind(shares.get(name), None if name in shares else (0.0, 1.0)) for name in REPORT_NAMES}
    entries = estimate(replicates, lambda counts: class_scores(confusion(counts, threshold)), kinds)
    support = {"negative": int(calls.tn + calls.fp), "positive": int(calls.fn + calls.tp)}
    return {
        row: ClassScores(
            **{score: entries[row, score] for score in SCORES}, support=support.get(row, sum(support.values()))
        )
        for row in ROWS
    }


def headline(metrics: SplitMetrics, unit: str = "image") -> str:
    """AUROC, sensitivity, specificity and calibration error with their 95 % intervals.

    Args:
        metrics: What `evaluate_table` returns.
        unit: What a row is: "image" or "slide".

    Example:
        >>> entry = {"value": 0.5, "ci95": [0.25, 0.75]}
        >>> alone, none = {"value": 0.5, "ci95": None}, {"value": None}
        >>> values = {"auroc": entry, "sensitivity": alone, "specificity": none, "ece": entry}
        >>> headline(SplitMetrics.model_validate(values | {"n": 1200}))
        'auroc 0.500 [0.250, 0.750], sensitivity 0.500 (no interval), specificity undefined, ...'
    """
    line = (
        ", ".join(f"{name} {_shown(metrics[name])}" for name in prominent(2))
        + f" on {metrics.n:,} {unit}{'s'[: metrics.n != 1]}"
    )
    return line if metrics.classes is None else f"{line}; {class_headline(metrics.classes)}"


def class_headline(classes: ClassMetrics) -> str:
    """Accuracy, balanced accuracy, F1 and AUROC of more than two classes with their 95 % intervals."""
    names = ("accuracy", "balanced_accuracy", "macro_f1", "macro_auroc")
    return f"of {len(classes.names)} classes " + ", ".join(f"{name} {_shown(classes[name])}" for name in names)


def _shown(estimate: Estimate) -> str:
    if estimate.value is None:
        return "undefined"
    return f"{estimate.value:.3f}" + (" [{:.3f}, {:.3f}]".format(*estimate.ci95) if estimate.ci95 else " (no interval)")
