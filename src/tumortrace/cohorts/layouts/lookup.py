"""The file of each row of a table: folders are listed once, and files are not touched."""

from __future__ import annotations

import os
import unicodedata
from collections.abc import Sequence
from functools import cache
from pathlib import Path

import pandas as pd

from tumortrace.cohorts.layouts.folders import absolute_paths, is_image
from tumortrace.cohorts.layouts.names import unique_ids


def files_by_id(ids: Sequence[str], folder: Path, images: Sequence[str]) -> list[str | None]:
    """The absolute path of the image that each id names, with or without its ending; None where there is none.

    Args:
        ids: Names, in any Unicode normal form (Macs spell accents in their own).
        folder: Where the images are.
        images: Paths relative to it, with forward slashes.

    Example:
        >>> files_by_id(["a", "b.png", "c"], Path("/data"), ["a.tif", "b.png"])
        ['/data/a.tif', '/data/b.png', None]
    """
    paths = absolute_paths(folder, images)
    known = dict(zip(map(_normal, unique_ids(images)[0]), paths, strict=True))
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
        wanted, colons, row = text.strip().partition("::")
        for spelling in (wanted, wanted.replace("\\", "/")):
            directory, slash, name = spelling.rpartition("/")
            if file := files(directory + slash).get(_normal(name)):
                return file + colons + row
        return None

    return [find(text) for text in paths]


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
    text = ", ".join(f"{value!r} (line {line})" for line, value in rows[column].head(3).items())
    return text + (", ..." if len(rows) > 3 else "")


def flat_images(folder: Path) -> list[str]:
    """Names of the images that lie in a folder itself, sorted."""
    return sorted(name for name in os.listdir(folder) if is_image(name) and not name.startswith("."))


def _normal(text: str) -> str:
    return text if text.isascii() else unicodedata.normalize("NFC", text)
