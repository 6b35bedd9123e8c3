"""What a scan leaves behind: its folder, its record, and the object that holds both."""

from __future__ import annotations

from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

from tumortrace.cohorts.findings import count
from tumortrace.errors import RunError
from tumortrace.records.evaluation import NamedModel, Precision
from tumortrace.records.journal import Journal
from tumortrace.records.lock import locked
from tumortrace.records.metrics import Drift
from tumortrace.records.provenance import RESEARCH_USE
from tumortrace.records.scans import ScanRecord
from tumortrace.records.tables import TILES
from tumortrace.reports.page import REPORT
from tumortrace.reports.slides import OVERVIEW
from tumortrace.slides.focus import blurred_share
from tumortrace.slides.identity import digest_of
from tumortrace.slides.score import slide_score, tumour_area
from tumortrace.slides.shares import Share, kept
from tumortrace.slides.slide import RESAMPLING, Slide
from tumortrace.slides.tiling import cells
from tumortrace.slides.tissue import NOTABLE, Tissue

if TYPE_CHECKING:
    from tumortrace.models.bundle import Model

HEATMAP, OUTLINES, JOURNAL, LOCK = "heatmap.png", "outlines.geojson", "unfinished.jsonl", ".lock"
HEAT = "heatmap.ome.tif"
_FILES = (ScanRecord.FILE, HEATMAP, TILES.name, OUTLINES, JOURNAL, HEAT, OVERVIEW, REPORT)


@dataclass(frozen=True)
class ScanResult:
    """What a scan found. Research use only, not a medical device.

    Attributes:
        folder: Where `scan.json` and the files that it names lie.
        tiles: One row per tile: `x`, `y`, `width`, `height` (level-0 px), `tissue` (share), `sharpness` and `in_focus`
            (see `slides.focus`), `probability` (of the positive class), `prediction` (1 where the probability reaches
            the threshold, else 0), `decision` (`positive`, `negative` or `refer`), and `ood_score` and
            `in_distribution` where the model judges them.
        record: Of the scan.
        kept: Whether it was complete already, so that nothing was computed.
    """

    folder: Path
    tiles: pd.DataFrame
    record: ScanRecord
    kept: bool = False

    @property
    def summary(self) -> str:
        """The scan in one line."""
        record = self.record
        told = f"{record.positive_tiles} of {count(record.tiles, 'tile')} positive" if record.tiles else "no tiles"
        if record.unfamiliar_tiles:
            told += f", {record.unfamiliar_tiles} unlike the training images"
        if record.blurred_share and record.blurred_share >= NOTABLE:
            told += f", {record.blurred_share:.0%} of the tissue out of focus"
        if record.left_out and record.left_out >= NOTABLE:
            told += f", {record.left_out:.0%} of what may be tissue left out as too pale"
        if self.kept:
            told += ", complete already with the same slide, model and settings"
        return f"{record.slide}: {told}; {self.folder / 'heatmap.png'}. {RESEARCH_USE}"


def describe(
    slide: Slide,
    model: Model,
    tiles: pd.DataFrame,
    tissue: Tissue,
    *,
    resolution: float | None,
    level: int,
    read_level: str,
    plane: int | None,
    overlap: float,
    outlines: int,
    notes: list[str],
    drift: Drift | None,
    precision: Precision,
    content: str,
    request: str,
    seconds: float,
) -> ScanRecord:
    """The record of a scan; values that do not exist are None."""
    mask = tissue.mask
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
        read_level=read_level,
        plane=plane,
        content=content,
        request=request,
        precision=precision,
        tissue_by=tissue.told_by,
        left_out=tissue.pale if tissue.pale is None else round(tissue.pale, 4),
        no_tissue={}
        if tissue.rest is None
        else {name: round(share, 4) for name, share in tissue.rest._asdict().items()},
        model=NamedModel(name=model.info.name, weights_sha256=model.info.weights_sha256),
        positive_class=model.info.classes[1],
        overlap=overlap,
        tiles=len(tiles),
        tissue_mm2=None if area is None else round(float(area), 4),
        positive_tiles=positive,
        positive_share=positive / len(tiles) if len(tiles) else None,
        referred_tiles=int((tiles["decision"] == "refer").sum()),
        unfamiliar_tiles=int((~tiles["in_distribution"]).sum()) if "in_distribution" in tiles else None,
        blurred_tiles=int((~tiles["in_focus"]).sum()),
        blurred_share=blurred_share(tiles),
        drift=drift,
        max_probability=float(tiles["probability"].max()) if len(tiles) else None,
        score=slide_score(tiles),
        tumour=tumour_area(cells(tiles, overlap), mask, (slide.width, slide.height), resolution, coverage),
        outlines=outlines,
        threshold=float(model.info.threshold),
        seconds=round(seconds, 1),
        notes=notes,
        files={
            "heatmap": HEATMAP,
            "tiles": TILES.name,
            "outlines": OUTLINES,
            "heat": HEAT,
            "overview": OVERVIEW,
            "report": REPORT,
        },
        research_use=RESEARCH_USE,
    )


