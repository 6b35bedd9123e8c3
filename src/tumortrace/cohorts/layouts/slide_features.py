"""Features of slides, one HDF5 file each, as `tumortrace embed-slides`, CLAM, TRIDENT and STAMP write them.

Labels, patients and splits come from a table beside the files, or from the table that is named: a row a slide, which a
column `slide`, `slide_id`, `filename` or the like names with or without its ending.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

import pandas as pd

from tumortrace.cohorts.bags import refuse_mixed
from tumortrace.cohorts.cohort import BAGS, TAUGHT, Cohort, Reading
from tumortrace.cohorts.columns import listed, with_label
from tumortrace.cohorts.feature_files import FeatureFile, holds_features
from tumortrace.cohorts.labels import binary_labels
from tumortrace.cohorts.layouts import LAYOUTS, Layout
from tumortrace.cohorts.resolution import common
from tumortrace.cohorts.shards import shards_of
from tumortrace.cohorts.tables import read_table, refuse_repeats, standard_columns
from tumortrace.errors import CohortError, shown
from tumortrace.records.user_tables import read_header

_NAMES = re.compile(r".+\.(h5|hdf5)", re.IGNORECASE)
_ENDING = re.compile(r"\.(h5|hdf5|pt|svs|tiff?|ndpi|mrxs|scn|bif|svslide|vms|vmu|czi|dcm|png|jpe?g)$", re.IGNORECASE)
_SLIDE = re.compile(r"(slide|wsi|image|file)s?_?(id|name|path|file)?|path|id", re.IGNORECASE)
_USUAL = "slides.csv"


class SlideFeatures(Layout):
    """A bag of features for each slide."""

    rank = 21
    looks_like = (
        "features of slides (an HDF5 file of features and coords a slide, of embed-slides, CLAM, TRIDENT, STAMP)"
    )
    columns = ("label_column", "image_column")

    def recognises(self, path: Path) -> bool:
        """Whether the first HDF5 file there holds features of tiles; of a table, whether they lie beside it."""
        if _is_table(path):
            return bool(_slide_columns(path)) and bool(_files(path.parent)) and bool(_named(path))
        files = _files(path)
        return bool(files)

    def read(self, path: Path, reading: Reading) -> Cohort:
        """The cohort of the slides that have features; groups are patients or cases where the table names them."""
        folder = path if path.is_dir() else path.parent
        files = _by_name(_files(path if not _is_table(path) else folder))
        table = path if _is_table(path) else _table_in(folder)
        rows, notes = (pd.DataFrame({"slide": list(files)}), []) if table is None else _rows(table, files, reading)
        texts = _texts(rows)
        there = rows["slide"].isin(list(files)).to_numpy()
        one_class = texts[there & (texts != "")].nunique() < 2  # the others say what it is apart from
        asked = (texts if one_class else texts[there]).tolist()
        labels = binary_labels(asked, positive=reading.positive, merge=reading.merge, where=table or path)
        if one_class:
            labels = labels._replace(
                numbers=labels.numbers[there], texts=None if labels.texts is None else labels.texts[there]
            )
        rows = rows[there].reset_index(drop=True)
        read = {name: FeatureFile.read(files[name]) for name in rows["slide"]}
        refuse_mixed(list(read.values()))
        known = rows.drop(columns=["id", "label", "path"], errors="ignore")
        paths = [str(read[name].file.absolute()) for name in rows["slide"]]
        whole = standard_columns(known, table).assign(
            id=rows["slide"].to_numpy(), path=paths, tiles=[read[name].tiles for name in rows["slide"]]
        )
        taught = [bool(read[name].about.get(TAUGHT)) for name in rows["slide"]]
        if any(taught):
            whole = whole.assign(**{TAUGHT: taught})
            notes.append(
                f"warning: the body has learnt from patches of {sum(taught)} of these {len(taught)} slides, or of "
                "their patients: what is measured on them is too good"
            )
        first = next(iter(read.values()))
        told = f"features of {first.body or 'a body that the files do not state'}, {first.width:,} numbers a tile"
        notes = [told, *notes, *([labels.note] if labels.note else [])]
        stated = [file.resolution for file in read.values() if file.resolution]
        resolution = common(pd.Series(stated).to_numpy(float)) if len(stated) == len(read) else None
        steps = {"body": first.body, "weights": first.weights[:12], "numbers": first.width}
        name = path.stem if _is_table(path) else os.path.basename(os.path.abspath(path))
        return Cohort(
            name,
            BAGS,
            labels.into(whole),
            resolution=resolution,
            notes=tuple(notes),
            preparation={"preprocessing": steps},
            **labels.naming,
        )


LAYOUTS.register(BAGS)(SlideFeatures())


def _texts(rows: pd.DataFrame) -> pd.Series:
    """The label of each row, blank where there is none."""
    return rows["label"].fillna("") if "label" in rows else pd.Series("", index=rows.index)


def _is_table(path: Path) -> bool:
    return path.is_file() and path.suffix.lower() in (".csv", ".tsv", ".parquet")


def _files(path: Path) -> list[Path]:
    """Files of features; where the first is none, there are none."""
    files = shards_of(path, _NAMES, depth=3)
    features = [file for file in files if file.parent.name.lower().startswith(("features", "h5_files"))]
    files = features or files  # beside coordinates alone, as TRIDENT keeps them
    return files if files and holds_features(files[0]) else []


def _by_name(files: list[Path]) -> dict[str, Path]:
    """Files by the name of their slide.

    Raises:
        CohortError: Two are of one slide.
    """
    known: dict[str, Path] = {}
    for file in files:
        if (other := known.setdefault(file.stem, file)) != file:
            raise CohortError(
                f"two files of features of slide {shown(file.stem)}: {other} and {file}",
                where=file.parent,
                expected="one for each slide",
                remedy="name a folder of one body's features",
            )
    return known


def _stem(text: str) -> str:
    """A slide's name, of its path or file."""
    return _ENDING.sub("", text.strip().replace("\\", "/").rpartition("/")[2])


