"""The Kaggle competition's layout: `train/` and `train_labels.csv`, perhaps `test/` and `sample_submission.csv`."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pandas as pd

from tumortrace.cohorts.cohort import Cohort, Reading
from tumortrace.cohorts.columns import listed, with_label
from tumortrace.cohorts.files import absolute_paths, list_images, subfolders
from tumortrace.cohorts.labels import binary_labels
from tumortrace.cohorts.layouts import LAYOUTS, Layout, Listing
from tumortrace.cohorts.names import like_a_split, split_of
from tumortrace.cohorts.tables import (
    examples,
    files_by_id,
    read_table,
    refuse_repeats,
    standard_columns,
    unique_ids,
    with_files,
)
from tumortrace.errors import CohortError

PCAM_RESOLUTION = 0.97
"""Micrometres per pixel of PatchCamelyon, which the competition's images come from (Veeling et al., 2018)."""


class Kaggle(Layout):
    """A table of ids and labels, and a folder of images named by id."""

    rank = 30
    looks_like = "a folder with train/ and train_labels.csv (columns id,label)"
    columns = ("label_column",)

    def recognises(self, path: Path) -> bool:
        """Whether there is a folder `train` beside a `*train_labels.csv`."""
        if path.is_file() and path.name.endswith("train_labels.csv"):
            path = path.parent
        return (path / "train").is_dir() and bool(_label_tables(path)) and not _other_splits(path)

    def read(self, path: Path, reading: Reading) -> Cohort:
        """The cohort of the table's rows that have a file in `train/`, and of the files in `test/`, without labels."""
        file = path if path.is_file() else _label_tables(path)[0]
        folder = Path(os.path.abspath(file.parent))
        table, notes = read_table(file)
        if "id" in table:
            table, more = with_label(table, file, reading.label_column)
            notes += more
        if not {"id", "label"} <= set(table.columns):
            raise CohortError(
                f"columns {listed(list(table.columns))}",
                where=file,
                expected="columns id,label",
                remedy="rename them, or name that of labels with --label-column",
            )
        if own := [str(name) for name in table.columns if name not in ("id", "label", "path")]:
            notes.append(f"{file.name}: further columns {listed(own)}")
        refuse_repeats(table, "id", file)
        train, more = _train_rows(standard_columns(table, file), folder / "train")
        labels = binary_labels(train["label"].tolist(), positive=reading.positive, merge=reading.merge, where=file)
        test = _test_rows(folder / "test")
        train = labels.into(train)
        rows = pd.concat([train, test], ignore_index=True) if len(test) else train
        if rows["id"].duplicated().any():
            raise CohortError(
                "ids stand in train and in test", where=folder, remedy="rename or remove the files of one"
            )
        notes += more + ([labels.note] if labels.note else [])
        resolution = PCAM_RESOLUTION if all(re.fullmatch("[0-9a-f]{40}", identity) for identity in rows["id"]) else None
        if others := [name for name in subfolders(folder) if name not in ("train", "test") and like_a_split(name)]:
            notes.append(f"left out the folders {listed(others)} beside train/, which the table says nothing of")
        if resolution:
            notes.append(f"ids like the Kaggle competition's: taken for PatchCamelyon at {resolution} um per pixel")
        return Cohort(folder.name, "kaggle", rows, resolution=resolution, notes=tuple(notes), **labels.naming)

    def listing(self, path: Path, reading: Reading) -> Listing:
        """All rows of the label table, and the images in `train/` that none names."""
        file = path if path.is_file() else _label_tables(path)[0]
        folder = Path(os.path.abspath(file.parent)) / "train"
        rows, _ = read_table(file, keep_repeats=True)
        if "id" not in rows:
            raise CohortError("no column 'id'", where=file, expected="columns id,label")
        rows, _ = with_label(rows, file, reading.label_column)
        return Listing.of_table(file, rows, "id", files_by_id(rows["id"].tolist(), folder, list_images(folder).images))


LAYOUTS.register("kaggle")(Kaggle())


def submission_ids(path: Path) -> list[str] | None:
    """Ids of the `sample_submission.csv` in a folder, in its order, or None where there is none.

    Args:
        path: The competition's folder, or its label table.

    Raises:
        CohortError: The file is there and has no ids.

    Example:
        >>> import tempfile
        >>> folder = Path(tempfile.mkdtemp())
        >>> _ = (folder / "sample_submission.csv").write_text("id,label\\n007,0\\n")
        >>> submission_ids(folder)
        ['007']
    """
    path = Path(path)
    file = (path.parent if path.is_file() else path) / "sample_submission.csv"
    if not file.is_file():
        return None
    table, _ = read_table(file)
    if "id" not in table:
        raise CohortError("no column 'id'", where=file, expected="columns id,label")
    return [str(identity) for identity in table["id"]]


def _label_tables(folder: Path) -> list[Path]:
    """The label tables of a folder, the one named exactly like the competition's first."""
    found = sorted(folder.glob("*train_labels.csv")) if folder.is_dir() else []
    return sorted((file for file in found if not file.name.startswith(".")), key=lambda file: len(file.name))


def _other_splits(folder: Path) -> list[Path]:
    """Tables of labels of other splits beside that of training, which a competition does not have."""
    names = {file: split_of(file.stem, table=True) for file in folder.glob("*_labels.csv")}
    return [file for file, split in names.items() if split not in (None, "train")]


def _train_rows(table: pd.DataFrame, folder: Path) -> tuple[pd.DataFrame, list[str]]:
    """The rows that have a file in `folder`, with its path, and notes on rows and files that lack the other."""
    listing = list_images(folder)
    files = files_by_id(table["id"].tolist(), folder, listing.images)
    if not any(files):
        found = f"none of the {len(table)} ids has a file: {examples(table, 'id')}"
        raise CohortError(found, where=folder, remedy="unpack the images into it, or correct the ids")
    rows, notes = with_files(table, "id", files, f"{folder.name}/")
    unlisted = sorted(set(absolute_paths(folder, listing.images)) - set(rows["path"]))
    if unlisted:
        example = os.path.basename(unlisted[0])
        notes.append(f"left out {len(unlisted)} files in {folder.name}/ without a row in the table, such as {example}")
    return rows, [*listing.notes(), *notes]


def _test_rows(folder: Path) -> pd.DataFrame:
    images = list_images(folder).images if folder.is_dir() else []
    table = pd.DataFrame({"id": unique_ids(images)[0], "path": absolute_paths(folder, images)}, dtype=object)
    return table.assign(label=pd.array([pd.NA] * len(table), dtype="Int64"), split="test")
