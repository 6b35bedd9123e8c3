"""MHIST: `annotations.csv` and `images/`, colorectal polyps (Wei et al., AIME 2021; bmirds.github.io/MHIST)."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from tumortrace.cohorts.cohort import Cohort, Reading
from tumortrace.cohorts.files import list_images
from tumortrace.cohorts.labels import binary_labels
from tumortrace.cohorts.layouts import LAYOUTS, Layout, Listing
from tumortrace.cohorts.tables import files_by_id, read_table, standard_columns, unique_ids, with_files
from tumortrace.errors import CohortError
from tumortrace.records.user_tables import read_header

_COLUMNS = {"image name": "image", "majority vote label": "label", "partition": "split"}
_VOTES = "number of annotators who selected ssa (out of 7)"


class Mhist(Layout):
    """Images with the label that most of seven pathologists gave: HP (benign) or SSA (precancerous)."""

    rank = 32
    looks_like = "MHIST (annotations.csv with Majority Vote Label, and images/)"

    def recognises(self, path: Path) -> bool:
        """Whether it is a table of its columns, or a folder with one."""
        return set(read_header(_table(path))) >= set(_COLUMNS)

    def read(self, path: Path, reading: Reading) -> Cohort:
        """The cohort of all rows whose image is there; SSA is positive where nothing else is said."""
        file = _table(path)
        rows, notes = read_table(file)
        rows = rows.rename(columns=_COLUMNS).rename(columns={_VOTES: "votes"})
        files = _files(rows, file)
        if not any(files):
            found = f"none of its {len(rows):,} images is there, such as {rows['image'].iloc[0][:160]}"
            raise CohortError(found, where=file, expected="images/ beside it", remedy="unpack images.zip")
        rows, more = with_files(standard_columns(rows, file), "image", files, "images/")
        ids, repeats = unique_ids(rows["image"].tolist())
        texts, positive = rows["label"].tolist(), reading.positive or "SSA"
        labels = binary_labels(texts, positive=positive, merge=reading.merge, where=file)
        notes += [*more, *repeats, *([labels.note] if labels.note else []), "MHIST does not say the patient"]
        return Cohort(
            "mhist",
            "mhist",
            labels.into(rows.drop(columns="image").assign(id=ids)),
            notes=tuple(notes),
            **labels.naming,
        )

    def listing(self, path: Path, reading: Reading) -> Listing:
        """All rows of the table, and the images that none names."""
        file = _table(path)
        rows = read_table(file, keep_repeats=True)[0].rename(columns=_COLUMNS)
        return Listing.of_table(file, rows, "image", _files(rows, file))


LAYOUTS.register("mhist")(Mhist())


def _table(path: Path) -> Path:
    return path if path.is_file() else path / "annotations.csv"


def _files(rows: pd.DataFrame, file: Path) -> list[str | None]:
    folder = file.parent / "images"
    folder = folder if folder.is_dir() else file.parent
    return files_by_id(rows["image"].tolist(), folder, list_images(folder).images)