def _slide_columns(table: Path) -> list[str]:
    return [name for name in read_header(table) if _SLIDE.fullmatch(name)]


def _named(table: Path) -> str | None:
    """The column that names most of the slides whose features lie beside a table; None where none names any."""
    try:
        rows, _ = read_table(table)
    except CohortError:
        return None
    return _best(rows, _by_name(_files(table.parent)))


def _best(rows: pd.DataFrame, files: dict[str, Path]) -> str | None:
    counts = {
        str(name): int(rows[name].map(_stem).isin(list(files)).sum()) for name in rows if _SLIDE.fullmatch(str(name))
    }
    best = max(counts, key=lambda name: counts[name], default=None)
    return best if best and counts[best] else None


def _table_in(folder: Path) -> Path | None:
    """The table of the slides in a folder, or above one of `h5_files`: slides.csv, or the only one that names them."""
    for home in (folder, folder.parent) if folder.name.lower().startswith(("features", "h5_files")) else (folder,):
        if (usual := home / _USUAL).is_file():
            return usual
        tables = [
            table for table in sorted(home.glob("*.csv")) if "label" in read_header(table) and _slide_columns(table)
        ]
        if len(tables) > 1:
            names = ", ".join(table.name for table in tables[:3])
            raise CohortError(f"several tables of slides: {names}", where=home, remedy="name the one that holds")
        if tables:
            return tables[0]
    return None


def _rows(table: Path, files: dict[str, Path], reading: Reading) -> tuple[pd.DataFrame, list[str]]:
    """The table's rows, of slides with features and others, with `slide` their names and `label` as text, and notes."""
    rows, notes = read_table(table)
    column = reading.image_column or _best(rows, files)
    if column not in rows:
        raise CohortError(
            f"columns {listed(list(rows.columns))}, of which none names the slides that have features",
            where=table,
            expected=f"a column slide with names such as {shown(next(iter(files)))}",
            remedy="name it with --image-column",
        )
    rows, told = with_label(rows, table, reading.label_column)
    rows = rows.assign(slide=rows[column].map(_stem))
    refuse_repeats(rows, "slide", table)
    there = rows["slide"].isin(list(files))
    notes += [f"slides, labels and patients are from {table.name}", *told]
    if (~there).any():
        first = ", ".join(rows.loc[~there, "slide"].head(3))
        notes.append(
            f"warning: {int((~there).sum())} of its {len(rows)} slides have no features and are left out: {first}"
        )
    if unnamed := len(files) - int(there.sum()):
        notes.append(f"{unnamed} files of features are of slides that it does not name, and are left out")
    return rows, notes
