"""How a model does on each slide or patient, and on each level of a column such as scanner or hospital."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from tumortrace.errors import PredictionsError
from tumortrace.evaluation.intervals import evaluate_table, with_intervals
from tumortrace.evaluation.metrics import auroc, describe, tally
from tumortrace.evaluation.proportions import wilson
from tumortrace.evaluation.table import Predictions, check_table

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
