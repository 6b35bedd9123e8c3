"""`slides.csv`: one row for each slide of a call, written whole after each of them."""

from __future__ import annotations

import os
from dataclasses import asdict, dataclass
from pathlib import Path

import pandas as pd

from tumortrace.errors import RunError
from tumortrace.records.scans import ScanRecord
from tumortrace.records.tables import SCANNED, read_table
from tumortrace.reports.page import REPORT
from tumortrace.reports.slides import write_slides_report
from tumortrace.slides.cohort import SlideEntry
from tumortrace.slides.result import ScanResult


@dataclass(frozen=True)
class SlideRow:
    """A row of `slides.csv`; what is not known is None, areas are in mm², shares in [0, 1].

    Attributes:
        status: `ok` or `failed`, with the `reason`.
        score: Of the slide, as `scan.json` defines it; `tumour_mm2` and `tumour_share` are of the tissue.
        referred_share: Of the tiles, those that the model refers to a person; `unfamiliar_share` those that are unlike
            its training images.
        blurred_share: Of the tissue, what is out of focus.
        precision: At which the model computed, as in `scan.json`.
        seconds: As in `scan.json`.
        folder: Of the scan, relative to the table.
    """

    id: str
    path: str
    label: int | None
    patient: str
    split: str | None
    status: str
    reason: str | None = None
    tiles: int | None = None
    positive_tiles: int | None = None
    tissue_mm2: float | None = None
    tumour_mm2: float | None = None
    tumour_share: float | None = None
    score: float | None = None
    max_probability: float | None = None
    referred_share: float | None = None
    unfamiliar_share: float | None = None
    blurred_share: float | None = None
    precision: str | None = None
    notes: str | None = None
    seconds: float | None = None
    folder: str | None = None


class Summary:
    """The table of a call's slides, kept up to date on the disk.

    Args:
        folder: That holds the slides' folders.

    Raises:
        RunError: The folder holds a `slides.csv` or `report.html` of something else.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._rows: list[SlideRow] = []
        table = SCANNED.file(folder)
        if table.is_file():
            ours = {"id", "status", "folder"} <= set(read_table(table).columns)
        else:
            ours = not (folder / REPORT).exists()
        if not ours:
            taken = table.name if table.is_file() else REPORT
            raise RunError(
                f"holds {taken} that is no summary of scans",
                where=folder,
                expected="a folder for scans",
                remedy="choose another with -o",
            )

    def add(self, entry: SlideEntry, outcome: ScanResult | str) -> None:
        """Add a slide with its scan, or with the reason why it could not be scanned, and write the table."""
        told = {"status": "failed", "reason": outcome} if isinstance(outcome, str) else self._of_scan(outcome)
        known = {"id": entry.id, "path": os.path.abspath(entry.path), "label": entry.label}
        row = SlideRow(**known, patient=entry.group or entry.id, split=entry.split, **told)  # type: ignore[arg-type]
        table = pd.DataFrame([asdict(row) for row in (*self._rows, row)])
        whole = dict.fromkeys(("label", "tiles", "positive_tiles"), "Int64")
        SCANNED.write(self.folder, table.astype(whole))
        self._rows.append(row)

    def report(self) -> Path | None:
        """Write the report over the slides; None where there is none yet."""
        return write_slides_report(self.folder) if self._rows else None

    def _of_scan(self, scan: ScanResult) -> dict[str, object]:
        record: ScanRecord = scan.record
        tiles = record.tiles or None
        unfamiliar = record.unfamiliar_tiles
        return {
            "status": "ok",
            "tiles": record.tiles,
            "positive_tiles": record.positive_tiles,
            "tissue_mm2": record.tissue_mm2,
            "tumour_mm2": record.tumour.mm2.value,
            "tumour_share": record.tumour.share.value,
            "score": record.score.value,
            "max_probability": record.max_probability,
            "referred_share": tiles and record.referred_tiles / tiles,
            "unfamiliar_share": None if tiles is None or unfamiliar is None else unfamiliar / tiles,
            "blurred_share": record.blurred_share,
            "precision": record.precision.taken,
            "notes": " | ".join(record.notes) or None,
            "seconds": record.seconds,
            "folder": os.path.relpath(scan.folder, self.folder).replace(os.sep, "/"),
        }