def made_with(record: ScanRecord) -> dict[str, object]:
    """What maps have to share so that one score holds for them, by its name in messages."""
    return maps_of(record.model.weights_sha256, record.overlap, record.threshold)


def maps_of(weights: str, overlap: float, threshold: float | None) -> dict[str, object]:
    """The same of scans to come."""
    return {"models": weights, "overlaps": overlap, "thresholds of patches": threshold}


def default_folder(run: Path, name: str) -> Path:
    """`scans/<name>` in a run folder, `scan-<name>` in the current folder for a bundle."""
    return run / "scans" / name if (run / "model").is_dir() else Path.cwd() / f"scan-{name}"


def claim(folder: Path, name: str, content: str) -> Path:
    """Make the folder to write to; an earlier scan of the same slide in it may be replaced, nothing else.

    Args:
        folder: To write to.
        name: Of the slide.
        content: Its digest, from `content_of`.

    Raises:
        RunError: The folder cannot be made or holds something else under the names of a scan's files.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RunError(
            f"cannot be made ({error.strerror})", where=folder, expected="a folder", remedy="choose another with -o"
        ) from error
    taken = [
        name for name in _FILES if (folder / name).exists() and not (name == JOURNAL and Journal.torn(folder / name))
    ]
    holder = holds(folder)
    if taken and (holder is None or not same_slide(holder, (name, content))):
        what = f"{taken[0]} that is not an earlier scan of {name}"
        what = f"the scan of another {name}" if holder is not None and holder[0] == name else what
        raise RunError(
            f"holds {what}", where=folder, expected="an empty folder", remedy="choose another with -o, or remove it"
        )
    return folder


def holds(folder: Path) -> tuple[str, str] | None:
    """Name and content of the slide whose scan, finished or not, a folder holds; None where it holds none."""
    unfinished = Journal.request_of(folder / JOURNAL)
    if isinstance(unfinished, dict) and "slide" in unfinished:
        return str(unfinished["slide"]), str(unfinished.get("content", ""))
    earlier = ScanRecord.recognise(folder)
    return None if earlier is None else (earlier.slide, earlier.content)


def same_slide(one: tuple[str, str], other: tuple[str, str]) -> bool:
    """Whether name and content are the same; what an older version wrote says nothing of the content."""
    return one[0] == other[0] and (one[1] == other[1] or not one[1] or not other[1])


def finished(folder: Path, asked: object) -> ScanResult | None:
    """The scan in a folder, where it is complete and is what is asked for."""
    record = ScanRecord.recognise(folder)
    if record is None or record.request != digest_of(asked):
        return None
    if not all((folder / name).is_file() for name in record.files.values()):
        return None
    clear(folder)
    return ScanResult(folder, TILES.read(folder), record, kept=True)


def clear(folder: Path) -> None:
    """Remove what was kept of a scan that is complete now."""
    for file in (folder / JOURNAL, *kept(folder)):
        file.unlink(missing_ok=True)


def only_scan(folder: Path, share: Share | None = None) -> AbstractContextManager[None]:
    """Keep other processes out of a scan's folder, or from a share of the slide.

    Raises:
        RunError: Another process is scanning into the folder.
    """
    busy = RunError("another scan is writing there", where=folder, remedy="wait for it, or name another -o")
    return locked(folder / (LOCK if share is None else f"{LOCK}-{share[0]}"), busy=busy, remove=True)
