"""What people write as a label, as 0 and 1 with the positive class named."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import NamedTuple

import pandas as pd

from tumortrace.errors import CohortError

_MISSING = frozenset(("", "nan", "na", "n/a", "<na>", "null"))
# Compared without case, blanks, hyphens and underscores.
_DISEASE = r"(tumou?r(ous)?|cancer(ous)?|carcinoma|malignan(t|cy)|metasta(sis|ses|tic)|idc)"
_POSITIVE = re.compile(rf"1|t(rue)?|y(es)?|pos(itive)?|{_DISEASE}|idcpositive")
_NEGATIVE = re.compile(rf"0|f(alse)?|no?|neg(ative)?|(no|non|not){_DISEASE}|idcnegative|benign|normal|healthy|control")


class Labels(NamedTuple):
    """Labels as numbers.

    Attributes:
        numbers: Int64, one per text: 1 positive, 0 negative, missing where the text was blank.
        classes: Names of the negative and the positive class, as the user spells them.
        note: How texts became numbers, where that was not plain; else None.
    """

    numbers: pd.Series
    classes: tuple[str, str]
    note: str | None


def binary_labels(texts: Sequence[str], *, positive: str | None = None, where: object = None) -> Labels:
    """Labels 0 and 1 for texts that name two classes.

    The positive class is the one named by `positive`, else it is known by its spelling (1, true, malignant, tumour,
    cancer, metastasis, positive ... against 0, false, benign, normal, negative ...); case does not matter.

    Args:
        texts: One text per image; blank ones are unlabelled.
        positive: Name of the positive class.
        where: The file or folder, for messages.

    Returns:
        The numbers, the class names and a note.

    Raises:
        CohortError: There are not two classes, or which is positive is neither named nor known.

    Example:
        >>> labels = binary_labels(["Malignant", "Benign", ""])
        >>> labels.numbers.tolist(), labels.classes
        ([1, 0, <NA>], ('Benign', 'Malignant'))
    """
    series = pd.Series(list(texts), dtype=object)
    plain = series.map({text: _plain(text) for text in series.unique()})
    counts = series.str.strip().groupby([plain, series.str.strip()]).size().sort_values(ascending=False, kind="stable")
    names: dict[str, str] = {}  # plain form to the commonest spelling
    for form, spelling in counts.index:
        names.setdefault(form, form if form in ("0", "1") else spelling)
    names.pop("", None)
    if not names:
        return Labels(pd.Series(pd.NA, index=series.index, dtype="Int64"), ("negative", "positive"), None)
    if len(names) != 2:
        raise CohortError(
            f"{len(names)} {'class' if len(names) == 1 else 'classes'} ({_listed(sorted(names.values()))})",
            where=where,
            expected="two classes",
            remedy="keep two classes, or use labels 0 and 1 in a table; --positive NAME says which of two is positive",
        )
    chosen = _positive_form(names, positive, where)
    other = next(form for form in names if form != chosen)
    numbers = plain.map({chosen: 1, other: 0}).astype("Int64")
    note = None
    if {chosen, other} != {"0", "1"} or chosen == "0":
        note = f"class {names[chosen]!r} is positive (label 1), {names[other]!r} negative (label 0)"
    return Labels(numbers, (names[other], names[chosen]), note)


def is_blank(text: str) -> bool:
    """Whether a text stands for no label: nothing, or a spelling of missing such as NaN or N/A.

    Example:
        >>> [is_blank(text) for text in ("", " NaN ", "0")]
        [True, True, False]
    """
    return text.strip().casefold() in _MISSING


def read_alone(text: str, classes: tuple[str, str]) -> int | None:
    """1 or 0 for a text that names one of the classes or is known by its spelling; None for any other.

    Example:
        >>> [read_alone(text, ("a", "b")) for text in ("B", "Tumour", "no", "2", "")]
        [1, 1, 0, None, None]
    """
    for label, name in enumerate(classes):
        if text.strip().casefold() == name.casefold():
            return label
    for other in ("0", "1"):
        try:
            label = binary_labels([text, other]).numbers[0]
        except CohortError:
            continue
        return None if pd.isna(label) else int(label)
    return None


def commonest_classes(texts: pd.Series, positive: str | None) -> tuple[str, str]:
    """Names of the classes after the two commonest labels that are known to be two classes."""
    common = [text for text in texts.str.strip().value_counts().index if text][:6]
    for one in common:
        for other in common:
            try:
                labels = binary_labels([one, other], positive=positive)
            except CohortError:
                continue
            return labels.classes
    return "negative", "positive"


def _plain(text: str) -> str:
    """A spelling without what does not matter; blank where there is no label."""
    text = text.strip().casefold()
    if is_blank(text):
        return ""
    try:
        number = float(text)
    except ValueError:
        return re.sub(r"[\s_-]+", "", text) or text
    return str(int(number)) if number in (0, 1) else text


def _positive_form(names: dict[str, str], positive: str | None, where: object) -> str:
    spellings = _listed(sorted(names.values()))
    if positive is not None:
        if _plain(positive) not in names:
            found = f"no class named {positive!r}"
            raise CohortError(found, where=where, expected=f"one of {spellings}", remedy="correct --positive NAME")
        return _plain(positive)
    known = [form for form in names if _POSITIVE.fullmatch(form)]
    if len(known) != 1 or not any(_NEGATIVE.fullmatch(form) for form in names):
        raise CohortError(
            f"which of the classes {spellings} is positive is not known",
            where=where,
            remedy="name it with --positive NAME",
        )
    return known[0]


def _listed(names: list[str]) -> str:
    return ", ".join(names[:5]) + (", ..." if len(names) > 5 else "")
