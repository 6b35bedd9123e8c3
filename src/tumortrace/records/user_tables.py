"""The one reader of tables that people bring: images, predictions, lists of ids. All is text, so "007" stays "007"."""

from __future__ import annotations

import csv
import io
import re
from pathlib import Path

import numpy as np
import pandas as pd

from tumortrace.errors import TumorTraceError
from tumortrace.records.stand_ins import stand_in

PARQUET = (".parquet", ".pq")
SUFFIXES = (".csv", ".tsv", ".txt", *PARQUET)


def read_text(path: Path, error: type[TumorTraceError]) -> tuple[pd.DataFrame, list[str]]:
    """A CSV or Parquet table, every value as text and blank where missing.

    A CSV has commas, semicolons, tabs or bars, or what its first line `sep=` says.
    Column names are lower case without surrounding blanks; columns without a name, such as a saved index, are dropped.
    Words such as NA, None and null are text like others. The index is the row's line in the file, the header being
    line 1.

    Args:
        path: The file.
        error: What is raised.

    Returns:
        The table and notes.

    Raises:
        TumorTraceError: As `error`: no such table, no rows, or a row with too many or too few fields.

    Example:
        >>> import tempfile
        >>> file = Path(tempfile.mkdtemp()) / "labels.csv"
        >>> _ = file.write_bytes(b"\\xef\\xbb\\xbf;ID;Share\\r\\n0;007;0,5\\r\\n1;NA;\\r\\n")
        >>> table, notes = read_text(file, TumorTraceError)
        >>> table.to_dict("list"), notes
        ({'id': ['007', 'NA'], 'share': ['0,5', '']}, ['labels.csv: column without a name dropped'])
        >>> numbers(table["share"]).tolist()
        [0.5, nan]
    """
    path = Path(path)
    there = stand_in(path) if path.is_file() else None
    if there and path.stat().st_size:  # an empty one has no rows, as is said below
        raise error(there.found, where=path, expected="a table", remedy=there.remedy)
    table = _parquet(path, error) if path.suffix.lower() in PARQUET else _csv(path, error)
    notes = []
    table.columns = [str(column).strip().lower() for column in table.columns]
    if "" in table:
        table = table.drop(columns="")
        notes.append(f"{path.name}: column without a name dropped")
    if table.columns.has_duplicates:
        twice = table.columns[table.columns.duplicated()][0]
        raise error(f"two columns named {twice!r}", where=path, remedy="rename one")
    if table.empty:
        raise error("a table without rows", where=path, expected="a header and at least one row")
    if "id" in table:
        table["id"] = table["id"].str.strip()
    return table, notes


def read_header(path: Path) -> list[str]:
    """Names of a table's columns as `read_text` gives them; none where it is no table."""
    try:
        if path.suffix.lower() in PARQUET:
            import pyarrow.parquet

            names = pyarrow.parquet.read_schema(path).names
        else:
            text, separator, _ = _begun(_text(path, 65536, errors="replace"))  # of other encodings the reader tells
            names = next(csv.reader([text.splitlines()[0]], delimiter=separator), [])
    except (OSError, ValueError, IndexError, csv.Error):  # pyarrow's errors are ValueErrors too
        return []
    return [str(name).strip().lower() for name in names]


def numbers(column: pd.Series) -> pd.Series:
    """A column of text as float64 with every digit, also with decimal commas; NaN where it is no number.

    Example:
        >>> numbers(pd.Series(["0,25", " 1e-3", "1.000,5", "x"])).tolist()
        [0.25, 0.001, nan, nan]
    """

    def number(value: object) -> float:
        text = str(value).strip()
        try:
            return float(text if "." in text else text.replace(",", "."))  # pandas' own may miss the last digit
        except ValueError:
            return np.nan

    return column.map(number).astype("float64")


def _csv(path: Path, error: type[TumorTraceError]) -> pd.DataFrame:
    lines: list[int] = []
    rows: list[list[str]] = []
    try:
        text, separator, above = _begun(_text(path))
        reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator, strict=True)
        header = next(reader, [])
        for row in reader:
            if not any(row):
                continue
            if len(row) != len(header):
                found = f"line {reader.line_num + above} has {len(row)} fields"
                raise error(found, where=path, expected=f"{len(header)} as in the header", remedy="correct it")
            lines.append(reader.line_num + above)
            rows.append(row)
    except UnicodeError:
        raise error("not UTF-8 text", where=path, remedy="save it as CSV in UTF-8") from None
    except csv.Error as problem:
        raise error(f"not a CSV table ({problem})", where=path, remedy="save it as CSV in UTF-8") from None
    return pd.DataFrame(rows, columns=pd.Index(header), index=lines, dtype=object)


def _text(path: Path, most: int = -1, errors: str = "strict") -> str:
    """The file's text: UTF-8, or UTF-16 where its first two bytes say so, as Excel's "Unicode text" has it."""
    with open(path, "rb") as file:
        encoding = "utf-16" if file.read(2) in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig"
    with open(path, encoding=encoding, errors=errors, newline="") as file:
        return file.read(most)


def _begun(text: str) -> tuple[str, str, int]:
    """The text from its header on, what separates its columns, and the lines above: Excel's may say `sep=;` first."""
    first, _, rest = text.partition("\n")
    if match := re.fullmatch(r'"?sep=(.)"?\r?', first, re.IGNORECASE):
        return rest, match[1], 1
    return text, max(",;\t|", key=first.count), 0


def _parquet(path: Path, error: type[TumorTraceError]) -> pd.DataFrame:
    try:
        table = pd.read_parquet(path)
        table = table.reset_index(drop=all(name is None for name in table.index.names))
        table = table.astype("string").fillna("").astype(object)
    except (OSError, ValueError, TypeError) as problem:
        raise error(f"not a Parquet table ({problem})", where=path) from None
    table.index = pd.RangeIndex(2, len(table) + 2)
    return table
