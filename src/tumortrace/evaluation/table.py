"""The predictions table: read, checked, and taken apart into the arrays that evaluation works on."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from tumortrace.errors import PredictionsError
from tumortrace.records.user_tables import SUFFIXES, numbers, read_text

TEXT_COLUMNS = ("id", "group", "split", "decision")


@dataclass(frozen=True)
class Predictions:
    """Checked predictions, one entry per image.

    Attributes:
        label: 0 negative, 1 positive; shape (n,), int64.
        probability: Probability of the positive class, shape (n,), float64 in [0, 1].
        group: Index of the slide or patient, shape (n,), int64 in [0, n_groups); None unless every image has one.
        n_groups: Number of distinct groups, or None where not every image has one.
        ungrouped: Number of images without a group.
    """

    label: NDArray[np.int64]
    probability: NDArray[np.float64]
    group: NDArray[np.int64] | None
    n_groups: int | None
    ungrouped: int


def read_predictions(path: Path | str) -> pd.DataFrame:
    """The predictions table in a CSV or Parquet file, checked.

    Args:
        path: File with the columns `label` (0 or 1) and `probability` (of the positive class, in [0, 1]), in any form
            that `records.user_tables.read_text` knows; `id`, `group`, `split` and `decision`, where present, are text,
            so that `007` stays `007` and `NA` stays `NA`; an empty cell is a missing value. Other columns are kept.

    Returns:
        One row per image; `label` int64 and `probability` float64 with every digit of the file.

    Raises:
        PredictionsError: The file cannot be read, lacks a column or has a value that cannot be evaluated.

    Example:
        >>> import tempfile
        >>> file = Path(tempfile.mkdtemp()) / "predictions.csv"
        >>> _ = file.write_text("ID;group;Label;probability\\n007;s1;1;0,75\\n008;;0;0,1\\n")
        >>> table = read_predictions(file)
        >>> table["id"].tolist(), table["probability"].tolist(), int(table["group"].isna().sum())
        (['007', '008'], [0.75, 0.1], 1)
    """
    table, _ = read_predictions_file(path)
    checked = check_table(table, where=str(path))
    return table.assign(label=checked.label, probability=checked.probability)


def read_predictions_file(path: Path | str) -> tuple[pd.DataFrame, list[str]]:
    """The same table, its labels as they stand in the file, and notes.

    Raises:
        PredictionsError: The file cannot be read, or lacks a column.
    """
    path = Path(path)
    if not path.is_file():
        raise PredictionsError("no such file", where=path, expected="a .csv or .parquet file", remedy="check the path")
    if path.suffix.lower() not in SUFFIXES:
        raise PredictionsError(
            f"unknown kind of file {path.suffix!r}",
            where=path,
            expected=" or ".join(SUFFIXES),
            remedy="save the predictions as CSV",
        )
    table, notes = read_text(path, PredictionsError)
    _require_columns(table, str(path))
    for column in table:
        text = table[column].mask(table[column].str.strip() == "")
        table[column] = text.astype("string") if column in (*TEXT_COLUMNS, "label") else _typed(text, str(column))
    return table.reset_index(drop=True), notes


def _typed(text: pd.Series, column: str) -> pd.Series:
    """A column as numbers or truths where all its values are; of probabilities, those that are, the others as text."""
    known = text.dropna()
    if len(known) and known.str.lower().isin(["true", "false"]).all():
        truth = text.str.lower().map({"true": True, "false": False}).astype("boolean")
        return truth.astype(bool) if truth.notna().all() else truth
    values = numbers(text)
    if column == "probability" and values[known.index].isna().any():
        return values.astype(object).where(values.notna(), text)  # to be named by row when the table is checked
    if values[known.index].isna().any() or known.str.match(r"\s*0\d").any():  # 007 is a name
        return text.astype("string")
    whole = len(known) == len(text) and known.str.fullmatch(r"\s*-?\d{1,15}\s*").all()
    return values.astype("int64") if whole and column != "probability" else values


def check_table(table: pd.DataFrame, where: str = "predictions") -> Predictions:
    """The arrays of a predictions table.

    Args:
        table: Columns `label` (0 or 1), `probability` (in [0, 1]) and optionally `group` and `id`.
        where: Name of the table for messages.

    Raises:
        PredictionsError: The table is empty, lacks a column, or has a missing or impossible value; row and column
            are named.

    Example:
        >>> check_table(pd.DataFrame({"label": [0, 1], "probability": [0.2, 1.5]}))
        Traceback (most recent call last):
        tumortrace.errors.PredictionsError: predictions, row 2, column probability: found 1.5; expected a number ...
    """
    _require_columns(table, where)
    if table.empty:
        raise PredictionsError("no rows", where=where, expected="one row per image", remedy="evaluate another split")
    label = _numbers(table, "label")
    refuse_rows(
        ~np.isin(label, (0, 1)), table, "label", where, "0 or 1", "give the image its label or leave out the row"
    )
    probability = _numbers(table, "probability")
    impossible = ~((probability >= 0) & (probability <= 1))
    refuse_rows(
        impossible, table, "probability", where, "a number from 0 to 1", "give probabilities, not logits or per cent"
    )
    group, n_groups, ungrouped = _groups(table)
    return Predictions(label.astype(np.int64), probability, group, n_groups, ungrouped)


def check_arrays(label: ArrayLike, probability: ArrayLike) -> Predictions:
    """The same for two arrays of equal length, shape (n,), without groups.

    Raises:
        PredictionsError: The lengths differ, or a value is missing or impossible.

    Example:
        >>> check_arrays([0, 1], [0.2, 0.9]).probability
        array([0.2, 0.9])
    """
    labels, probabilities = np.asarray(label), np.asarray(probability)
    if labels.ndim != 1 or labels.shape != probabilities.shape:
        raise PredictionsError(
            f"labels of shape {labels.shape} and probabilities of shape {probabilities.shape}",
            expected="two flat arrays of one length",
            remedy="give one label and one probability per image",
        )
    return check_table(pd.DataFrame({"label": labels, "probability": probabilities}))


def _require_columns(table: pd.DataFrame, where: str) -> None:
    for column in ("label", "probability"):
        if column not in table:
            raise PredictionsError(
                f"no column {column!r} among {', '.join(map(repr, table.columns)) or 'none'}",
                where=where,
                expected="the columns label and probability",
                remedy="rename or add it",
            )


def _numbers(table: pd.DataFrame, column: str) -> NDArray[np.float64]:
    """A column as float64; whatever is not a number becomes NaN, for the check that follows to name."""
    values = pd.to_numeric(table[column], errors="coerce")
    return np.asarray(values.to_numpy(dtype=np.float64, na_value=np.nan))


def refuse_rows(
    bad: NDArray[np.bool_], table: pd.DataFrame, column: str, where: str, expected: str, remedy: str
) -> None:
    """Raise for the first of the `bad` rows, counted from 1 as a reader of the table would."""
    if not bad.any():
        return
    row, count = int(bad.argmax()), int(bad.sum())
    value = table[column].iloc[row]
    identity = f" (id {table['id'].iloc[row]})" if "id" in table else ""
    found = "found nothing" if pd.isna(value) or value == "" else f"found {value}"
    others = f" and {count - 1} more such rows" if count > 1 else ""
    raise PredictionsError(
        found + others, where=f"{where}, row {row + 1}{identity}, column {column}", expected=expected, remedy=remedy
    )


def _groups(table: pd.DataFrame) -> tuple[NDArray[np.int64] | None, int | None, int]:
    if "group" not in table:
        return None, None, len(table)
    names = table["group"].astype("string")
    unknown = names.isna() | (names.str.strip() == "").fillna(True)
    if unknown.any():
        return None, None, int(unknown.sum())
    codes, distinct = pd.factorize(names, sort=True)  # sorted: the order of rows must not change an interval
    return codes.astype(np.int64), len(distinct), 0


# The other class as the positive one: the same calls, seen from the other side.


OPPOSITE = {"positive": "negative", "negative": "positive", "refer": "refer"}


def swap_classes(table: pd.DataFrame, threshold: float) -> tuple[pd.DataFrame, float]:
    """A predictions table with the classes exchanged, and the threshold at which no image is called otherwise.

    An image at the threshold is called positive, so after the exchange it has to lie below the new one: that is
    1 - threshold, or the next number above where an image lies on it. Where rounding has made 1 - probability of two
    images equal that are called differently, the one is moved to the next number below. So sensitivity and specificity
    change places exactly, and so do precision and negative predictive value.

    Args:
        table: Columns `label`, `probability` and optionally `decision` and `logit`; others are kept.
        threshold: An image is called positive where its probability is at or above it.

    Returns:
        The table with 1 - label and 1 - probability (decisions and logits turned too), and the threshold.

    Raises:
        PredictionsError: The table or the threshold cannot be used.

    Example:
        >>> table, threshold = swap_classes(pd.DataFrame({"label": [0, 1, 1], "probability": [0.25, 0.5, 0.75]}), 0.5)
        >>> table["label"].tolist(), table["probability"].tolist(), (table["probability"] >= threshold).tolist()
        ([1, 0, 0], [0.75, 0.5, 0.25], [True, False, False])
    """
    check_threshold(threshold)
    predictions = check_table(table)
    called = predictions.probability >= threshold
    other = 1 - predictions.probability
    swapped = max(1 - threshold, 0.0)
    if (other[called] >= swapped).any():
        swapped = float(np.nextafter(swapped, 2))
    stays = other[~called].min(initial=np.inf)  # the lowest that has to be called
    if stays < swapped:
        swapped = float(stays)
        other[called & (other >= swapped)] = np.nextafter(swapped, -1)
    result = table.assign(label=1 - predictions.label, probability=other)
    if "decision" in table:
        result["decision"] = table["decision"].map(OPPOSITE)
    if "logit" in table:
        result["logit"] = -table["logit"]
    return result, swapped


def check_threshold(threshold: float) -> None:
    """Refuse what is not a threshold; just above 1 is one, calling nothing positive."""
    if not 0 <= threshold <= np.nextafter(1.0, 2.0):
        raise PredictionsError(
            f"threshold {threshold}", expected="a number from 0 to 1", remedy="give it as a probability"
        )
