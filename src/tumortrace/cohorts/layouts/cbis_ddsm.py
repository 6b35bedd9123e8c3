"""CBIS-DDSM by its tables: `mass_case_description_train_set.csv` and its like, cropped lesions as PNG or JPEG.

Lee et al., Scientific Data, 2017; www.cancerimagingarchive.net/collection/cbis-ddsm. Pictures lie under the tables' own
paths with another ending, or as the edition in JPEG has them: `csv/dicom_info.csv` says where each one is.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

import pandas as pd

from tumortrace.cohorts.cohort import Cohort, Reading
from tumortrace.cohorts.labels import binary_labels
from tumortrace.cohorts.layouts import LAYOUTS, Layout
from tumortrace.cohorts.tables import files_by_path, read_table, standard_columns, unique_ids, with_files
from tumortrace.errors import CohortError
from tumortrace.records.user_tables import read_header

_NAME = re.compile(r"(mass|calc)_case_description_(train|test)_set\.csv", re.IGNORECASE)
_CROPPED, _WHERE = "cropped image file path", "dicom_info.csv"
_COLUMNS = {"patient_id", "pathology", _CROPPED}
_ENDINGS = (".png", ".jpg", ".jpeg")


class CbisDdsm(Layout):
    """Cropped lesions of mammograms: benign, benign without callback, malignant."""

    rank = 33
    looks_like = "CBIS-DDSM (mass_case_description_train_set.csv, with cropped images as PNG or JPEG)"

    def recognises(self, path: Path) -> bool:
        """Whether it is one of its tables, or a folder with some, in `csv` or not."""
        tables = _tables(path)
        return bool(tables) and set(read_header(tables[0])) >= _COLUMNS

    def read(self, path: Path, reading: Reading) -> Cohort:
        """The rows whose cropped image is there; MALIGNANT is positive where nothing else is said."""
        tables = _tables(path)
        root = tables[0].parent.parent if tables[0].parent.name.lower() == "csv" else tables[0].parent
        rows = pd.concat([_rows(table) for table in tables], ignore_index=True)
        files = _pictures(rows["cropped"].tolist(), tables[0].with_name(_WHERE), root)
        if not any(files):
            found = f"none of the {len(rows):,} cropped images is there as PNG or JPEG"
            remedy = f"convert {rows['cropped'].iloc[0][:120]} and the others beside themselves, or add csv/{_WHERE}"
            raise CohortError(found, where=root, remedy=remedy)
        rows, notes = with_files(standard_columns(rows, tables[0]), "cropped", files, str(root))
        positive = reading.positive or (None if reading.merge else "MALIGNANT")
        labels = binary_labels(rows["label"].tolist(), positive=positive, merge=reading.merge, where=root)
        first = [name.split("/")[0] for name in rows["cropped"]]
        ids = first if len(set(first)) == len(first) else unique_ids(rows["cropped"].tolist())[0]
        notes += [f"{len(tables)} of its tables", *([labels.note] if labels.note else []), "groups are patients"]
        table = labels.into(rows.drop(columns="cropped").assign(id=ids))
        return Cohort("cbis-ddsm", "cbis-ddsm", table, notes=tuple(notes), **labels.naming)


LAYOUTS.register("cbis-ddsm")(CbisDdsm())


def _tables(path: Path) -> list[Path]:
    if path.is_file():
        return [path] if _NAME.fullmatch(path.name) else []
    folders = [folder for folder in (path, path / "csv") if folder.is_dir()]
    return [file for folder in folders for file in sorted(folder.glob("*.csv")) if _NAME.fullmatch(file.name)]


def _rows(table: Path) -> pd.DataFrame:
    """`cropped` (path as the table has it), `label`, `group`, `split`, `lesion`, `side`, `view` of each row."""
    match = _NAME.fullmatch(table.name)
    assert match is not None
    rows = read_table(table)[0]
    missing = sorted(_COLUMNS - set(rows))
    if missing:
        raise CohortError(f"no column {missing[0]!r}", where=table, expected=", ".join(sorted(_COLUMNS)))
    kept = {"cropped": rows[_CROPPED].str.strip(), "label": rows["pathology"], "group": rows["patient_id"]}
    others = {"left or right breast": "side", "image view": "view"}
    kept |= {name: rows[column] for column, name in others.items() if column in rows}
    return pd.DataFrame(kept).assign(lesion=match[1].lower(), split="train" if match[2].lower() == "train" else "test")


def _pictures(cropped: Sequence[str], index: Path, root: Path) -> list[str | None]:
    """The picture of each cropped lesion; the edition in JPEG keeps it beside its mask, which its index tells apart."""
    if index.is_file():
        listed = read_table(index)[0]
        crops = listed[listed["seriesdescription"].str.strip().str.lower() == "cropped images"]["image_path"]
        paths = {PurePosixPath(text).parent.name: text.removeprefix("CBIS-DDSM/") for text in crops}
        return files_by_path([paths.get(PurePosixPath(text).parent.name, "none") for text in cropped], root)
    tried = [files_by_path([str(PurePosixPath(text).with_suffix(end)) for text in cropped], root) for end in _ENDINGS]
    return [next((file for file in files if file is not None), None) for files in zip(*tried, strict=True)]
