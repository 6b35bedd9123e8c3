"""Class folders: `benign/` and `malignant/`, directly or under `train/`, `valid/`, `test/`."""

from __future__ import annotations

import os
from pathlib import Path

import pandas as pd

from tumortrace.cohorts.cohort import Cohort, Reading
from tumortrace.cohorts.files import SPLIT_NAMES, absolute_paths, list_images, subfolders
from tumortrace.cohorts.labels import binary_labels
from tumortrace.cohorts.layouts import LAYOUTS, Layout, Listing
from tumortrace.cohorts.tables import unique_ids
from tumortrace.errors import CohortError


class ClassFolders(Layout):
    """Images in folders named like their class."""

    rank = 50
    looks_like = "a folder of two class folders (benign/ malignant/), or of these in train/ valid/ test/"
    everything = True

    def recognises(self, path: Path) -> bool:
        """Whether there are at least two folders side by side, or folders within split folders."""
        folders = subfolders(path)
        if any(folder.lower() in SPLIT_NAMES and subfolders(path / folder) for folder in folders):
            return True
        classes = [folder for folder in folders if folder.lower() not in SPLIT_NAMES]
        return len(classes) >= 2

    def read(self, path: Path, reading: Reading) -> Cohort:
        """The cohort of all images in class folders; of a split folder's own images, the class is not known."""
        listing = list_images(path)
        rows = _rows(listing.images)
        if not rows:
            raise CohortError("no images in its folders", where=path, expected="images such as .png, .jpg or .tif")
        images, splits, names = (list(column) for column in zip(*rows, strict=True))
        if reading.label_from_name is not None:
            names = [""] * len(images)
        labels = binary_labels(names, positive=reading.positive, merge=reading.merge, where=path)
        ids, repeats = unique_ids(images)
        table = pd.DataFrame({"id": ids, "path": absolute_paths(path, images)})
        table = labels.into(table).assign(group=None, split=splits)
        notes = [*listing.notes(), *([labels.note] if labels.note else []), *repeats]
        if strays := sorted(set(listing.images) - set(images)):
            notes.append(f"left out {len(strays)} images outside the class folders, such as {strays[0]}")
        name = os.path.basename(os.path.abspath(path))
        return Cohort(name, "class-folders", table, notes=tuple(notes), **labels.naming)

    def listing(self, path: Path) -> Listing:
        """No rows, and the images outside the class folders."""
        images = list_images(path).images
        placed = {image for image, _, _ in _rows(images)}
        return Listing(strays=tuple(absolute_paths(path, [image for image in images if image not in placed])))


LAYOUTS.register("class-folders")(ClassFolders())


def _rows(images: list[str]) -> list[tuple[str, str | None, str]]:
    """Image, split and class folder (blank where there is none) of each image that lies in such a folder."""
    parts = [image.split("/") for image in images]
    split = [SPLIT_NAMES.get(part[0].lower()) if len(part) > 1 else None for part in parts]
    if any(split):
        rows = zip(images, split, parts, strict=True)
        return [(image, name, part[1] if len(part) > 2 else "") for image, name, part in rows if name]
    return [(image, None, part[0]) for image, part in zip(images, parts, strict=True) if len(part) > 1]
