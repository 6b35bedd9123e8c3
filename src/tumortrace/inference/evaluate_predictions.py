"""The verb `evaluate --predictions`: any model's predictions, from a table."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from tumortrace.evaluation.by_group import subgroup_levels
from tumortrace.evaluation.intervals import evaluate_table
from tumortrace.evaluation.metrics import check_threshold
from tumortrace.evaluation.swapped import OPPOSITE, swap_classes
from tumortrace.evaluation.table import check_table, read_predictions_file, refuse_rows
from tumortrace.inference.evaluation_folder import command, write_evaluation
from tumortrace.inference.predicted_classes import read_classes
from tumortrace.runs.output import require_own_folder


def evaluate_predictions(
    file: str | Path,
    *,
    out: str | Path | None = None,
    threshold: float = 0.5,
    positive: str | None = None,
    probability_of: str | None = None,
    subgroups: Sequence[str] = (),
) -> Path:
    """Measure the predictions of any model, with 95 % intervals, at a threshold that was chosen elsewhere.

    Args:
        file: CSV or Parquet with the columns `label` (0 and 1, or the names of two classes) and `probability`, and
            optionally `id`, `group` (slide or patient), `split` (each one is measured apart) and `decision`.
        out: Folder to write; default `<name of the file>-evaluation`.
        threshold: An image is called 1, or the class whose probability it is, at or above this probability.
        positive: Name of the positive class. Where it is the class that the probabilities are not of, they are turned
            round, and sensitivity and specificity change places exactly.
        probability_of: Name of the class whose probability `probability` is; default class 1, or the one whose name
            tells that it is positive (`malignant`, `tumour` ...), or else `positive`.
        subgroups: Columns on whose levels everything is measured apart.

    Returns:
        The folder, with `predictions.csv`, `metrics.json`, `evaluation.json`, `figures/` and `report.html`.

    Raises:
        PredictionsError: The file cannot be read, or a row of it cannot be evaluated: the first is named.
        CohortError: Which class is positive is not known.
        RunError: The folder is a run's.
    """
    check_threshold(threshold)
    file = Path(file)
    folder = Path(out) if out is not None else Path(f"{file.stem}-evaluation")
    require_own_folder(folder)
    table = read_predictions_file(file)
    found = read_classes(table, positive, probability_of, where=str(file))
    table, classes, notes = found.table, found.classes, found.notes
    check_table(table, where=str(file))
    table = _completed(table, str(file))
    for column in subgroups:
        subgroup_levels(table, column, where=file)
    given = threshold
    if found.swapped:
        table, threshold = swap_classes(table, threshold)
    called = (table["probability"] >= threshold).astype(int)
    notes += _other_calls(table, called, found.swapped)
    table = table.assign(prediction=called)
    notes += _doubts(table, threshold)
    options = {"threshold": f"{given:g}", "positive": positive, "probability_of": probability_of}
    about: dict[str, Any] = {
        "command": command(predictions=file, subgroups=subgroups, **options),
        "model": {
            "name": file.stem,
            "threshold": threshold,
            "threshold_policy": f"whoever evaluated it, beforehand (fixed:{given:g})",
        },
        "data": {
            "name": file.name,
            "layout": "predictions",
            "fingerprint": _fingerprint(table),
            "images": len(table),
            "groups": int(table["group"].nunique()) if table["group"].notna().all() else None,
        },
        "classes": list(classes),
        "positive_class": classes[1],
        "notes": notes,
    }
    return write_evaluation(folder, table, threshold, about, subgroups=subgroups)


def _completed(table: pd.DataFrame, where: str) -> pd.DataFrame:
    """The table with the columns that a predictions table has; splits and decisions are checked."""
    table = table.assign(label=table["label"].astype(float).astype(int), probability=table["probability"].astype(float))
    if "group" not in table:
        table["group"] = pd.Series(pd.NA, table.index, dtype="string")
    if "split" not in table:
        table["split"] = "test"
    blank = table["split"].isna() | (table["split"].str.strip() == "").fillna(True)
    refuse_rows(blank.to_numpy(), table, "split", where, "a split in each row", "fill it in or drop the column")
    if "decision" in table:
        unknown = ~table["decision"].isin(list(OPPOSITE))
        refuse_rows(unknown.to_numpy(), table, "decision", where, "positive, negative or refer", "drop the column")
    if "id" in table:
        twice = table["id"].notna() & table.duplicated(["id", "split"])
        refuse_rows(twice.to_numpy(), table, "id", where, "each id once per split", "remove the row or rename the id")
    else:
        table.insert(0, "id", pd.Series([str(row) for row in range(1, len(table) + 1)], table.index, dtype="string"))
    return table


def _other_calls(table: pd.DataFrame, called: pd.Series, swapped: bool) -> list[str]:
    """A note where the file's own calls are not those at the threshold."""
    if "prediction" not in table:
        return []
    own = pd.to_numeric(table["prediction"], errors="coerce")
    differ = int(((1 - own if swapped else own) != called).sum())
    return [f"column prediction is not used, and differs from the calls in {differ:,} rows"] if differ else []


def _doubts(table: pd.DataFrame, threshold: float) -> list[str]:
    """What looks as if it were not meant so."""
    notes = []
    if table["group"].isna().any() and table["group"].notna().any():
        notes.append(f"{int(table['group'].isna().sum()):,} rows have no group, so that none is used")
    if set(table["split"]) & {"train", "training", "calibration"}:
        notes.append("splits that a model has learnt from, or was calibrated on, flatter it")
    for split, part in table.groupby("split", sort=False):
        interval = evaluate_table(part, threshold, replicates=200)["auroc"]["ci95"]
        if interval is not None and interval[1] < 0.5:
            notes.append(
                f"{split}: AUROC is below .5; are the probabilities those of the other class (--probability-of)?"
            )
    return notes


def _fingerprint(table: pd.DataFrame) -> str:
    """SHA-256 over ids, labels, groups and splits: that of what was predicted, whatever the model."""
    columns = table[["id", "label", "group", "split"]].astype(object)
    rows = columns.where(columns.notna(), None).itertuples(index=False)
    return hashlib.sha256("\n".join(sorted(repr(tuple(row)) for row in rows)).encode()).hexdigest()
