"""Patches of slides in HDF5, one file a slide, as CLAM and TRIDENT write them: coordinates, perhaps with the pictures.

CLAM (github.com/mahmoodlab/CLAM): `patches/SLIDE.h5` with `coords` (N, 2), px of full resolution, whose attributes are
`patch_size`, `patch_level`, `downsample` and `name`; older ones with `imgs` besides. TRIDENT
(github.com/mahmoodlab/TRIDENT): `20x_256px_0px_overlap/patches/SLIDE_patches.h5` with `patch_size` and
`patch_size_level0`. Without pictures, squares are read from the slides.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import h5py
import numpy as np
import pandas as pd

from tumortrace.cohorts.cohort import Cohort, Reading
from tumortrace.cohorts.labels import binary_labels
from tumortrace.cohorts.layouts import LAYOUTS, Layout
from tumortrace.cohorts.shards import shards_of
from tumortrace.cohorts.tables import read_table
from tumortrace.errors import CohortError, SlideError
from tumortrace.images.readers import open_reader
from tumortrace.images.reference import ImageRef
from tumortrace.records.user_tables import read_header

_NAMES = re.compile(r".+\.(h5|hdf5)", re.IGNORECASE)
_ENDINGS = "svs tif tiff ndpi mrxs scn bif svslide vms vmu czi dcm png"
_FOLDERS = ("", "slides", "wsi", "wsis", "WSI", "data", "raw")  # beside the coordinates or above, where slides are
_ABOVE = 4  # folders above a file of coordinates that are looked into
_LABELS = ("slide_id", "label")


class Patches(NamedTuple):
    """What one file holds.

    Attributes:
        file: The file.
        slide: Name of the slide.
        places: Corners in px of full resolution, int, (N, 2).
        attributes: Of the coordinates, and of the pictures.
        pictures: How many pictures there are besides; 0 where there are none.
        labels: A label for each patch, where the file has some.
    """

    file: Path
    slide: str
    places: np.ndarray
    attributes: Mapping[str, Any]
    pictures: int
    labels: list[str] | None


class SlidePatches(Layout):
    """Coordinates of patches beside slides, or with the pictures."""

    rank = 23
    looks_like = "patches of CLAM or TRIDENT (an HDF5 file of coords a slide, with imgs or beside the slides)"

    def recognises(self, path: Path) -> bool:
        """Whether the first HDF5 file there holds coordinates."""
        files = _files(path)
        if not files:
            return False
        try:
            with h5py.File(files[0], "r") as handle:
                return "coords" in handle
        except OSError:
            return False

    def read(self, path: Path, reading: Reading) -> Cohort:
        """The cohort of all patches of all slides; groups are slides, or cases where a table says them."""
        known, notes = _labels(path)
        tables, resolutions = [], []
        for file in _files(path):
            patches = _patches(file)
            table, resolution = _rows(patches, path)
            row = known.get(patches.slide, {})
            tables.append(table.assign(group=row.get("case_id") or patches.slide, slide=patches.slide))
            if patches.labels is None:
                tables[-1]["label"] = row.get("label", "")
            resolutions.append(resolution)
        rows = pd.concat(tables, ignore_index=True)
        labels = binary_labels(rows["label"].tolist(), positive=reading.positive, merge=reading.merge, where=path)
        notes += [*([labels.note] if labels.note else []), f"groups are slides or cases: {rows['group'].nunique()}"]
        resolution, note = _common(resolutions)
        table = labels.into(rows.assign(split=None))
        name = os.path.basename(os.path.abspath(path))
        return Cohort(name, "slide-patches", table, resolution=resolution, notes=(*notes, *note), **labels.naming)


LAYOUTS.register("slide-patches")(SlidePatches())


def _files(path: Path) -> list[Path]:
    """Files of patches; those of features that were computed on them are passed over."""
    files = shards_of(path, _NAMES, depth=3)
    return [file for file in files if not file.parent.name.lower().startswith(("features", "slide_features"))]


def _patches(file: Path) -> Patches:
    try:
        with h5py.File(file, "r") as handle:
            places = np.asarray(handle["coords"])
            array: Any = handle.get("imgs", handle.get("images"))
            attributes = {**(dict(array.attrs) if array is not None else {}), **dict(handle["coords"].attrs)}
            labels = next((np.asarray(handle[name]) for name in ("labels", "label", "y") if name in handle), None)
            pictures = 0 if array is None else len(array)
    except (OSError, KeyError, AttributeError) as error:
        raise CohortError(f"not an HDF5 file with coords ({error})", where=file, remedy="write it anew") from None
    if places.ndim != 2 or places.shape[1] != 2 or (pictures and pictures != len(places)):
        found = f"coords of shape {places.shape}" + (f" and {pictures:,} pictures" if pictures else "")
        raise CohortError(found, where=file, expected="a corner for each patch: (count, 2)")
    if labels is not None and labels.size != len(places):
        raise CohortError(f"{labels.size:,} labels", where=file, expected=f"{len(places):,}, one for each patch")
    named = attributes.get("name", attributes.get("wsi_name", ""))
    named = named.decode() if isinstance(named, bytes) else str(named)
    slide = named or re.sub(r"_patches$", "", file.stem)
    texts = None if labels is None else [_text(value) for value in labels.reshape(-1)]
    return Patches(file, slide, places.astype(int), attributes, pictures, texts)


def _text(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)


def _rows(patches: Patches, root: Path) -> tuple[pd.DataFrame, float | None]:
    """Id, path, label and place of each patch, and micrometres per pixel where they are known."""
    x, y = patches.places.T
    rows = pd.DataFrame({"id": [f"{patches.slide}_{a}_{b}" for a, b in patches.places], "x": x, "y": y})
    rows["label"] = patches.labels if patches.labels is not None else ""
    if patches.pictures:
        file = str(patches.file.absolute())
        return rows.assign(path=[str(ImageRef(file, str(row))) for row in range(len(rows))]), None
    slide = _slide_file(patches, root)
    try:
        reader = open_reader(slide)
    except SlideError as error:
        raise CohortError(error.found, where=slide, expected=error.expected, remedy=error.remedy) from None
    side, size = _sides(patches, [level.across for level in reader.levels])
    um = None if reader.resolution is None else sum(reader.resolution) / 2 * side / size
    reader.close()
    return rows.assign(path=[str(ImageRef(str(slide), f"{a},{b},{side},{size}")) for a, b in patches.places]), um


def _sides(patches: Patches, downsamples: list[float]) -> tuple[int, int]:
    """Side of a patch in px of full resolution, and in px of its own."""
    stated = {name: int(value) for name, value in patches.attributes.items() if np.size(value) == 1 and _whole(value)}
    size, level = stated.get("patch_size"), stated.get("patch_level", 0)
    if size is None or level >= len(downsamples):
        found = f"patches of {size or 'no stated'} px at level {level}; the slide has {len(downsamples)} levels"
        raise CohortError(found, where=patches.file, expected="attributes patch_size and patch_level of coords")
    return stated.get("patch_size_level0", round(size * downsamples[level])), size


def _whole(value: Any) -> bool:
    try:
        return float(np.asarray(value).reshape(-1)[0]).is_integer()
    except (TypeError, ValueError):
        return False


def _slide_file(patches: Patches, root: Path) -> Path:
    """The slide of coordinates: beside them, above, or in a folder of slides there."""
    home = patches.file.absolute().parent
    places = [place / name for place in [home, *home.parents][: _ABOVE + 1] for name in _FOLDERS]
    for folder in places:
        for ending in (*_ENDINGS.split(), *_ENDINGS.upper().split()):
            if (slide := folder / f"{patches.slide}.{ending}").is_file():
                return slide
    raise CohortError(
        f"coordinates of {len(patches.places):,} patches without pictures, and no slide {patches.slide[:80]!r}",
        where=patches.file,
        expected="the slide beside it, above it, or in a folder slides/ there (.svs, .tif, .ndpi ...)",
        remedy="put or link the slides there",
    )


def _labels(path: Path) -> tuple[dict[str, dict[str, str]], list[str]]:
    """What a table beside the files says of each slide (`slide_id`, `label`, perhaps `case_id`), and a note."""
    folder = path if path.is_dir() else path.parent
    tables = [table for table in sorted(folder.glob("*.csv")) if set(read_header(table)) >= set(_LABELS)]
    if len(tables) != 1:
        return {}, [f"{len(tables)} tables of slide_id and label: none is read"] if tables else []
    rows, notes = read_table(tables[0])
    endings = _ENDINGS.replace(" ", "|")
    rows["slide_id"] = rows["slide_id"].str.replace(rf"\.({endings})$", "", case=False, regex=True)
    notes.append(f"labels are of whole slides, from {tables[0].name}: each patch carries that of its slide")
    return {str(row["slide_id"]): {str(k): str(v) for k, v in row.items()} for row in rows.to_dict("records")}, notes


def _common(resolutions: list[float | None]) -> tuple[float | None, list[str]]:
    """The resolution that all slides share, and what to say where they do not."""
    stated = [resolution for resolution in resolutions if resolution is not None]
    if not stated or len(stated) < len(resolutions):
        return None, []
    if max(stated) / min(stated) < 1.03:
        return round(sum(stated) / len(stated), 4), ["um per pixel is what the slides state"]
    return None, [f"patches of {min(stated):.3g} to {max(stated):.3g} um per pixel: no one resolution"]
