"""Tables that people keep beside their images, read as text so that an id "007" stays "007"."""

from __future__ import annotations

import os
import unicodedata
from collections.abc import Sequence
from functools import cache
from pathlib import Path

import pandas as pd

from tumortrace.cohorts.cohort import SPLITS
from tumortrace.cohorts.files import absolute_paths, flat_images, list_images, subfolders
from tumortrace.cohorts.names import split_of
from tumortrace.errors import CohortError, shown
from tumortrace.images.reference import ImageRef
from tumortrace.records.user_tables import numbers, read_text

_NUMBERS = ("x", "y", "width", "height")


def read_table(path: Path, keep_repeats: bool = False) -> tuple[pd.DataFrame, list[str]]:
    """A user's table as `records.user_tables.read_text` gives it, without rows that repeat another exactly.

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
    table, notes = read_text(path, CohortError)
    repeats = table.duplicated() & (not keep_repeats)
    if repeats.any():
        table = table[~repeats]
        notes.append(f"{path.name}: {int(repeats.sum())} rows that repeat another exactly dropped")
    return table, notes


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
        f"{count} values of {column!r} stand in several rows that differ, such as {shown(value)} in lines {lines}",
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
    names = {text: split_of(str(text)) for text in table["split"].dropna().unique()}
    splits = table["split"].map(names)
    _refuse_value(table, "split", splits.isna(), "one of " + ", ".join(SPLITS), where)
    table["split"] = splits
    for column in _NUMBERS:
        if column in table:
            values = numbers(table[column])
            _refuse_value(table, column, values.isna(), "a number", where)
            table[column] = values.convert_dtypes()
    return table


def _refuse_value(table: pd.DataFrame, column: str, bad: pd.Series, expected: str, where: object) -> None:
    bad = bad & table[column].notna() & (table[column].astype(str).str.strip() != "")
    if bad.any():
        line, value = next(iter(table[column][bad].items()))
        found = f"line {line}, column {column!r}: {shown(value)}"
        raise CohortError(found, where=where, expected=expected, remedy="correct it")


# Identities from names of files.


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


def _suffix(path: str) -> str:
    name = path.rpartition("/")[2]
    stem, dot, suffix = name.rpartition(".")
    return dot + suffix if stem and dot else ""


# The file of each row of a table: folders are listed once, and files are not touched.


def files_by_id(ids: Sequence[str], folder: Path, images: Sequence[str]) -> list[str | None]:
    """The absolute path of the image that each id names, with or without its ending; None where there is none.

    Images in folders further down are known by their names alone where these do not repeat.

    Args:
        ids: Names, in any Unicode normal form (Macs spell accents in their own).
        folder: Where the images are.
        images: Paths relative to it, with forward slashes.

    Example:
        >>> files_by_id(["a", "b.png", "c"], Path("/data"), ["a.tif", "p1/b.png"])
        ['/data/a.tif', '/data/p1/b.png', None]
    """
    paths = absolute_paths(folder, images)
    known = dict(zip(map(_normal, unique_ids(images)[0]), paths, strict=True))
    names = [_normal(image.rpartition("/")[2]) for image in images]
    if len(set(names)) == len(names):
        known |= dict(zip(names, paths, strict=True))
    known |= dict(zip(map(_normal, images), paths, strict=True))
    return [known.get(_normal(text.strip())) for text in ids]


def files_by_path(paths: Sequence[str], folder: Path) -> list[str | None]:
    """The absolute path of each file named relative to `folder` (or absolutely); None where there is none.

    Args:
        paths: Paths with slashes or backslashes; `file.h5::row` names a row of an array.
        folder: What relative paths start from.

    Example:
        >>> import tempfile
        >>> folder = Path(tempfile.mkdtemp())
        >>> (folder / "a.png").touch()
        >>> [path is not None for path in files_by_path(["a.png", "b.png"], folder)]
        [True, False]
    """

    @cache
    def files(directory: str) -> dict[str, str]:
        parent = os.path.normpath(os.path.join(os.path.abspath(folder), directory))
        try:
            return {_normal(name): os.path.join(parent, name) for name in os.listdir(parent)}
        except (OSError, ValueError):
            return {}

    def find(text: str) -> str | None:
        wanted = ImageRef.parse(text.strip())
        for spelling in (wanted.file, wanted.file.replace("\\", "/")):
            directory, slash, name = spelling.rpartition("/")
            if file := files(directory + slash).get(_normal(name)):
                return str(ImageRef(file, wanted.part))
        return None

    return [find(text) for text in paths]


def places_of(file: Path) -> list[Path]:
    """Where files are looked for: beside the table, in the folder of its name or split, in `images/` and its like.

    Last come the folders of these names beside the folder of the table.
    """
    home = Path(os.path.abspath(file.parent))
    split = split_of(file.stem, table=True)
    usual = (file.stem, "images", "image", "imgs", "img", "patches", "tiles", "data", "train")
    places = [home]
    for parent in (home, home.parent):
        there = subfolders(parent)
        folders = {name.lower(): name for name in reversed(there)} | {name: name for name in there}
        named = [folders[name] for name in usual if name in folders]
        named += [name for name in there if split and split_of(name) == split]
        places += [parent / name for name in dict.fromkeys(named) if parent / name != home]
    return places


def find_files(texts: list[str], column: str, file: Path) -> tuple[list[str | None], Path]:
    """The file of each text of a table's column, and the place: the first that has all, else the one that has most.

    Args:
        texts: What stands in the column.
        column: Its name: an id may be named without its folder.
        file: The table.
    """
    places = places_of(file)
    best: list[str | None] = [None] * len(texts)
    source = places[0]
    for place in places:
        if column == "id":
            files = files_by_id(texts, place, flat_images(place) if place == places[0] else list_images(place).images)
        else:
            files = files_by_path(texts, place)
            if None in files and place.is_dir():  # names without endings, or of files in folders further down
                images = flat_images(place) if place == places[0] else list_images(place).images
                files = [one or other for one, other in zip(files, files_by_id(texts, place, images), strict=True)]
        if files.count(None) < best.count(None):
            best, source = files, place
        if None not in best:
            break
    return best, source


def with_files(
    table: pd.DataFrame, column: str, files: Sequence[str | None], where: str
) -> tuple[pd.DataFrame, list[str]]:
    """The rows whose file is there, with its path, and a note on the others.

    Args:
        table: Rows indexed by their line in the file.
        column: What named the files, for the note.
        files: One per row.
        where: The folder, for the note.
    """
    missing = pd.Series([file is None for file in files], index=table.index, dtype=bool)
    rows = table.assign(path=pd.Series(list(files), index=table.index, dtype=object))[~missing]
    if not missing.any():
        return rows, []
    return rows, [f"left out {missing.sum()} rows without a file in {where}: {examples(table[missing], column)}"]


def examples(rows: pd.DataFrame, column: str) -> str:
    """The first three of these rows, by line and content."""
    text = ", ".join(f"{shown(value)} (line {line})" for line, value in rows[column].head(3).items())
    return text + (", ..." if len(rows) > 3 else "")


def _normal(text: str) -> str:
    return text if text.isascii() else unicodedata.normalize("NFC", text)
