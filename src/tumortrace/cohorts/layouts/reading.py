"""Tables that people keep beside their images, read as text so that an id "007" stays "007"."""

from __future__ import annotations

import csv
from pathlib import Path

import pandas as pd

from tumortrace.cohorts.cohort import SPLITS
from tumortrace.cohorts.layouts.folders import SPLIT_NAMES
from tumortrace.errors import CohortError

TABLE_SUFFIXES = (".csv", ".tsv", ".txt", ".parquet", ".pq")
_NUMBERS = ("x", "y", "width", "height")


def read_table(path: Path, keep_repeats: bool = False) -> tuple[pd.DataFrame, list[str]]:
    """A CSV (comma, semicolon or tab) or Parquet table, every value as text and blank where missing.

    Column names are lower case without surrounding blanks; columns without a name are dropped, and so are rows that
    repeat another exactly. The index is the row's line in the file, the header being line 1.

    Args:
        path: The file.
        keep_repeats: Keep rows that repeat another, for tables whose rows count by position.

    Returns:
        The table and notes.

    Raises:
        CohortError: The file is not such a table, has no rows, or a row has too many or too few fields.

    Example:
        >>> import tempfile
        >>> file = Path(tempfile.mkdtemp()) / "labels.csv"
        >>> _ = file.write_bytes(b"\\xef\\xbb\\xbf,ID;Label\\r\\n0;007;1\\r\\n".replace(b",", b";"))
        >>> table, notes = read_table(file)
        >>> table.to_dict("index"), notes
        ({2: {'id': '007', 'label': '1'}}, ['labels.csv: column without a name dropped'])
    """
    table = _parquet(path) if path.suffix.lower() in (".parquet", ".pq") else _csv(path)
    notes = []
    table.columns = [str(column).strip().lower() for column in table.columns]
    if "" in table:
        table = table.drop(columns="")
        notes.append(f"{path.name}: column without a name dropped")
    if table.columns.has_duplicates:
        twice = table.columns[table.columns.duplicated()][0]
        raise CohortError(f"two columns named {twice!r}", where=path, remedy="rename one")
    if table.empty:
        raise CohortError("a table without rows", where=path, expected="a header and at least one row")
    if "id" in table:
        table["id"] = table["id"].str.strip()
    repeats = table.duplicated() & (not keep_repeats)
    if repeats.any():
        table = table[~repeats]
        notes.append(f"{path.name}: {int(repeats.sum())} rows that repeat another exactly dropped")
    return table, notes


def read_header(path: Path) -> list[str]:
    """Names of a table's columns as `read_table` gives them; none where it is no table."""
    try:
        if path.suffix.lower() in (".parquet", ".pq"):
            import pyarrow.parquet

            names = pyarrow.parquet.read_schema(path).names
        else:
            with open(path, encoding="utf-8-sig", newline="") as file:
                line = file.readline(65536)
                names = next(csv.reader([line], delimiter=_separator(line)), [])
    except (OSError, ValueError, csv.Error):  # pyarrow's errors are ValueErrors too
        return []
    return [str(name).strip().lower() for name in names]


def refuse_repeats(table: pd.DataFrame, column: str, where: object) -> None:
    """Raise CohortError where rows that differ elsewhere have the same `column`, or where an id is blank."""
    blank = table[column].str.strip() == ""
    if column == "id" and blank.any():
        raise CohortError(f"line {blank.idxmax()}, column 'id': blank", where=where, remedy="correct it")
    twice = table[table[column].duplicated(keep=False) & ~blank]
    if twice.empty:
        return
    value = twice[column].iloc[0]
    lines = ", ".join(str(line) for line in twice.index[twice[column] == value][:5])
    count = twice[column].nunique()
    raise CohortError(
        f"{count} values of {column!r} stand in several rows that differ, such as {value!r} in lines {lines}",
        where=where,
        expected="one row per image",
        remedy="remove the wrong rows",
    )


def standard_columns(table: pd.DataFrame, where: object) -> pd.DataFrame:
    """The table with a cohort's own columns: `split` in our names, blank groups missing, pixels as numbers.

    Args:
        table: Text columns; `group` and `split` are added where missing.
        where: The file, for messages.

    Raises:
        CohortError: A split or a number (`x, y, width, height`) is none; the message names line and field.
    """
    table = table.copy()
    for column in ("group", "split"):
        table[column] = table[column].str.strip().replace("", None) if column in table else None
    names = {text: SPLIT_NAMES.get(str(text).lower()) for text in table["split"].dropna().unique()}
    splits = table["split"].map(names)
    _refuse_value(table, "split", splits.isna(), "one of " + ", ".join(SPLITS), where)
    table["split"] = splits
    for column in _NUMBERS:
        if column in table:
            numbers = pd.to_numeric(table[column], errors="coerce")
            _refuse_value(table, column, numbers.isna(), "a number", where)
            table[column] = numbers.convert_dtypes()
    return table


def _refuse_value(table: pd.DataFrame, column: str, bad: pd.Series, expected: str, where: object) -> None:
    bad = bad & table[column].notna() & (table[column].astype(str).str.strip() != "")
    if bad.any():
        line, value = next(iter(table[column][bad].items()))
        found = f"line {line}, column {column!r}: {value!r}"
        raise CohortError(found, where=where, expected=expected, remedy="correct it")


def _csv(path: Path) -> pd.DataFrame:
    lines: list[int] = []
    rows: list[list[str]] = []
    try:
        with open(path, encoding="utf-8-sig", newline="") as file:
            separator = _separator(file.readline(65536))
            file.seek(0)
            reader = csv.reader(file, delimiter=separator, strict=True)
            header = next(reader, [])
            for row in reader:
                if not any(row):
                    continue
                if len(row) != len(header):
                    found = f"line {reader.line_num} has {len(row)} fields"
                    raise CohortError(
                        found, where=path, expected=f"{len(header)} as in the header", remedy="correct it"
                    )
                lines.append(reader.line_num)
                rows.append(row)
    except UnicodeDecodeError:
        raise CohortError("not UTF-8 text", where=path, remedy="save it as CSV in UTF-8") from None
    except csv.Error as error:
        raise CohortError(f"not a CSV table ({error})", where=path, remedy="save it as CSV in UTF-8") from None
    return pd.DataFrame(rows, columns=pd.Index(header), index=lines, dtype=object)


def _separator(header: str) -> str:
    return max(",;\t", key=header.count)


def _parquet(path: Path) -> pd.DataFrame:
    try:
        table = pd.read_parquet(path)
        table = table.reset_index(drop=all(name is None for name in table.index.names))
        table = table.astype("string").fillna("").astype(object)
    except (OSError, ValueError, TypeError) as error:
        raise CohortError(f"not a Parquet table ({error})", where=path) from None
    table.index = pd.RangeIndex(2, len(table) + 2)
    return table
