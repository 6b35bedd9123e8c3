"""What a column of a user's table means, by its usual names: images, labels, slides or patients, splits."""

from __future__ import annotations

import re
from collections.abc import Sequence

import pandas as pd

from tumortrace.cohorts.cohort import COLUMNS
from tumortrace.cohorts.files import is_image
from tumortrace.cohorts.labels import binary_labels, is_blank
from tumortrace.cohorts.names import split_of
from tumortrace.errors import CohortError, plain, shown

FILE_COLUMNS = ("path", "file", "image", "filename")
"""Columns that say where an image is, the first found being taken; then other usual names; without any, the id."""

_FILE = re.compile(
    r"(?:image|img|file|patch|tile|picture)(?:path|file|name|id|filename|location)s?|(?:images|img|files|patches|tiles|"
    r"filepaths?|filenames|fname|fpath|patch|tile|picture|relativepath|relpath)"
)
_KEY = r"(?:id|ids|no|nr|num|number|name|code|uid|key|barcode|identifier|index|idx|submitterid)?"
_GROUP = (
    re.compile(rf"groups?{_KEY}"),
    re.compile(
        rf"(?:anon(?:ymi[sz]ed)?|deid|study|tcga|bcr)?(?:patients?|patienten|subjects?|participants?|persons?|donors?|"
        rf"individuals?){_KEY}|pid|mrn"
    ),
    re.compile(rf"(?:tcga|bcr)?cases?{_KEY}"),
    re.compile(rf"(?:slides?|wsi|wholeslide(?:image)?|specimens?|biops(?:y|ies)|blocks?){_KEY}"),
)
"""Columns that name what must not be split, the coarsest first, without what is neither letter nor digit."""

_CENTRE = (
    re.compile(rf"(?:medical|clinical|study)?cent(?:er|re)s?{_KEY}"),
    re.compile(rf"hospitals?{_KEY}"),
    re.compile(rf"(?:institutions?|institutes?|laborator(?:y|ies)|labs?|clinics?){_KEY}"),
    re.compile(rf"(?:tss|(?:tissue)?sourcesite|sites?){_KEY}"),
)
"""Columns that name where an image was made, likewise."""

_LABEL = re.compile(
    r"(?:class|target|diagnos[ie]s|tumou?r|cancer|malignan(?:t|cy)|metastas[ie]s|carcinoma|groundtruth|category|histology|dx)"
    r"(?:label|class|id|name|status|type)?|labels|(?:image|class|patch|tile|binary|true)?label(?:s|id|name)?|"
    r"(?:is|has)(?:tumou?r|cancer|malignant|metastas[ie]s|positive)|y|ytrue"
)


def image_column(table: pd.DataFrame, where: object, asked: str | None = None) -> str:
    """The column that says where images are: the one asked for, else by its usual names, else the id.

    Raises:
        CohortError: There is none.

    Example:
        >>> image_column(pd.DataFrame({"image_name": ["a"], "id": ["1"]}), "labels.csv")
        'image_name'
    """
    if asked is not None:
        return _asked(table, asked, where, "--image-column")
    named = image_column_of(list(table.columns))
    if named is None:
        found = f"columns {listed(list(table.columns))}, of which none says where the images are"
        expected = f"a column {', '.join(FILE_COLUMNS)} or id"
        bare = any(map(is_image, table.columns))
        remedy = "write the names of the columns above, as image,label" if bare else "name it with --image-column"
        raise CohortError(found, where=where, expected=expected, remedy=remedy)
    return named


def image_column_of(columns: Sequence[str], ids: bool = True) -> str | None:
    """The column that by its name says where images are, or None; with `ids`, also a column `id`."""
    usual = [name for name in columns if _FILE.fullmatch(_letters(name))]
    return next((name for name in (*FILE_COLUMNS, *usual, *(("id",) if ids else ())) if name in columns), None)


def with_label(table: pd.DataFrame, where: object, asked: str | None = None) -> tuple[pd.DataFrame, list[str]]:
    """The table with a column `label` (text), and a note on where it comes from; without one where none is plain.

    A column `label` goes before others; without it, the one column with a usual name (target, diagnosis, tumor) that
    holds two classes is taken.

    Args:
        table: Text columns.
        where: The file, for messages.
        asked: The column that the user names.

    Raises:
        CohortError: The column asked for is not there.

    Example:
        >>> table, notes = with_label(pd.DataFrame({"diagnosis": ["benign", "malignant"]}), "a.csv")
        >>> table["label"].tolist(), notes[0]
        (['benign', 'malignant'], "labels come from column 'diagnosis': --label-column names another")
    """
    if asked is not None:
        column = _asked(table, asked, where, "--label-column")
        return table.assign(label=table[column]), [f"labels come from column {shown(column)}"]
    if "label" in table:
        return table, []
    named = label_columns(table)
    if len(named) == 1:
        note = f"labels come from column {shown(named[0])}: --label-column names another"
        return table.assign(label=table[named[0]]), [note]
    told = may_be_labels(table)
    hint = f"; columns that may be labels: {listed(told)}: --label-column takes one" if told else ""
    return table, [f"no column 'label' in the table: all images are unlabelled{hint}"]


def label_columns(table: pd.DataFrame) -> list[str]:
    """Columns with a usual name of labels that hold two classes of which it is plain which is positive."""
    return [str(name) for name in table if _LABEL.fullmatch(_letters(name)) and _two_classes(table[name])]


