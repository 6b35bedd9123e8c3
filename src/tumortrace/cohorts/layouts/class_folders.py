"""Class folders: `benign/` and `malignant/`, with split folders and folders of patients above or below them."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import pandas as pd

from tumortrace.cohorts.cohort import Cohort, Reading
from tumortrace.cohorts.columns import image_column_of, listed
from tumortrace.cohorts.files import absolute_paths, list_images, only_folder, subfolders
from tumortrace.cohorts.labels import Labels, binary_labels
from tumortrace.cohorts.layouts import LAYOUTS, Layout, Listing
from tumortrace.cohorts.levels import levels_told
from tumortrace.cohorts.names import is_clutter, like_a_split, split_of
from tumortrace.cohorts.tables import find_files, read_table, standard_columns, unique_ids
from tumortrace.errors import CohortError, plain
from tumortrace.records.user_tables import read_header

_DEEP = 3  # folders below which class folders are looked for, to name them in a message


class ClassFolders(Layout):
    """Images in folders named like their class."""

    rank = 50
    looks_like = "a folder of two class folders (benign/ malignant/), or of these in train/ valid/ test/"
    everything = True

    def recognises(self, path: Path) -> bool:
        """Whether there are at least two folders side by side, or folders within split folders."""
        folders = subfolders(path)
        if any(split_of(folder) and subfolders(path / folder) for folder in folders):
            return True
        return len([folder for folder in folders if not split_of(folder)]) >= 2

    def read(self, path: Path, reading: Reading) -> Cohort:
        """The cohort of all images in class folders; of a split folder's own images, the class is not known."""
        listing = list_images(path)
        rows = placed_images(listing.images, path)
        if not rows:
            raise CohortError("no images in its folders", where=path, expected="images such as .png, .jpg or .tif")
        labels, notes = _labels(rows, path, reading)
        images = [row.image for row in rows]
        ids, repeats = unique_ids(images)
        table = pd.DataFrame({"id": ids, "path": absolute_paths(path, images)})
        splits = pd.Series([row.split for row in rows], dtype="string")
        table = labels.into(table).assign(group=None, split=splits)
        table, joined = _joined(table, path)
        notes = [*listing.notes(), *notes, *([labels.note] if labels.note else []), *repeats, *joined]
        if strays := sorted(set(listing.images) - set(images)):
            notes.append(f"left out {len(strays):,} images outside the class folders, such as {plain(strays[0])}")
        name = os.path.basename(os.path.abspath(path))
        return Cohort(name, "class-folders", table, notes=tuple(notes), **labels.naming)

    def listing(self, path: Path, reading: Reading) -> Listing:
        """No rows, and the images outside the class folders."""
        images = list_images(path).images
        placed = {row.image for row in placed_images(images, path)}
        return Listing(strays=tuple(absolute_paths(path, [image for image in images if image not in placed])))


LAYOUTS.register("class-folders")(ClassFolders())


def holds_classes(folder: Path) -> bool:
    """Whether folders of classes are there: in the folder, in split folders, in folders of patients, or deeper.

    Deeper is only where each folder on the way is the only one.
    """
    folders = subfolders(folder)
    if any(split_of(name) and subfolders(folder / name) for name in folders) or _are_classes(folders):
        return True
    within = {name for parent in folders[:50] for name in subfolders(folder / parent)}
    if len(folders) > 1 and _are_classes(sorted(within)):
        return True
    only = only_folder(folder)
    return only is not None and holds_classes(only)


class Placed(NamedTuple):
    """An image by its path below the data, its split, and the folders above it that are no split."""

    image: str
    split: str | None
    folders: tuple[str, ...]


def placed_images(images: Sequence[str], path: Path) -> list[Placed]:
    """The images that lie in folders, with split folders at the first level, or at the second where it has several."""
    parts = [(image, image.split("/")[:-1]) for image in images]
    first = {folders[0] for _, folders in parts if folders}
    second = {folders[1] for _, folders in parts if len(folders) > 1}
    if any(map(split_of, first)):
        _refuse_lost(parts, path)
        rows = [Placed(image, split_of(folders[0]), tuple(folders[1:])) for image, folders in parts if folders]
        return [row for row in rows if row.split]
    if len({split_of(name) for name in second} - {None}) > 1:
        if unknown := sorted(name for name in second if not split_of(name)):
            raise _unknown_split(unknown, sorted(second - set(unknown)), path)
        rows = []
        for image, folders in parts:
            split = split_of(folders[1]) if len(folders) > 1 else None
            rows.append(Placed(image, split, (*folders[:1], *folders[2:])))
        return [row for row in rows if row.folders]
    return [Placed(image, None, tuple(folders)) for image, folders in parts if folders]


