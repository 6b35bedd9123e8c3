"""Which class of a predictions table is positive, and whose probability it holds."""

from __future__ import annotations

from dataclasses import dataclass

import pandas as pd

from tumortrace.cohorts.labels import binary_labels
from tumortrace.errors import CohortError
from tumortrace.evaluation.table import refuse_rows

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