def may_be_labels(table: pd.DataFrame) -> list[str]:
    """The user's columns that hold two values, or have a usual name of labels and hold several."""
    own = [name for name in table if name not in (*COLUMNS, *group_columns(table), split_column(table))]
    values = {str(name): len({text for text in table[name].dropna().astype(str) if text.strip()}) for name in own}
    return [name for name, number in values.items() if number == 2 or (number > 2 and _LABEL.fullmatch(_letters(name)))]


def column_groups(table: pd.DataFrame, column: str | None, where: object) -> tuple[pd.Series, str] | None:
    """Groups from a column of the user's own and the note on it, or None where there is none.

    Args:
        table: A cohort's table, with the user's columns beside its own.
        column: The column asked for; without it, the first that is named as a patient's, then a case's or a slide's,
            says anything, and does not stand for each image by itself while another does not.
        where: The cohort, for messages.

    Raises:
        CohortError: The column asked for is not there.

    Example:
        >>> table = pd.DataFrame({"slide": ["s1", "s2"], "Patient ID": ["p", "p"]})
        >>> column_groups(table, None, "a.csv")[1]
        "groups come from column 'Patient ID': 1 group; --group-column names another, such as 'slide'"
    """
    hint = ""
    if column is None:
        named = group_columns(table)
        if not named:
            return None
        single = [name for name in named if _texts(table[name]).nunique() < table[name].notna().sum()]
        column = (single or named)[0]
        others = [name for name in named if name != column and name != "group"]
        if column != "group":
            hint = "; --group-column names another" + (f", such as {shown(others[0])}" if others else "")
        match = column
    else:
        match = _asked(table, column, where, "--group-column", ("group", "id"))
    groups = _texts(table[match])
    number = groups.nunique()
    note = f"groups come from column {shown(column)}: {number:,} group{'s' * (number != 1)}{hint}"
    if missing := int(groups.isna().sum()):
        note += f"; {missing} rows have none"
    return groups, note


def group_columns(table: pd.DataFrame) -> list[str]:
    """Columns named as what must not be split that say something other than a label, the coarsest first."""
    names = [str(name) for kind in _GROUP for name in table if kind.fullmatch(_letters(name))]
    return [
        name for name in dict.fromkeys(names) if _texts(table[name]).notna().any() and not _two_classes(table[name])
    ]


def centre_column(table: pd.DataFrame, asked: str | None, where: object) -> pd.Series | None:
    """The centre of each image, under the name of its column; missing where blank.

    Args:
        table: A cohort's table, with the user's columns beside its own.
        asked: The column asked for; without it, the first that is named as a center, hospital, institute, site or TSS
            and holds several values.
        where: The cohort, for messages.

    Returns:
        The column as text, or None where there is none.

    Raises:
        CohortError: The column asked for is not there.

    Example:
        >>> table = pd.DataFrame({"id": ["a", "b"], "Hospital": ["x", " "], "site": [1, 2]})
        >>> centre_column(table, None, "a.csv").name, centre_column(table, "hospital", "a.csv").tolist()
        ('site', ['x', <NA>])
    """
    if asked is not None:
        return _texts(table[_asked(table, asked, where, "probe.centre", ("group",))])
    named = (name for kind in _CENTRE for name in table if kind.fullmatch(_letters(name)))
    return next((texts for name in named if len((texts := _texts(table[name])).dropna().unique()) > 1), None)


def split_column(table: pd.DataFrame) -> str | None:
    """The one column whose every value is the name of a split, several of them, where no column `split` is there."""
    if "split" in table:
        return None
    named = []
    for name in table:
        if name in COLUMNS:
            continue
        values = set(_texts(table[name]).dropna().unique()) if table[name].nunique() < 10 else set()
        if len({split_of(value) for value in values} - {None}) > 1 and all(split_of(value) for value in values):
            named.append(str(name))
    return named[0] if len(named) == 1 else None


def listed(names: Sequence[object]) -> str:
    """Names with commas between them, each and all cut to what a line bears."""
    told = ", ".join(plain(name) for name in names[:12])
    return told + (f", ... ({len(names)})" if len(names) > 12 else "")


def _asked(table: pd.DataFrame, column: str, where: object, option: str, allowed: Sequence[str] = ()) -> str:
    """The column that the user asks for, in any spelling of case and blanks."""
    match = next((str(name) for name in table if str(name).strip().lower() == column.strip().lower()), None)
    own = [str(name) for name in table if name not in COLUMNS]
    if match is None or (option in ("--group-column", "probe.centre") and match in COLUMNS and match not in allowed):
        expected = f"one of the columns {listed(own)}" if own else "data with a table of columns"
        raise CohortError(f"no column {shown(column)}", where=where, expected=expected, remedy=f"correct {option}")
    return match


def _two_classes(column: pd.Series) -> bool:
    """Whether all texts, blanks apart, are of two classes of which it is plain which is positive."""
    texts = [text for text in column.dropna().astype(str).unique() if not is_blank(text)]
    if not 1 < len(texts) < 20:
        return False
    try:
        binary_labels(texts)
    except CohortError:
        return False
    return True


def _texts(column: pd.Series) -> pd.Series:
    """The column as text without surrounding blanks, missing where nothing is left."""
    texts = column.astype("string").str.strip()
    return texts.mask(texts == "")


def _letters(name: object) -> str:
    return re.sub(r"[\W_]+", "", str(name).casefold())
