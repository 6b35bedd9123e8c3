"""Everything that is measured on one split, as the record that `metrics.json` holds of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from tumortrace.errors import PredictionsError
from tumortrace.evaluation.curves import BENEFIT_NAMES, decision_curve, net_benefit
from tumortrace.evaluation.intervals import BOUNDED, evaluate_table, with_intervals
from tumortrace.evaluation.metrics import (
    CALLED,
    Tally,
    auroc,
    confusion,
    confusion_matrix,
    describe,
    measure_calls,
    ratio,
    tally,
)
from tumortrace.evaluation.resampling import proportions, wilson
from tumortrace.evaluation.table import Predictions, check_table
from tumortrace.evaluation.thresholds import POINT_NAMES, operating_points, operating_points_record

# How a model does on each slide or patient, and on each level of a column such as scanner or hospital.


MOST_LEVELS = 50
UNKNOWN = "not known"
REPLICATES = 200


def each_group(table: pd.DataFrame, threshold: float, *, seed: int = 0) -> list[dict[str, Any]]:
    """The main figures of each slide or patient.

    Their intervals speak of further images of the same group: Wilson's for shares, and for `auroc` the bootstrap of its
    images (200 replicates).

    Args:
        table: Columns `label`, `probability` and `group`.
        threshold: An image is called positive where its probability is at or above it.
        seed: Seed of the replicates.

    Returns:
        In the order of the groups' names, `{"group", "n", "positives", "prevalence", "positive_share": entry, "auroc":
        entry, "accuracy": entry, "sensitivity": entry, "specificity": entry}`, where `positive_share` is the share
        called positive, and the value of an entry None where not defined. Empty where not every image has a group.

    Example:
        >>> table = pd.DataFrame({"label": [0, 1, 1], "probability": [0.2, 0.9, 0.1], "group": ["a", "a", "b"]})
        >>> [(row["group"], row["n"], row["sensitivity"]["value"]) for row in each_group(table, 0.5)]
        [('a', 2, 1.0), ('b', 1, 0.0)]
    """
    predictions = check_table(table)
    if predictions.group is None:
        return []
    names = sorted(table["group"].astype("string").astype(str).unique())
    return [
        {"group": name} | _one_group(predictions, predictions.group == code, threshold, seed)
        for code, name in enumerate(names)
    ]


def _one_group(predictions: Predictions, rows: np.ndarray, threshold: float, seed: int) -> dict[str, Any]:
    own = Predictions(predictions.label[rows], predictions.probability[rows], None, None, int(rows.sum()))
    counts = tally(own)
    found = describe(counts, threshold)
    matrix = found["confusion_matrix"]
    n, positives = found["n"], matrix["fn"] + matrix["tp"]
    trials = {
        "positive_share": (matrix["fp"] + matrix["tp"], n),
        "accuracy": (matrix["tn"] + matrix["tp"], n),
        "sensitivity": (matrix["tp"], positives),
        "specificity": (matrix["tn"], n - positives),
    }
    ranked = with_intervals(
        own, ["auroc"], lambda sample: [auroc(sample)], replicates=REPLICATES, seed=seed, bounded={"auroc": 0.0}
    )
    return {
        "n": n,
        "positives": positives,
        "prevalence": found["prevalence"],
        **ranked,
        **{name: _share(*counted) for name, counted in trials.items()},
    }


def _share(successes: int, of: int) -> dict[str, Any]:
    if of == 0:
        return {"value": None, "ci95": None}
    return {"value": successes / of, "ci95": [float(end) for end in wilson(successes, of)]}


def each_subgroup(
    table: pd.DataFrame, threshold: float, columns: Sequence[str], *, replicates: int = 1000, seed: int = 0
) -> dict[str, dict[str, Any]]:
    """Every metric on each level of the named columns, such as scanner, hospital or sex.

    Args:
        table: Columns `label`, `probability`, those that are named, and optionally `group`.
        threshold: An image is called positive where its probability is at or above it.
        columns: Names of columns with at most 50 levels; images without a value make up the level `not known`.
        replicates: Number of bootstrap replicates.
        seed: Seed of the replicates.

    Returns:
        `{column: {level: as evaluate_table}}`, levels by name.

    Raises:
        PredictionsError: There is no such column, or it has too many levels.

    Example:
        >>> table = pd.DataFrame({"label": [0, 1] * 9, "probability": [0.2, 0.4] * 9, "scanner": ["A", "B"] * 9})
        >>> found = each_subgroup(table, 0.5, ["scanner"], replicates=20)
        >>> {level: (part["n"], part["auroc"]["value"]) for level, part in found["scanner"].items()}
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


# The classification report: precision, recall and F1 of each class, and their averages.


SCORES = ("precision", "recall", "f1")
CLASSES = ("negative", "positive")
AVERAGES = ("macro", "weighted")
ROWS = (*CLASSES, *AVERAGES)
REPORT_NAMES = tuple((row, score) for row in ROWS for score in SCORES)


def class_scores(counts: Tally, threshold: float) -> list[float]:
    """Precision, recall and F1 of each class, their plain mean and their mean weighted by support.

    Args:
        counts: Tally of the predictions.
        threshold: An image is called positive where its probability is at or above it.

    Returns:
        In the order of `REPORT_NAMES`; NaN where not defined. A class without images has no weight in the weighted
        mean; any other undefined score leaves a mean undefined.

    Example:
        >>> from tumortrace.evaluation.metrics import tally
        >>> from tumortrace.evaluation.table import check_arrays
        >>> scores = class_scores(tally(check_arrays([0, 0, 0, 1], [0.1, 0.2, 0.7, 0.9])), 0.5)
        >>> {name: round(score, 3) for name, score in zip(REPORT_NAMES, scores) if name[1] == "f1"}
        {('negative', 'f1'): 0.8, ('positive', 'f1'): 0.667, ('macro', 'f1'): 0.733, ('weighted', 'f1'): 0.767}
    """
    tn, fp, fn, tp = confusion(counts, threshold)
    negative = [ratio(tn, tn + fn), ratio(tn, tn + fp), ratio(2 * tn, 2 * tn + fn + fp)]
    positive = [ratio(tp, tp + fp), ratio(tp, tp + fn), ratio(2 * tp, 2 * tp + fp + fn)]
    pairs = list(zip(negative, positive, strict=True))
    macro = [(one + other) / 2 for one, other in pairs]
    return negative + positive + macro + [_weighted(one, tn + fp, other, fn + tp) for one, other in pairs]


def class_proportions(matrix: dict[str, int]) -> dict[tuple[str, str], tuple[int, int]]:
    """Successes and trials behind the scores that are plain proportions.

    Example:
        >>> class_proportions({"tn": 5, "fp": 1, "fn": 2, "tp": 8})["negative", "precision"]
        (5, 7)
    """
    tn, fp, fn, tp = (matrix[name] for name in ("tn", "fp", "fn", "tp"))
    return {
        ("negative", "precision"): (tn, tn + fn),
        ("negative", "recall"): (tn, tn + fp),
        ("positive", "precision"): (tp, tp + fp),
        ("positive", "recall"): (tp, tp + fn),
    }


def classification_report(
    entries: Mapping[tuple[str, str], dict[str, Any]], matrix: dict[str, int]
) -> dict[str, dict[str, Any]]:
    """The report as a record.

    Args:
        entries: Value and interval of each score, by `REPORT_NAMES`.
        matrix: The confusion matrix behind them.

    Returns:
        `{row: {"precision": entry, "recall": entry, "f1": entry, "support": images}}`.
    """
    negative, positive = matrix["tn"] + matrix["fp"], matrix["fn"] + matrix["tp"]
    support = {"negative": negative, "positive": positive}
    return {
        row: {score: entries[row, score] for score in SCORES} | {"support": support.get(row, negative + positive)}
        for row in ROWS
    }


def _weighted(one: float, weight: float, other: float, other_weight: float) -> float:
    if weight == 0 or other_weight == 0:
        return other if weight == 0 else one
    return (weight * one + other_weight * other) / (weight + other_weight)


HALF = 0.5
PARTS: dict[str, Sequence[tuple[Any, ...]]] = {
    "at_half": [(metric,) for metric in CALLED],
    "report": REPORT_NAMES,
    "points": POINT_NAMES,
    "benefit": BENEFIT_NAMES,
}


def split_record(
    table: pd.DataFrame, threshold: float, *, subgroups: Sequence[str] = (), replicates: int = 1000, seed: int = 0
) -> dict[str, Any]:
    """What `evaluate_table` returns, and all that one may ask besides.

    Args:
        table: Columns `label` (0 or 1), `probability` (in [0, 1]), optionally `group`, and those named as subgroups.
        threshold: An image is called positive where its probability is at or above it.
        subgroups: Columns on whose levels everything is measured apart.
        replicates: Number of bootstrap replicates, the same ones for all values.
        seed: Seed of the replicates.

    Returns:
        The record of `evaluate_table`, ready for JSON, with

        - `at_half`: the metrics that depend on calls, and their `confusion_matrix`, at the threshold .5;
        - `classification_report`: precision, recall, F1 and support by class, `macro` and `weighted`;
        - `operating_points`: `sensitivity_at_specificity` and `specificity_at_sensitivity` of .90, .95 and .99;
        - `decision_curve`: net benefit by threshold, of the `model` and of acting on `all`;
        - `groups`: the main figures of each slide or patient; empty where not every image has one;
        - `subgroups`: `{column: {level: metrics}}`.

        Every value is `{"value": v, "ci95": [low, high]}` as in `evaluate_table`: by the bootstrap, but for plain
        proportions of images without groups, and of the images of one group, which have Wilson's interval.

    Raises:
        PredictionsError: The table, the threshold or a subgroup cannot be used.

    Example:
        >>> table = pd.DataFrame({"label": [0, 0, 1, 1] * 10, "probability": [0.1, 0.6, 0.4, 0.9] * 10})
        >>> record = split_record(table, threshold=0.35, replicates=100)
        >>> record["sensitivity"]["value"], record["at_half"]["sensitivity"]["value"]
        (1.0, 0.5)
        >>> record["classification_report"]["macro"]["recall"]["value"]
        0.75
    """
    plain = evaluate_table(table, threshold, replicates=replicates, seed=seed)
    predictions = check_table(table)
    half = confusion_matrix(tally(predictions), HALF)
    counted: dict[tuple[Any, ...], tuple[int, int]] = {
        ("at_half", name): pair for name, pair in proportions(half).items()
    }
    counted |= {("report", *key): pair for key, pair in class_proportions(plain["confusion_matrix"]).items()}

    def measures(counts: Tally) -> NDArray[np.float64]:
        at_half = list(measure_calls(counts, HALF).values())
        return np.concatenate([at_half, class_scores(counts, threshold), operating_points(counts), net_benefit(counts)])

    names = [(part, *key) for part, keys in PARTS.items() for key in keys]
    bounded = {name: BOUNDED.get(name[-1], 0.0) for name in names if name not in counted and name[0] != "benefit"}
    found = with_intervals(
        predictions, names, measures, replicates=replicates, seed=seed, counted=counted, bounded=bounded
    )
    entries = {part: {key: found[part, *key] for key in keys} for part, keys in PARTS.items()}
    return plain | {
        "at_half": {metric: entries["at_half"][(metric,)] for metric in CALLED}
        | {"confusion_matrix": half, "threshold": HALF},
        "classification_report": classification_report(entries["report"], plain["confusion_matrix"]),
        "operating_points": operating_points_record(entries["points"]),
        "decision_curve": decision_curve(entries["benefit"]),
        "groups": each_group(table, threshold, seed=seed),
        "subgroups": each_subgroup(table, threshold, subgroups, replicates=replicates, seed=seed),
    }


# The main figures of one split in one line.


HEADLINE = ("auroc", "sensitivity", "specificity", "ece")


def headline(metrics: dict[str, Any]) -> str:
    """AUROC, sensitivity, specificity and calibration error with their 95 % intervals.

    Args:
        metrics: What `evaluate_table` returns.

    Example:
        >>> entry = {"value": 0.5, "ci95": [0.25, 0.75]}
        >>> headline({"auroc": entry, "sensitivity": entry, "specificity": {"value": None}, "ece": entry, "n": 1200})
        'auroc 0.500 [0.250, 0.750], sensitivity 0.500 [0.250, 0.750], specificity undefined, ...'
    """
    return ", ".join(f"{name} {_shown(metrics[name])}" for name in HEADLINE) + f" on {metrics['n']:,} images"


def _shown(entry: dict[str, Any]) -> str:
    if entry["value"] is None:
        return "undefined"
    interval = entry.get("ci95")
    return f"{entry['value']:.3f}" + (f" [{interval[0]:.3f}, {interval[1]:.3f}]" if interval else "")
