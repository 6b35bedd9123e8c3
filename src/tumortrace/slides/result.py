"""What a scan leaves behind: its folder, its record, and the object that holds both."""

from __future__ import annotations

from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from tumortrace.errors import RunError
from tumortrace.records.evaluation import NamedModel, ScanRecord
from tumortrace.records.journal import Journal
from tumortrace.records.lock import locked
from tumortrace.records.provenance import RESEARCH_USE
from tumortrace.records.tables import TILES
from tumortrace.slides.score import slide_score, tumour_area
from tumortrace.slides.slide import RESAMPLING, Slide
from tumortrace.slides.tiling import cells

if TYPE_CHECKING:
    from tumortrace.models.bundle import Model

HEATMAP, OUTLINES, JOURNAL, LOCK = "heatmap.png", "outlines.geojson", "unfinished.jsonl", ".lock"
_FILES = (ScanRecord.FILE, HEATMAP, TILES.name, OUTLINES, JOURNAL)


@dataclass(frozen=True)
class ScanResult:
    """What a scan found. Research use only, not a medical device.

    Attributes:
        folder: Where `heatmap.png`, `tiles.csv`, `outlines.geojson` and `scan.json` lie.
        tiles: One row per tile: `x`, `y`, `width`, `height` (level-0 px), `tissue` (share), `probability` (of the
            positive class), `prediction` (1 where the probability reaches the threshold, else 0), `decision`
            (`positive`, `negative` or `refer`), and `ood_score` and `in_distribution` where the model judges them.
        record: Of the scan.
    """

    folder: Path
    tiles: pd.DataFrame
    record: ScanRecord

    @property
    def summary(self) -> str:
        """The scan in one line."""
        record = self.record
        told = f"{record.positive_tiles} of {record.tiles} tiles positive" if record.tiles else "no tiles"
        if record.unfamiliar_tiles:
            told += f", {record.unfamiliar_tiles} unlike the training images"
        return f"{record.slide}: {told}; {self.folder / 'heatmap.png'}; {RESEARCH_USE}"


def describe(
    slide: Slide,
    model: Model,
    tiles: pd.DataFrame,
    mask: np.ndarray,
    *,
    resolution: float | None,
    level: int,
    overlap: float,
    outlines: int,
    notes: list[str],
    seconds: float,
) -> ScanRecord:
    """The record of a scan; values that do not exist are None."""
    positive = int(tiles["prediction"].sum())
    coverage = None if model.info.conformal is None else model.info.conformal.coverage
    area = None if resolution is None else mask.mean() * slide.width * slide.height * resolution**2 / 1e6
    return ScanRecord(
        slide=slide.name,
        width=slide.width,
        height=slide.height,
        resolution=resolution,
        level=level,
        level_factor=round(slide.reader.levels[level].across, 4),
        resampling=RESAMPLING,
        model=NamedModel(name=model.info.name, weights_sha256=model.info.weights_sha256),
        positive_class=model.info.classes[1],
        overlap=overlap,
        tiles=len(tiles),
        tissue_mm2=None if area is None else round(float(area), 4),
        positive_tiles=positive,
        positive_share=positive / len(tiles) if len(tiles) else None,
        referred_tiles=int((tiles["decision"] == "refer").sum()),
        unfamiliar_tiles=int((~tiles["in_distribution"]).sum()) if "in_distribution" in tiles else None,
        max_probability=float(tiles["probability"].max()) if len(tiles) else None,
        score=slide_score(tiles),
        tumour=tumour_area(cells(tiles, overlap), mask, (slide.width, slide.height), resolution, coverage),
        outlines=outlines,
        threshold=float(model.info.threshold),
        seconds=round(seconds, 1),
        notes=notes,
        files={"heatmap": HEATMAP, "tiles": TILES.name, "outlines": OUTLINES},
        research_use=RESEARCH_USE,
    )


def default_folder(run: Path, slide: Path) -> Path:
    """`scans/<slide>` in a run folder, `scan-<slide>` in the current folder for a bundle."""
    return run / "scans" / slide.stem if (run / "model").is_dir() else Path.cwd() / f"scan-{slide.stem}"


def claim(folder: Path, slide: Slide) -> Path:
    """Make the folder to write to; an earlier scan of the same slide in it may be replaced, nothing else.

    Raises:
        RunError: The folder cannot be made or holds something else under the names of a scan's files.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RunError(
            f"cannot be made ({error.strerror})", where=folder, expected="a folder", remedy="choose another with -o"
        ) from error
    taken = [name for name in _FILES if (folder / name).exists()]
    unfinished = Journal.request_of(folder / JOURNAL)
    if not taken or (isinstance(unfinished, dict) and unfinished.get("slide") == slide.name):
        return folder
    earlier = ScanRecord.recognise(folder)
    same = (slide.name, slide.width, slide.height)
    if earlier is None or (earlier.slide, earlier.width, earlier.height) != same:
        raise RunError(
            f"holds {taken[0]} that is not an earlier scan of {slide.name}",
            where=folder,
            expected="an empty folder",
            remedy="choose another with -o",
        )
    return folder


def only_scan(folder: Path) -> AbstractContextManager[None]:
    """Keep other processes out of a scan's folder.

    Raises:
        RunError: Another process is scanning into the folder.
    """
    busy = RunError("another scan is writing there", where=folder, remedy="wait for it, or name another -o")
    return locked(folder / LOCK, busy=busy, remove=True)
