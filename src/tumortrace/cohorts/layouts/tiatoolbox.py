"""Tiles that TIAToolbox wrote: `Output.csv` and `Tile_20_0_512.jpg` in a folder a slide (`WSIReader.save_tiles`)."""

from __future__ import annotations

import os
from pathlib import Path

import pandas as pd

from tumortrace.cohorts.cohort import Cohort, Reading
from tumortrace.cohorts.files import subfolders
from tumortrace.cohorts.labels import binary_labels
from tumortrace.cohorts.layouts import LAYOUTS, Layout, Listing
from tumortrace.cohorts.tables import files_by_path, read_table, standard_columns, with_files
from tumortrace.errors import CohortError
from tumortrace.records.user_tables import read_header

_TABLE = "Output.csv"
_COLUMNS = {"tile_name", "start_w", "end_w", "start_h", "end_h"}


class TiaToolbox(Layout):
    """Tiles of slides with their places."""

    rank = 24
    looks_like = "tiles of TIAToolbox (a folder a slide, with Output.csv and Tile_20_0_512.jpg)"

    def recognises(self, path: Path) -> bool:
        """Whether there is such a table there, or in the folders there."""
        return any(set(read_header(table)) >= _COLUMNS for table in _tables(path)[:3])

    def read(self, path: Path, reading: Reading) -> Cohort:
        """The cohort of all tiles that are there; groups are slides, which the folders are called after."""
        parts: list[pd.DataFrame] = []
        notes: list[str] = []
        for file in _tables(path):
            rows, more = _rows(file)
            rows, missing = with_files(rows, "tile_name", _files(rows, file), f"{file.parent.name}/")
            parts.append(rows)
            notes += [*more, *missing]
        rows = pd.concat(parts, ignore_index=True)
        if rows.empty:
            raise CohortError(f"none of the tiles of {_TABLE} is there", where=path, remedy="copy them beside it")
        rows = standard_columns(rows, path)
        stems = rows["tile_name"].str.replace(r"\.[^.]+$", "", regex=True)
        texts = rows["label"].tolist() if "label" in rows else [""] * len(rows)
        labels = binary_labels(texts, positive=reading.positive, merge=reading.merge, where=path)
        notes += [labels.note] if labels.note else []
        notes.append(f"groups are the folders of tiles: {rows['group'].nunique()} slides; places are of {_TABLE}")
        table = labels.into(rows.assign(id=rows["group"] + "/" + stems).drop(columns="tile_name"))
        name = os.path.basename(os.path.abspath(path))
        return Cohort(name, "tiatoolbox", table, notes=tuple(notes), **labels.naming)

    def listing(self, path: Path, reading: Reading) -> Listing:
        """All rows of one table, also those whose tile is missing; of several, nothing."""
        tables = _tables(path)
        if len(tables) != 1:
            return Listing()
        rows, _ = _rows(tables[0])
        return Listing.of_table(tables[0], rows, "tile_name", _files(rows, tables[0]))


LAYOUTS.register("tiatoolbox")(TiaToolbox())


def _tables(path: Path) -> list[Path]:
    if path.is_file():
        return [path] if path.name == _TABLE else []
    folders = [path, *(path / name for name in subfolders(path))]
    return [folder / _TABLE for folder in folders if (folder / _TABLE).is_file()]


def _rows(table: Path) -> tuple[pd.DataFrame, list[str]]:
    """The table with `x, y, width, height` from where tiles begin and end: its own `size_w` holds the height."""
    rows, notes = read_table(table)
    if not set(rows) >= _COLUMNS:
        raise CohortError(
            f"columns {', '.join(map(str, rows))[:160]}", where=table, expected=", ".join(sorted(_COLUMNS))
        )
    sides = rows[["start_w", "end_w", "start_h", "end_h"]].apply(pd.to_numeric, errors="coerce")
    if sides.isna().any(axis=None):
        raise CohortError("a place that is no number", where=table, remedy="write it anew")
    slide = os.path.basename(os.path.abspath(table.parent))
    return rows[[name for name in rows if name in ("tile_name", "label", "split", "patient")]].assign(
        x=sides["start_w"].astype(str),
        y=sides["start_h"].astype(str),
        width=(sides["end_w"] - sides["start_w"]).astype(str),
        height=(sides["end_h"] - sides["start_h"]).astype(str),
        group=slide,
    ), notes


def _files(rows: pd.DataFrame, table: Path) -> list[str | None]:
    return files_by_path(rows["tile_name"].tolist(), table.parent)
