"""CAMELYON17 of WILDS: `metadata.csv` and `patches/patient_004_node_4/patch_patient_004_node_4_x_3328_y_21792.png`.

Koh et al., "WILDS: a benchmark of in-the-wild distribution shifts", ICML 2021;
https://github.com/p-lambda/wilds/blob/main/wilds/datasets/camelyon17_dataset.py.
"""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from tumortrace.cohorts.cohort import Cohort, Reading
from tumortrace.cohorts.labels import binary_labels
from tumortrace.cohorts.layouts import LAYOUTS, Layout, Listing
from tumortrace.cohorts.tables import (
    files_by_path,
    read_table,
    standard_columns,
    unique_ids,
    with_files,
)
from tumortrace.errors import CohortError
from tumortrace.records.user_tables import read_header

_COLUMNS = {"patient", "node", "x_coord", "y_coord", "tumor", "center"}
_VALIDATION, _TEST = "1", "2"  # centres, counted from 0 as WILDS does


class WildsCamelyon17(Layout):
    """Patches of five hospitals, divided by hospital."""

    rank = 22
    looks_like = "CAMELYON17 of WILDS (metadata.csv and patches/)"

    def recognises(self, path: Path) -> bool:
        """Whether there is a table of its columns beside `patches`."""
        table = _table(path)
        return (table.parent / "patches").is_dir() and set(read_header(table)) >= _COLUMNS

    def read(self, path: Path, reading: Reading) -> Cohort:
        """The cohort of all rows whose patch is there: groups are patients, splits go by centre."""
        file = _table(path)
        rows, notes = _rows(file)
        files = files_by_path(rows["file"].tolist(), file.parent)
        if not any(files):
            found = f"none of its {len(rows):,} patches is there, such as {rows['file'].iloc[0][:160]}"
            raise CohortError(found, where=file, remedy="unpack the archive whole")
        rows, more = with_files(rows, "file", files, "patches/")
        labels = binary_labels(rows["tumor"].tolist(), positive=reading.positive, merge=reading.merge, where=file)
        ids, _ = unique_ids(rows["file"].tolist())
        known = {_VALIDATION: "validation", _TEST: "test"}
        within = int(((rows["split"] == "1") & ~rows["center"].isin(known)).sum()) if "split" in rows else 0
        table = rows.rename(columns={"patient": "group", "x_coord": "x", "y_coord": "y"}).drop(
            columns=["tumor", "file"]
        )
        table = standard_columns(table.assign(id=ids, split=rows["center"].map(known).fillna("train")), file)
        notes += [
            *more,
            "splits are by centre, as WILDS divides them: validation is centre 1, test is centre 2, the others train; "
            f"its validation within these centres ({within:,} patches of training slides) is part of train",
            *([labels.note] if labels.note else []),
        ]
        return Cohort("camelyon17", "wilds-camelyon17", labels.into(table), notes=tuple(notes), **labels.naming)

    def listing(self, path: Path, reading: Reading) -> Listing:
        """All rows of the table, also those whose patch is missing."""
        file = _table(path)
        rows, _ = _rows(file)
        rows = rows.rename(columns={"tumor": "label"})
        return Listing.of_table(file, rows, "file", files_by_path(rows["file"].tolist(), file.parent))


LAYOUTS.register("wilds-camelyon17")(WildsCamelyon17())


def _table(path: Path) -> Path:
    return path if path.is_file() else path / "metadata.csv"


def _rows(file: Path) -> tuple[pd.DataFrame, list[str]]:
    """The table with the file of each row, as WILDS forms its name; patients are of three digits."""
    rows, notes = read_table(file)
    rows["patient"] = rows["patient"].str.zfill(3)
    names = "patient_" + rows["patient"] + "_node_" + rows["node"]
    rows["file"] = "patches/" + names + "/patch_" + names + "_x_" + rows["x_coord"] + "_y_" + rows["y_coord"] + ".png"
    return rows, [note for note in notes if "without a name" not in note]
