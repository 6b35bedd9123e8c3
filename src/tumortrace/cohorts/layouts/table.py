"""A CSV or Parquet table with one row per image: where its file is, and what is known about it."""

from __future__ import annotations

import os
from pathlib import Path

import pandas as pd

from tumortrace.cohorts.cohort import Cohort, Reading
from tumortrace.cohorts.columns import image_column, image_column_of, label_columns, split_column, with_label
from tumortrace.cohorts.labels import binary_labels
from tumortrace.cohorts.layouts import LAYOUTS, Layout, Listing
from tumortrace.cohorts.layouts.class_folders import holds_classes
from tumortrace.cohorts.names import is_clutter, like_a_split, split_of
from tumortrace.cohorts.tables import (
    examples,
    find_files,
    places_of,
    read_table,
    refuse_repeats,
    standard_columns,
    unique_ids,
    with_files,
)
from tumortrace.errors import CohortError, shown
from tumortrace.records.user_tables import SUFFIXES, read_header


class Table(Layout):
    """One row per image."""

    rank = 40
    looks_like = "a CSV or Parquet table with a column path, file, image, filename or id"
    columns = ("label_column", "image_column")

    def recognises(self, path: Path) -> bool:
        """Whether it is a table, or a folder with those of images: see `tables_in`."""
        if path.is_file():
            return path.suffix.lower() in SUFFIXES
        return bool(tables_in(path))

    def read(self, path: Path, reading: Reading) -> Cohort:
        """The cohort of the rows whose file is there, of one table or of one for each split."""
        files = [path] if path.is_file() else tables_in(path)
        parts = [_part(file, reading, len(files) > 1) for file in files]
        table = pd.concat([part for part, _ in parts], ignore_index=True)
        notes = [note for _, told in parts for note in told]
        if files != [path]:
            names = ", ".join(file.name for file in files)
            notes.insert(0, f"opened by its table{'s' * (len(files) > 1)} {names}")
        if "id" not in table or table["id"].isna().any():
            home = os.path.join(os.path.abspath(files[0].parent), "")
            ids, repeats = unique_ids([image.removeprefix(home).replace(os.sep, "/") for image in table["path"]])
            table, notes = table.assign(id=ids), notes + repeats
        if len(files) > 1:
            _refuse_in_several(table, path)
        where = files[0] if len(files) == 1 else path
        texts = table["label"].fillna("").tolist()
        labels = binary_labels(texts, positive=reading.positive, merge=reading.merge, where=where)
        table = labels.into(table)
        notes += [labels.note] if labels.note else []
        name = files[0].stem if len(files) == 1 else path.absolute().name
        return Cohort(name, "table", table, notes=tuple(notes), **labels.naming)

    def listing(self, path: Path, reading: Reading) -> Listing:
        """All rows of the table, and the images in the folders of theirs that none names; of several, no rows."""
        files = [path] if path.is_file() else tables_in(path)
        if len(files) > 1:
            return Listing()
        rows, _ = read_table(files[0], keep_repeats=True)
        column = image_column(rows, files[0], reading.image_column)
        rows, _ = with_label(rows, files[0], reading.label_column)
        found, _ = find_files(rows[column].tolist(), column, files[0])
        return Listing.of_table(files[0], rows, column, found)


LAYOUTS.register("table")(Table())


def tables_in(folder: Path) -> list[Path]:
    """The tables that say what the images in a folder are: one, or one for each split (train.csv, val.csv, test.csv).

    A table with a column of files goes before others; without it, one of ids and labels. Where folders are classes, a
    table without labels is none of them.

    Raises:
        CohortError: Beside tables of splits there is one that speaks of a split, and not of which.
    """
    if not folder.is_dir():
        return []
    with os.scandir(folder) as entries:
        names = sorted(entry.name for entry in entries if entry.name.lower().endswith((".csv", ".tsv", ".parquet")))
    names = [name for name in names if not is_clutter(name)]
    headers = {folder / name: read_header(folder / name) for name in names} if len(names) < 20 else {}
    tables = [table for table, header in headers.items() if image_column_of(header, ids=False)]
    classes = holds_classes(folder) if headers else False
    if classes:
        tables = [table for table in tables if _has_labels(table, headers[table])]
    elif not tables:
        tables = [table for table, header in headers.items() if _says_of_ids(table, header)]
    if len(tables) == 1:
        return tables
    by_split = {table: split_of(table.stem, table=True) for table in tables}
    splits = [split for split in by_split.values() if split]
    if "train" not in splits:
        return []
    lost = [table.name for table, split in by_split.items() if not split and like_a_split(table.stem)]
    if lost:
        known = ", ".join(table.name for table, split in by_split.items() if split)
        found = f"{', '.join(lost)} beside {known}: which split it is is not known"
        remedy = "rename it, move it out of the data, or name one table instead of the folder"
        raise CohortError(found, where=folder, expected="names such as train, val, test", remedy=remedy)
    return [table for table, split in by_split.items() if split]


def _says_of_ids(file: Path, header: list[str]) -> bool:
    """Whether a table has ids with labels, or is that of a split; predictions and submissions are none."""
    if "id" not in header or "probability" in header or "submission" in file.stem.lower():
        return False
    return split_of(file.stem, table=True) is not None or _has_labels(file, header)


def _has_labels(file: Path, header: list[str]) -> bool:
    """Whether a table has a column of labels, by its header where that tells."""
    if "label" in header:
        return True
    try:
        return bool(label_columns(read_table(file)[0]))
    except CohortError:
        return False


def _part(file: Path, reading: Reading, together: bool) -> tuple[pd.DataFrame, list[str]]:
    """The rows of a table whose file is there, with their label as text; of one among several, with its split."""
    table, notes = read_table(file)
    column = image_column(table, file, reading.image_column)
    table, said = with_label(table, file, reading.label_column)
    refuse_repeats(table, "id" if "id" in table else column, file)
    if named := split_column(table):
        said = [*said, f"splits come from column {named!r}"]
        table = table.assign(split=table[named])
    if together and "split" not in table:
        table = table.assign(split=split_of(file.stem, table=True))
    table, more = _with_files(standard_columns(table, file), column, file)
    said = [f"{file.name}: {note}" for note in (*said, *more)] if together else [*said, *more]
    return (table if "label" in table else table.assign(label="")), [*notes, *said]


def _refuse_in_several(table: pd.DataFrame, folder: Path) -> None:
    twice = table[table["path"].duplicated(keep=False) | table["id"].duplicated(keep=False)]
    if len(twice):
        found = f"{twice['id'].nunique():,} images stand in several of its tables, such as {shown(twice['id'].iloc[0])}"
        raise CohortError(found, where=folder, expected="each in one split", remedy="remove them from one")


def _with_files(table: pd.DataFrame, column: str, file: Path) -> tuple[pd.DataFrame, list[str]]:
    """The rows whose file is there, with its path, and notes."""
    files, source = find_files(table[column].tolist(), column, file)
    if not any(files):
        found = f"none of its {len(table)} files is there: {examples(table, column)}"
        looked = ", ".join(map(str, places_of(file)))
        remedy = f"correct the column {shown(column)}, or name the one that holds file names with --image-column"
        raise CohortError(found, where=file, expected=f"files in {looked}", remedy=remedy)
    beside = source == places_of(file)[0]
    rows, notes = with_files(table, column, files, "the table's folder" if beside else f"{source.name}/")
    if not beside:
        notes.append(f"files were found in {source.name}/ beside the table")
    return rows, notes
