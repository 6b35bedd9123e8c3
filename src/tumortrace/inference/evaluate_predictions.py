"""The verb `evaluate --predictions`: any model's predictions, from a table."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from tumortrace.cohorts.labels import binary_labels
from tumortrace.errors import CohortError
from tumortrace.evaluation.intervals import evaluate_table
from tumortrace.evaluation.split_record import subgroup_levels
from tumortrace.evaluation.table import (
    OPPOSITE,
    check_table,
    check_threshold,
    read_predictions_file,
    refuse_rows,
    swap_classes,
)
from tumortrace.inference.evaluate import write_evaluation
from tumortrace.records.command import command_line
from tumortrace.records.evaluation import EvaluationRecord
from tumortrace.records.output import require_own_folder
from tumortrace.records.progress import say
from tumortrace.records.run import Data


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
        file: CSV (commas, semicolons or tabs; decimal commas) or Parquet with the columns `label` (0 and 1, or the
            names of two classes) and `probability`, and optionally `id`, `group` (slide or patient), `split` (each one
            is measured apart) and `decision`.
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
    table, read = read_predictions_file(file)
    subgroups = [name if name in table else name.lower() for name in subgroups]
    found = read_classes(table, positive, probability_of, where=str(file))
    table, classes, notes = found.table, found.classes, [*read, *found.notes]
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
    before = EvaluationRecord.recognise(folder)
    if before is not None and before.data.fingerprint != _fingerprint(table):
        say(f"note: {folder} held the evaluation of another table ({before.data.name}), which is replaced")
    record = EvaluationRecord(
        command=command_line(
            "evaluate",
            predictions=file,
            threshold=f"{given:g}",
            positive=positive,
            probability_of=probability_of,
            subgroup=subgroups,
        ),
        model={
            "name": file.stem,
            "threshold": threshold,
            "threshold_policy": f"whoever evaluated it, beforehand (fixed:{given:g})",
        },
        data=Data(
            name=file.name,
            layout="predictions",
            fingerprint=_fingerprint(table),
            images=len(table),
            groups=int(table["group"].nunique()) if table["group"].notna().all() else None,
        ),
        classes=list(classes),
        positive_class=classes[1],
        notes=notes,
        subgroups=subgroups,
    )
    return write_evaluation(folder, table, threshold, record)


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
        interval = evaluate_table(part, threshold, replicates=200)["auroc"].ci95
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


# Which class of a predictions table is positive, and whose probability it holds.


NUMBERS = ("0", "1")


@dataclass(frozen=True)
class Classes:
    """A predictions table that is read.

    Attributes:
        table: Label 1 is the class whose probability it holds.
        classes: Names of the negative and of the positive class.
        swapped: Whether the positive class is the other one, so that the table has to be swapped.
        notes: What was taken for what.
    """

    table: pd.DataFrame
    classes: tuple[str, str]
    swapped: bool
    notes: list[str]


def read_classes(
    table: pd.DataFrame, positive: str | None, probability_of: str | None, where: str = "predictions"
) -> Classes:
    """Labels as numbers.

    Args:
        table: Columns `label` and `probability` as in a file.
        positive: Name of the positive class.
        probability_of: Name of the class whose probability the table holds; default class 1, or the one whose name
            tells that it is positive, or else `positive`.
        where: The file, for messages.

    Raises:
        CohortError: There are not two classes of these names, or which is positive is neither named nor known.
        PredictionsError: A label is neither of the two classes; row and column are named.

    Example:
        >>> read = read_classes(pd.DataFrame({"label": ["b", "a"], "probability": [0.2, 0.7]}), "a", None)
        >>> read.table["label"].tolist(), read.classes, read.swapped
        ([0, 1], ('b', 'a'), False)
    """
    numbers = pd.to_numeric(table["label"], errors="coerce")
    text = table["label"].astype("string").str.strip()
    named = text.fillna("") != ""
    if numbers[named].notna().all():  # numbers that are neither 0 nor 1 are named by row when the table is checked
        return _numbered(table, positive, probability_of, where)
    _refuse_third(table, text, named, where)
    texts = text.fillna("").tolist()
    place = f"{where}, column label"
    names = [name for name in dict.fromkeys(texts) if name]
    if len(names) == 1 and (positive or probability_of):  # the other class is only heard of
        own = positive or probability_of
        texts.append(f"not {own}" if names[0].casefold() == str(own).casefold() else str(own))
    held = probability_of or _known(texts, place) or positive
    labels = binary_labels(texts, positive=held, where=place)
    other = labels.classes
    chosen = labels if positive is None else binary_labels(texts, positive=positive, where=place)
    notes = [
        f"{chosen.classes[1]!r} is positive, {chosen.classes[0]!r} negative; probabilities are those of {other[1]!r}"
    ]
    return Classes(
        table.assign(label=labels.numbers.iloc[: len(table)].to_numpy(dtype=object)),
        chosen.classes,
        chosen.classes[1] != other[1],
        notes,
    )


def _numbered(table: pd.DataFrame, positive: str | None, probability_of: str | None, where: str) -> Classes:
    """Labels 0 and 1, of which 1 is positive and its probability given unless told otherwise."""
    for option, name in (("--positive", positive), ("--probability-of", probability_of)):
        if name is not None and name not in NUMBERS:
            raise CohortError(
                f"no class named {name!r}",
                where=f"{where}, column label",
                expected="0 or 1",
                remedy=f"correct {option}, or write the classes' names into the column",
            )
    held, chosen = probability_of or "1", positive or "1"
    classes = ("negative", "positive") if positive is None else (f"class {1 - int(chosen)}", f"class {chosen}")
    label = pd.to_numeric(table["label"], errors="coerce")
    if held == "0":
        label = 1 - label
    notes = (
        [] if (held, chosen) == ("1", "1") else [f"class {chosen} is positive; probabilities are those of class {held}"]
    )
    return Classes(table if held == "1" else table.assign(label=label), classes, held != chosen, notes)


def _known(texts: list[str], where: str) -> str | None:
    """The class that is known to be positive by its spelling, if one is."""
    try:
        return binary_labels(texts, where=where).classes[1]
    except CohortError:
        return None


def _refuse_third(table: pd.DataFrame, text: pd.Series, named: pd.Series, where: str) -> None:
    """Name the first row whose label is neither of the two commonest classes.

    Raises:
        PredictionsError: There is one.
    """
    forms = text.str.casefold()
    common = forms[named].value_counts().index[:2].tolist()
    third = named & ~forms.isin(common)
    first = [text[forms == form].iloc[0] for form in common]
    refuse_rows(third.to_numpy(), table, "label", where, " or ".join(first), "keep two classes")
