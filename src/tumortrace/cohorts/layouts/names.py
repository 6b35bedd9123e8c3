"""Identities, groups and labels from names: of files, and of columns."""

from __future__ import annotations

import re
from collections.abc import Sequence

import pandas as pd

from tumortrace.cohorts.cohort import COLUMNS
from tumortrace.errors import CohortError

GROUP_COLUMNS = ("group", "patient", "case", "slide", "wsi")
"""Columns of a user's table that name what must not be split, the coarsest first."""


def unique_ids(relative: Sequence[str]) -> tuple[list[str], list[str]]:
    """Ids for files: names without extension, or paths without extension where names repeat.

    Args:
        relative: Paths relative to the cohort's root, with forward slashes.

    Returns:
        The ids, unique, and notes.

    Example:
        >>> unique_ids(["a/1.png", "b/2.png"])[0], unique_ids(["a/1.png", "b/1.png"])[0]
        (['1', '2'], ['a/1', 'b/1'])
    """
    paths = [path[: -len(suffix)] if (suffix := _suffix(path)) else path for path in relative]
    names = [path.rpartition("/")[2] for path in paths]
    if len(set(names)) == len(names):
        return names, []
    if len(set(paths)) == len(paths):
        return paths, ["file names repeat, so the id of an image is its path without extension"]
    return list(relative), ["file names repeat, so the id of an image is its path"]


def parts_of_names(table: pd.DataFrame, pattern: str, option: str) -> pd.Series:
    """What `pattern` finds in each file's name without extension (the id, for rows of HDF5 arrays).

    Raises:
        CohortError: The pattern is not valid, or some name does not match it.

    Example:
        >>> table = pd.DataFrame({"id": ["1"], "path": ["/data/p12_x3.png"]})
        >>> parts_of_names(table, r"p(\\d+)_", "--group-from-name").tolist()
        ['12']
    """
    try:
        expression = re.compile(pattern)
    except re.error as error:
        found = f"{pattern!r} is not a regular expression ({error})"
        raise CohortError(found, where=option, expected="a pattern such as ^(\\d+)_") from None
    if expression.groups > 1:
        found = f"{pattern!r} has {expression.groups} capturing groups"
        raise CohortError(found, where=option, expected="one", remedy="write the others as (?:...)")
    rows = zip(table["id"], table["path"], strict=True)
    names = [identity if "::" in path else unique_ids([path])[0][0] for identity, path in rows]
    parts = [match[expression.groups] if (match := expression.search(name)) else None for name in names]
    unmatched = [name for name, part in zip(names, parts, strict=True) if not part]
    if unmatched:
        found = f"{pattern!r} finds nothing in {len(unmatched)} of {len(names)} file names, such as {unmatched[0]!r}"
        raise CohortError(found, where=option, remedy="correct the pattern")
    return pd.Series(parts, index=table.index, dtype="string")


def column_groups(table: pd.DataFrame, column: str | None, where: object) -> tuple[pd.Series, str] | None:
    """Groups from a column of the user's own and the note on it, or None where there is none.

    Args:
        table: A cohort's table, with the user's columns beside its own.
        column: The column asked for; without it, the first of `GROUP_COLUMNS` that says anything is taken.
        where: The cohort, for messages.

    Raises:
        CohortError: The column asked for is not there.
    """
    if column is None:
        column = next((name for name in GROUP_COLUMNS if name in table and _texts(table[name]).notna().any()), None)
    if column is None:
        return None
    match = column.strip().lower()
    if match not in table or (match in COLUMNS and match not in ("group", "id")):
        own = [str(name) for name in table.columns if name not in COLUMNS]
        expected = f"one of the columns {', '.join(own)}" if own else "data with a table of columns"
        raise CohortError(f"no column {column!r} to group by", where=where, expected=expected)
    groups = _texts(table[match])
    note = f"groups come from column {column!r}: {groups.nunique()} groups"
    if missing := int(groups.isna().sum()):
        note += f"; {missing} rows have none"
    return groups, note


def _texts(column: pd.Series) -> pd.Series:
    """The column as text without surrounding blanks, missing where nothing is left."""
    texts = column.astype("string").str.strip()
    return texts.mask(texts == "")


def _suffix(path: str) -> str:
    name = path.rpartition("/")[2]
    stem, dot, suffix = name.rpartition(".")
    return dot + suffix if stem and dot else ""