def _refuse_lost(parts: Sequence[tuple[str, list[str]]], path: Path) -> None:
    """Raise CohortError where a folder beside split folders is like one of them, and none that is known."""
    known = sorted({folders[0] for _, folders in parts if folders and split_of(folders[0])})
    classes = {folders[1] for _, folders in parts if len(folders) > 1 and folders[0] in known}
    others: dict[str, set[str]] = {}
    for _, folders in parts:
        if folders and folders[0] not in known:
            others.setdefault(folders[0], set()).update(folders[1:2])
    lost = sorted(name for name, within in others.items() if like_a_split(name) or within & classes)
    if lost:
        raise _unknown_split(lost, known, path)


def _unknown_split(lost: Sequence[str], known: Sequence[str], path: Path) -> CohortError:
    folders = "/, ".join(map(plain, lost[:5])) + "/" + (", ..." if len(lost) > 5 else "")
    return CohortError(
        f"{folders} beside {'/, '.join(map(plain, known[:5]))}/: which split it is is not known",
        where=path,
        expected="folders named train, validation, calibration or test",
        remedy="rename it, or move it out of the data",
    )


def _labels(rows: Sequence[Placed], path: Path, reading: Reading) -> tuple[Labels, list[str]]:
    """Labels by the first level of folders that names two classes, and notes.

    Raises:
        CohortError: None does; the message lists the levels, and the folders further down that hold classes.
    """
    if reading.label_from_name is not None:
        return binary_labels([""] * len(rows)), []
    refusal = None
    placed = [row for row in rows if row.folders or row.split is None]
    for level in range(max(len(row.folders) for row in rows) or 1):
        names = [row.folders[level] if len(row.folders) > level else "" for row in rows]
        if level and not all(len(row.folders) > level for row in placed):
            break
        try:
            labels = binary_labels(names, positive=reading.positive, merge=reading.merge, where=path)
        except CohortError as error:
            refusal = refusal or error
            continue
        classes = " and ".join(labels.classes)
        above = sorted({row.folders[level - 1] for row in placed}) if level else []
        return labels, [f"classes are the folders {classes}, below those of {listed(above[:3])} ..."] if level else []
    assert refusal is not None  # as no level was taken
    raise _with_levels(refusal, rows, path)


def _joined(table: pd.DataFrame, path: Path) -> tuple[pd.DataFrame, list[str]]:
    """The images with what the one table beside the folders says of them besides, such as their patients, and notes."""
    names = [name for name in sorted(os.listdir(path)) if name.lower().endswith((".csv", ".tsv", ".parquet"))]
    named = {name: image_column_of(read_header(path / name), ids=False) for name in names if not is_clutter(name)}
    about = {name: column for name, column in named.items() if column}
    if len(about) != 1:
        return table, [f"not read: the tables {listed(list(about))}"] if about else []
    ((name, column),) = about.items()
    try:
        rows = standard_columns(read_table(path / name)[0], path / name)
    except CohortError as error:
        return table, [f"not read: {name} ({error.found})"]
    files = pd.Series(find_files(rows[column].tolist(), column, path / name)[0], rows.index, dtype=object)
    rows = rows.assign(path=files)
    rows = rows[rows["path"].isin(table["path"])].set_index("path")
    if rows.empty or rows.index.has_duplicates:
        why = "it names none of the images" if rows.empty else "it has several rows for an image"
        return table, [f"not read: {name}, as {why}"]
    own = [str(key) for key in rows if key not in ("id", "label", column) and rows[key].notna().any()]
    own = [key for key in own if key not in table or table[key].isna().all()]
    table = table.assign(**{key: table["path"].map(rows[key]) for key in own})
    return table, [f"{name} holds no labels, but says of {len(rows):,} images their {listed(own)}"] if own else []


def _with_levels(refusal: CohortError, rows: Sequence[Placed], path: Path) -> CohortError:
    """The refusal with what there is, so that the next call can be right."""
    deeper = _deeper(path, _DEEP)
    headers = {file: read_header(file) for file in sorted(path.glob("*/*.csv"))[:20]}
    tables = [file for file, header in headers.items() if image_column_of(header) and "label" in header]
    if tables:
        remedy = f"name the table: {tables[0]}"
    elif deeper:
        remedy = f"name the folder that holds the classes: {', '.join(map(str, deeper[:3]))}"
    else:
        remedy = f"{refusal.remedy}; or say --label-from-name PATTERN, which is held against each path from the data on"
    told = CohortError(
        f"{refusal.found} as folders; {levels_told([row.image for row in rows])}",
        where=path,
        expected=refusal.expected,
        remedy=remedy,
    )
    told.classes = refusal.classes
    return told


def _deeper(folder: Path, depth: int) -> list[Path]:
    """Folders below that hold class folders by name, the nearest first."""
    inner = [folder / name for name in subfolders(folder)[:20]]
    there = [place for place in inner if _are_classes(subfolders(place))]
    return there or ([found for place in inner for found in _deeper(place, depth - 1)] if depth > 1 else [])


def _are_classes(names: Sequence[str]) -> bool:
    try:
        return len(names) > 1 and bool(binary_labels(names).classes)
    except CohortError:
        return False
