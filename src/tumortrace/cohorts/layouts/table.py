"""A CSV or Parquet table with one row per image: where its file is, and what is known about it."""

from __future__ import annotations

import os
from pathlib import Path

import pandas as pd

from tumortrace.cohorts.cohort import Cohort, Reading
from tumortrace.cohorts.files import SPLIT_NAMES, flat_images, list_images, subfolders
from tumortrace.cohorts.labels import binary_labels
from tumortrace.cohorts.layouts import LAYOUTS, Layout, Listing
from tumortrace.cohorts.tables import (
    examples,
    files_by_id,
    files_by_path,
    read_table,
    refuse_repeats,
    standard_columns,
    unique_ids,
    with_files,
)
from tumortrace.errors import CohortError
from tumortrace.records.user_tables import SUFFIXES, read_header

FILE_COLUMNS = ("path", "file", "image", "filename")
"""Columns that say where an image is, the first found being taken; without any, the id is its name."""


class Table(Layout):
    """One row per image."""

    rank = 40
    looks_like = "a CSV or Parquet table with a column path, file, image, filename or id"

    def recognises(self, path: Path) -> bool:
        """Whether it is a table, or a folder with exactly one of images: see `table_in`."""
        if path.is_file():
            return path.suffix.lower() in SUFFIXES
        return table_in(path) is not None

    def read(self, path: Path, reading: Reading) -> Cohort:
        """The cohort of the table's rows whose file is there."""
        file = path if path.is_file() else table_in(path)
        assert file is not None  # as `recognises` has found
        table, notes = read_table(file)
        if file != path:
            notes.append(f"opened by its table {file.name}")
        column = _image_column(table, file)
        refuse_repeats(table, "id" if "id" in table else column, file)
        table, more = _with_files(standard_columns(table, file), column, file)
        notes += more
        if "id" not in table:
            home = os.path.join(os.path.abspath(file.parent), "")
            ids, repeats = unique_ids([image.removeprefix(home).replace(os.sep, "/") for image in table["path"]])
            table, notes = table.assign(id=ids), notes + repeats
        if "label" not in table:
            notes.append("no column 'label' in the table: all images are unlabelled")
            table = table.assign(label="")
        labels = binary_labels(table["label"].tolist(), positive=reading.positive, merge=reading.merge, where=file)
        table = labels.into(table)
        notes += [labels.note] if labels.note else []
        return Cohort(file.stem, "table", table, notes=tuple(notes), **labels.naming)

    def listing(self, path: Path) -> Listing:
        """All rows of the table, and the images in the folders of theirs that none names."""
        file = path if path.is_file() else table_in(path)
        assert file is not None  # as `recognises` has found
        rows, _ = read_table(file, keep_repeats=True)
        column = _image_column(rows, file)
        files, _ = _find_files(rows[column].tolist(), column, file)
        return Listing.of_table(file, rows, column, files)


LAYOUTS.register("table")(Table())


def table_in(folder: Path) -> Path | None:
    """The one table in a folder that has a column of files; else, where no class folders are there, that of labels."""
    if not folder.is_dir():
        return None
    with os.scandir(folder) as entries:
        names = [entry.name for entry in entries if entry.name.lower().endswith((".csv", ".tsv", ".parquet"))]
    names = [name for name in names if not name.startswith(".")]
    headers = {folder / name: set(read_header(folder / name)) for name in names} if len(names) < 20 else {}
    tables = [table for table, header in headers.items() if set(FILE_COLUMNS) & header]
    if not tables and not _has_classes(folder):
        tables = [
            table for table, header in headers.items() if {"id", "label"} <= header and "probability" not in header
        ]
    return tables[0] if len(tables) == 1 else None


def _has_classes(folder: Path) -> bool:
    """Whether the folders in a folder are named like two classes, there or within split folders."""
    folders = subfolders(folder)
    if any(name.lower() in SPLIT_NAMES and subfolders(folder / name) for name in folders):
        return True
    try:
        return len(folders) > 1 and bool(binary_labels(folders).classes)
    except CohortError:
        return False


def _image_column(table: pd.DataFrame, file: Path) -> str:
    column = next((name for name in (*FILE_COLUMNS, "id") if name in table), None)
    if column is None:
        found = f"columns {', '.join(map(str, table.columns))}, of which none says where the images are"
        raise CohortError(found, where=file, expected=f"a column {', '.join(FILE_COLUMNS)} or id")
    return column


def _places(file: Path) -> list[Path]:
    """Where files are looked for: beside the table, then in the folder named like it, in `images/` and in `train/`."""
    home = Path(os.path.abspath(file.parent))
    return [home, *(home / name for name in (file.stem, "images", "train") if name in subfolders(home))]


def _find_files(texts: list[str], column: str, file: Path) -> tuple[list[str | None], Path]:
    """The file of each text, and the place: the first that has all of them, else the one that has most."""
    places = _places(file)
    best: list[str | None] = [None] * len(texts)
    source = places[0]
    for place in places:
        if column == "id":
            files = files_by_id(texts, place, flat_images(place) if place == places[0] else list_images(place).images)
        else:
            files = files_by_path(texts, place)
        if files.count(None) < best.count(None):
            best, source = files, place
        if None not in best:
            break
    return best, source


def _with_files(table: pd.DataFrame, column: str, file: Path) -> tuple[pd.DataFrame, list[str]]:
    """The rows whose file is there, with its path, and notes."""
    files, source = _find_files(table[column].tolist(), column, file)
    if not any(files):
        found = f"none of its {len(table)} files is there: {examples(table, column)}"
        looked = ", ".join(map(str, _places(file)))
        raise CohortError(found, where=file, expected=f"files in {looked}", remedy=f"correct the column {column!r}")
    beside = source == _places(file)[0]
    rows, notes = with_files(table, column, files, "the table's folder" if beside else f"{source.name}/")
    if not beside:
        notes.append(f"files were found in {source.name}/ beside the table")
    return rows, notes
