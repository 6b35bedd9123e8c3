"""What a scan leaves behind: its folder, its record, and the object that holds both."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from tumortrace.errors import RunError
from tumortrace.records.provenance import RESEARCH_USE
from tumortrace.slides.journal import JOURNAL, journalled_slide
from tumortrace.slides.score import slide_score, tumour_area
from tumortrace.slides.slide import Slide
from tumortrace.slides.tiling import cells

if TYPE_CHECKING:
    from tumortrace.models.bundle import Model

_FILES = ("scan.json", "heatmap.png", "tiles.csv", "outlines.geojson", JOURNAL)


@dataclass(frozen=True)
class ScanResult:
    """What a scan found. Research use only, not a medical device.

    Attributes:
        folder: Where `heatmap.png`, `tiles.csv`, `outlines.geojson` and `scan.json` lie.
        tiles: One row per tile: `x`, `y`, `width`, `height` (level-0 px), `tissue` (share), `probability` (of the
            positive class), `prediction` (1 where the probability reaches the threshold, else 0), `decision`
            (`positive`, `negative` or `refer`), and `ood` and `in_distribution` where the model judges them.
        record: What scan.json holds.
    """

    folder: Path
    tiles: pd.DataFrame
    record: dict[str, Any]

    @property
    def summary(self) -> str:
        """The scan in one line."""
        record = self.record
        found = f"{record['positive_tiles']} of {record['tiles']} tiles positive" if record["tiles"] else "no tiles"
        return f"{record['slide']}: {found}; {self.folder / 'heatmap.png'}; {RESEARCH_USE}"


def describe(
    slide: Slide,
    model: Model,
    tiles: pd.DataFrame,
    mask: np.ndarray,
    *,
    resolution: float | None,
    overlap: float,
    outlines: int,
    notes: list[str],
    seconds: float,
) -> dict[str, Any]:
    """What scan.json holds; values that do not exist are None."""
    positive = int(tiles["prediction"].sum())
    coverage = None if model.info.conformal is None else model.info.conformal.coverage
    area = None if resolution is None else mask.mean() * slide.width * slide.height * resolution**2 / 1e6
    return {
        "slide": slide.name,
        "width": slide.width,
        "height": slide.height,
        "resolution": resolution,
        "model": {"name": model.info.name, "weights_sha256": model.info.weights_sha256},
        "positive_class": model.info.classes[1],
        "overlap": overlap,
        "tiles": len(tiles),
        "tissue_mm2": None if area is None else round(float(area), 4),
        "positive_tiles": positive,
        "positive_share": positive / len(tiles) if len(tiles) else None,
        "referred_tiles": int((tiles["decision"] == "refer").sum()),
        "unfamiliar_tiles": int((~tiles["in_distribution"]).sum()) if "in_distribution" in tiles else None,
        "max_probability": float(tiles["probability"].max()) if len(tiles) else None,
        "score": slide_score(tiles),
        "tumour": tumour_area(cells(tiles, overlap), mask, (slide.width, slide.height), resolution, coverage),
        "outlines": outlines,
        "threshold": float(model.info.threshold),
        "seconds": round(seconds, 1),
        "notes": notes,
        "files": {"heatmap": "heatmap.png", "tiles": "tiles.csv", "outlines": "outlines.geojson"},
        "research_use": RESEARCH_USE,
    }


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
    if not taken or journalled_slide(folder) == slide.name:
        return folder
    try:
        earlier = json.loads((folder / "scan.json").read_text())
        same = [earlier[key] for key in ("slide", "width", "height")] == [slide.name, slide.width, slide.height]
    except (OSError, ValueError, KeyError, TypeError):
        same = False
    if not same:
        raise RunError(
            f"holds {taken[0]} that is not an earlier scan of {slide.name}",
            where=folder,
            expected="an empty folder",
            remedy="choose another with -o",
        )
    return folder
