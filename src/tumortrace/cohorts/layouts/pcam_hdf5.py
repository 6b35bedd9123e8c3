"""PatchCamelyon as published: `camelyonpatch_level_2_split_{train,valid,test}_{x,y}.h5`, also with `.gz`.

Veeling et al., "Rotation equivariant CNNs for digital pathology", MICCAI 2018.
"""

from __future__ import annotations

import gzip
import os
import re
import shutil
from pathlib import Path
from typing import BinaryIO

import h5py
import numpy as np
import pandas as pd

from tumortrace.cohorts.cache import unpacked
from tumortrace.cohorts.cohort import Cohort, Reading
from tumortrace.cohorts.labels import refuse_options
from tumortrace.cohorts.layouts import LAYOUTS, Layout
from tumortrace.cohorts.names import SPLIT_NAMES
from tumortrace.cohorts.tables import read_table, standard_columns
from tumortrace.errors import CohortError
from tumortrace.records.progress import progress_bar
from tumortrace.records.remote import cache_folder

RESOLUTION = 0.97
"""Micrometres per pixel."""

_IMAGES = re.compile(r"(?P<stem>.+)_x\.(h5|hdf5)(\.gz)?$")
_SPLIT = re.compile(r"split_(train|valid|test)$")


class PcamHdf5(Layout):
    """Arrays of images and of labels, one pair a split."""

    rank = 20
    looks_like = "PatchCamelyon's HDF5 files (camelyonpatch_level_2_split_train_x.h5, ..._y.h5)"

    def recognises(self, path: Path) -> bool:
        """Whether it is an HDF5 file of images (`*_x.h5`), or a folder with PatchCamelyon's."""
        if path.is_file():
            return _IMAGES.match(path.name) is not None
        return bool(_image_files(_home(path)))

    def read(self, path: Path, reading: Reading) -> Cohort:
        """The cohort of all rows of these arrays, in the order train, validation, test."""
        files = [path] if path.is_file() else _image_files(_home(path))
        notes: list[str] = []
        tables = [_open_split(file, notes) for file in files]
        table = pd.concat([table.astype(object) for table in tables], ignore_index=True)
        classes = ("0", "1")
        refuse_options(reading.positive, reading.merge, classes, path)
        return Cohort(path.name, "pcam-hdf5", table, classes, RESOLUTION, tuple(notes))


LAYOUTS.register("pcam-hdf5")(PcamHdf5())


def _home(folder: Path) -> Path:
    """The folder of the files: that one, or its `pcam`, where torchvision puts them (`torchvision.datasets.PCAM`)."""
    return folder if _image_files(folder) or not (folder / "pcam").is_dir() else folder / "pcam"


def _image_files(folder: Path) -> list[Path]:
    """One file of images per split; where it is there packed and unpacked, the unpacked one."""
    found: dict[str, Path] = {}
    for file in sorted(folder.glob("camelyonpatch_level_2_split_*_x.h5*"), reverse=True):
        if match := _IMAGES.match(file.name):
            found[match["stem"]] = file
    order = ["train", "valid", "test"]
    split = {stem: match[1] for stem in found if (match := _SPLIT.search(stem))}
    return [found[stem] for stem in sorted(split, key=lambda stem: order.index(split[stem]))]


def _open_split(file: Path, notes: list[str]) -> pd.DataFrame:
    match = _IMAGES.match(file.name)
    assert match is not None  # as `recognises` has found
    stem = match["stem"]
    named = _SPLIT.search(stem)
    split = SPLIT_NAMES[named[1]] if named else None
    images = _unpacked(file)
    count = _count_images(images, file)
    ids = [f"{split or stem}-{row:07d}" for row in range(count)]
    root = os.path.abspath(images)
    table = pd.DataFrame({"id": ids, "path": [f"{root}::{row}" for row in range(count)], "split": split})
    table["label"] = _labels(file, stem, count, notes)
    table = table.assign(group=None)
    meta = file.with_name(f"{stem}_meta.csv")
    if not meta.is_file():
        notes.append(f"no {meta.name}: the slides of its patches are not known")
        return table
    rows, more = read_table(meta, keep_repeats=True)
    if len(rows) != count or "wsi" not in rows:
        found = f"{len(rows)} rows with columns {', '.join(map(str, rows.columns))}"
        raise CohortError(found, where=meta, expected=f"{count} rows, as in {file.name}, with a column wsi")
    notes += more
    rows = standard_columns(rows.rename(columns={"coord_x": "x", "coord_y": "y"}), meta)
    return table.assign(**{name: rows[name].to_numpy() for name in ("x", "y", "wsi") if name in rows})


def _count_images(images: Path, file: Path) -> int:
    try:
        with h5py.File(images, "r") as handle:
            array = handle["x"]
            if array.ndim != 4 or array.shape[3] != 3 or array.dtype != np.uint8:
                found = f"array x of {array.dtype}, shape {array.shape}"
                raise CohortError(found, where=file, expected="uint8 of shape (count, height, width, 3)")
            return len(array)
    except (OSError, KeyError, AttributeError) as error:
        raise CohortError(
            f"not an HDF5 file with an array x ({error})", where=file, remedy="download it again"
        ) from None


def _labels(file: Path, stem: str, count: int, notes: list[str]) -> np.ndarray | None:
    packed = [file.with_name(f"{stem}_y{ending}") for ending in (".h5", ".hdf5", ".h5.gz", ".hdf5.gz")]
    source = next((candidate for candidate in packed if candidate.is_file()), None)
    if source is None:
        notes.append(f"no {packed[0].name}: its patches are unlabelled")
        return None
    try:
        with h5py.File(_unpacked(source), "r") as handle:
            labels = np.asarray(handle["y"]).reshape(-1)
    except (OSError, KeyError) as error:
        found = f"not an HDF5 file with an array y ({error})"
        raise CohortError(found, where=source, remedy="download it again") from None
    if len(labels) != count or not np.isin(labels, (0, 1)).all():
        found = f"{len(labels)} labels from {labels.min(initial=0)} to {labels.max(initial=0)}"
        raise CohortError(found, where=source, expected=f"{count} labels 0 or 1, as {file.name} has images")
    return labels.astype(np.int64)


def _unpacked(file: Path) -> Path:
    """The file itself, or its unpacked copy in the cache, which is made when first asked for."""
    if file.suffix != ".gz":
        return file

    def write(copy: BinaryIO) -> None:
        with (
            progress_bar() as bar,
            bar.open(file, "rb", description=f"unpacking {file.name}") as packed,
            gzip.open(packed) as source,
        ):
            shutil.copyfileobj(source, copy, 1 << 22)

    try:
        return unpacked(file, file.stem, write)
    except (EOFError, gzip.BadGzipFile, OSError) as error:
        found = f"cannot be unpacked into {cache_folder()} ({error})"
        raise CohortError(
            found, where=file, remedy="download it again, or set TUMORTRACE_CACHE to a larger disk"
        ) from None
