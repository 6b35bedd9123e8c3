"""Images without labels: a folder of them, or one."""

from __future__ import annotations

import os
from pathlib import Path

import pandas as pd

from tumortrace.cohorts.cohort import Cohort, Reading
from tumortrace.cohorts.columns import listed
from tumortrace.cohorts.files import Listing, absolute_paths, has_images, is_image, list_images
from tumortrace.cohorts.layouts import LAYOUTS, Layout
from tumortrace.cohorts.tables import unique_ids
from tumortrace.errors import ImageError, plain
from tumortrace.images.decoding import read_image
from tumortrace.records.user_tables import read_header


class Unlabelled(Layout):
    """Images about which nothing is known."""

    rank = 60
    looks_like = "a folder of images, or one image"
    everything = True

    def recognises(self, path: Path) -> bool:
        """Whether there are images, at any depth, or it is one: by its ending, else by its content."""
        if path.is_dir():
            return has_images(path)
        if not path.is_file() or is_image(path.name):
            return path.is_file()
        try:
            read_image(path)
        except ImageError:
            return False
        return True

    def read(self, path: Path, reading: Reading) -> Cohort:
        """The cohort of these images, without labels."""
        listing = list_images(path) if path.is_dir() else Listing([path.name], [])
        ids, repeats = unique_ids(listing.images)
        paths = absolute_paths(path if path.is_dir() else path.parent, listing.images)
        table = pd.DataFrame({"id": ids, "path": paths}).assign(label=None, group=None, split=None)
        name = os.path.basename(os.path.abspath(path))
        return Cohort(
            name, "unlabelled", table, notes=(*listing.notes(), *repeats, *_passed_over(path, listing.others))
        )


LAYOUTS.register("unlabelled")(Unlabelled())


def _passed_over(path: Path, others: list[str]) -> list[str]:
    """A note on tables beside the images, of which none is taken."""
    tables = [name for name in others if "/" not in name and name.lower().endswith((".csv", ".tsv", ".parquet"))]
    headers = {name: read_header(path / name) for name in tables[:20]}
    labels = [name for name, header in headers.items() if "label" in header]
    if labels:
        return [f"labels in {labels[0]} are not read: name that table instead of its folder"]
    bare = [name for name, header in headers.items() if any(map(is_image, header))]
    if bare:
        return [f"not read: {plain(bare[0])}, which begins without names of its columns: write image,label above"]
    told = [f"{name} (columns {listed(header)})" for name, header in headers.items() if len(header) > 1]
    how = "name the table instead of its folder, with --image-column and --label-column"
    return [f"not read: {'; '.join(told[:3])}; {how}"] if told else []
