"""Everything that is measured on one split, as the record that `metrics.json` holds of it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from tumortrace.evaluation.by_group import each_group, each_subgroup
from tumortrace.evaluation.classification_report import (
    REPORT_NAMES,
    class_proportions,
    class_scores,
    classification_report,
)
from tumortrace.evaluation.decision_curve import BENEFIT_NAMES, decision_curve, net_benefit
from tumortrace.evaluation.intervals import BOUNDED, evaluate_table, with_intervals
from tumortrace.evaluation.metrics import CALLED, Tally, confusion_matrix, measure_calls, tally
from tumortrace.evaluation.operating_points import POINT_NAMES, operating_points, operating_points_record
from tumortrace.evaluation.proportions import proportions
from tumortrace.evaluation.table import check_table

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
