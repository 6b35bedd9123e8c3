"""What a scan leaves behind: its folder, its record, and the object that holds both."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from tumortrace.errors import RunError
from tumortrace.runs.provenance import RESEARCH_USE
from tumortrace.slides.reading import Slide

if TYPE_CHECKING:
    from tumortrace.models.bundle import Model


@dataclass(frozen=True)
class ScanResult:
    """What a scan found. Research use only, not a medical device.

    Attributes:
        folder: Where `heatmap.png`, `tiles.csv` and `scan.json` lie.
        tiles: One row per tile: `x`, `y`, `width`, `height` (level-0 px), `tissue` (share), `probability` (of the
            positive class) and `prediction` (1 where the probability reaches the threshold, else 0).
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
    resolution: float | None,
    overlap: float,
    notes: list[str],
    seconds: float,
) -> dict[str, Any]:
    """What scan.json holds; values that do not exist are None."""
    probability = np.sort(tiles["probability"].to_numpy())[::-1]
    positive = int(tiles["prediction"].sum())
    area = None if resolution is None else mask.mean() * slide.width * slide.height * resolution**2 / 1e6
    return {
        "slide": slide.name,
        "width": slide.width,
        "height": slide.height,
        "resolution": resolution,
        "model": {"name": model.info.name, "weights_sha256": model.info.weights_sha256},
        "overlap": overlap,
        "tiles": len(tiles),
        "tissue_mm2": None if area is None else round(float(area), 4),
        "positive_tiles": positive,
        "positive_share": positive / len(tiles) if len(tiles) else None,
        "max_probability": float(probability[0]) if len(tiles) else None,
        "top_mean_probability": float(probability[:10].mean()) if len(tiles) else None,
        "threshold": float(model.info.threshold),
        "seconds": round(seconds, 1),
        "notes": notes,
        "files": {"heatmap": "heatmap.png", "tiles": "tiles.csv"},
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
    taken = [name for name in ("scan.json", "heatmap.png", "tiles.csv") if (folder / name).exists()]
    if not taken:
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
