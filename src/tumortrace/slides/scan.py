"""A trained model run over one whole slide: heat map, table of tiles, record."""

from __future__ import annotations

import json
import time
import zlib
from collections.abc import Callable
from contextlib import closing
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from shapely.affinity import scale as scale_polygon

from tumortrace.errors import ModelError
from tumortrace.records.files import write_text
from tumortrace.records.journal import Journal
from tumortrace.records.progress import progress_bar
from tumortrace.records.tables import RENAMED, TILES
from tumortrace.reports.report import renew_report
from tumortrace.reports.wording import called
from tumortrace.slides.heatmap import draw_heatmap, heat_array
from tumortrace.slides.outlines import outlines_geojson, tumour_polygons
from tumortrace.slides.result import HEATMAP, JOURNAL, OUTLINES, ScanResult, claim, default_folder, describe, only_scan
from tumortrace.slides.scale import check_arguments, slide_resolution, tile_scale
from tumortrace.slides.slide import RESAMPLING, Slide
from tumortrace.slides.tiling import cells, read_tiles, tile_tissue
from tumortrace.slides.tissue import find_tissue, overview

if TYPE_CHECKING:
    from tumortrace.models.bundle import Model

Progress = Callable[[int, int], None]


def scan(
    run: str | Path,
    slide: str | Path,
    *,
    out: str | Path | None = None,
    overlap: float = 0.0,
    minimum_tissue: float = 0.25,
    batch_size: int = 256,
    device: str = "auto",
    model: Model | None = None,
    resolution: float | None = None,
    override_resolution: float | None = None,
    patch_resolution: float | None = None,
    name: str | None = None,
    progress: Progress | None = None,
    renew: bool = True,
) -> ScanResult:
    """Run a model over the tissue of one slide; write heatmap.png, tiles.csv, outlines.geojson and scan.json.

    Tiles have the size and the resolution of the patches that the model was trained on. A model whose label
    concerns the centre of a patch sees every spot in a centre only with an `overlap`. What is interrupted or killed
    goes on where it stopped when called again with the same arguments, and ends with the same files.

    Args:
        run: Run folder or bundle; only names the default of `out` when `model` is given.
        slide: The slide's file.
        out: Folder to write to. Default: `scans/<slide>` in the run folder, `scan-<slide>` here for a bundle.
        overlap: Share of a tile's side that the next one repeats, in [0, .9].
        minimum_tissue: Smallest share of tissue in a tile that is kept, in [0, 1].
        batch_size: Tiles per call of the model.
        device: `auto`, `cpu`, `cuda`, ...; not used when `model` is given.
        model: A model that is loaded already.
        resolution: Um per px at full resolution, where the file states none.
        override_resolution: Um per px at full resolution, in place of what the file states; goes on record.
        patch_resolution: Um per px of the patches that the model was trained on, in place of what the model states.
        name: What to call the slide, in place of its file's name.
        progress: Called with the tiles done and all tiles, at the beginning and after each batch. Whatever it raises
            ends the scan, which can then go on later.
        renew: Tell the report of the run anew, where `out` lies in its folder; False where more slides follow.

    Returns:
        The scan. A slide without tissue is a result too, with no tiles.

    Raises:
        SlideError: The slide cannot be read, its resolution is needed and not known, or a value is out of range.
        RunError: The folder to write to cannot be made, holds another slide's scan, or is being written.
        ModelError: The model cannot be loaded or returns something other than probabilities.
        MissingDependencyError: OpenSlide is not installed.

    Example:
        >>> import tempfile
        >>> from types import SimpleNamespace
        >>> from PIL import Image
        >>> from tumortrace.models.bundle import Assessment
        >>> folder = Path(tempfile.mkdtemp())
        >>> Image.new("RGB", (300, 200), (150, 70, 140)).save(folder / "a.png")
        >>> info = SimpleNamespace(name="dark", patch_size=(50, 50), resolution=1.0, threshold=0.5, conformal=None,
        ...                        classes=("normal", "tumour"), weights_sha256="")
        >>> def assess(images):
        ...     dark = 1 - images.mean(axis=(1, 2, 3)) / 255
        ...     return Assessment(dark, dark, (dark >= 0.5).astype(int), np.where(dark >= 0.5, "positive", "negative"))
        >>> model = SimpleNamespace(info=info, assess=assess)
        >>> result = scan(folder, folder / "a.png", out=folder / "scan", model=model, resolution=1.0)
        >>> result.record.tiles, result.record.positive_tiles, result.record.tumour.mm2.value
        (24, 24, 0.06)
    """
    started = time.monotonic()
    resolutions = {
        "--resolution": resolution,
        "--override-resolution": override_resolution,
        "--patch-resolution": patch_resolution,
    }
    check_arguments(overlap, minimum_tissue, batch_size, resolutions)
    with Slide(slide, name=name) as opened:
        if model is None:
            from tumortrace.models.bundle import load_model

            model = load_model(Path(run), device=device)
            model.require_preparation(None, opened.name)
        notes = list(opened.notes)
        resolution = slide_resolution(opened, resolution, override_resolution, notes)
        scale = tile_scale(model.info.resolution, patch_resolution, opened, resolution, notes)
        folder = claim(Path(out) if out is not None else default_folder(Path(run), opened.path), opened)
        with only_scan(folder):
            thumbnail = overview(opened, resolution)
            reduction = opened.width / thumbnail.shape[1]
            mask = find_tissue(thumbnail, resolution and resolution * reduction)
            if not mask.any():
                notes.append("no tissue found")
            height, width = model.info.patch_size
            size = (opened.width, opened.height)
            tile = (width * scale, height * scale)
            tiles = tile_tissue(mask, size, tile, overlap=overlap, minimum_tissue=minimum_tissue)
            if mask.any() and tiles.empty:
                notes.append(f"no tile holds {minimum_tissue:.0%} of tissue")
            level = opened.level_for(scale)
            journal = Journal[Any](folder / JOURNAL, _request(model, opened, tiles, batch_size, resolution, level))
            tiles = _assess(model, opened, tiles, batch_size, journal, progress)
            shown = cells(tiles, overlap)
            polygons = tumour_polygons(shown, size)
            positive_class = called(model.info.classes[1])
            draw_heatmap(
                folder / HEATMAP,
                thumbnail,
                mask,
                heat_array(shown, size, mask.shape),
                [scale_polygon(polygon, 1 / reduction, 1 / reduction, origin=(0, 0)) for polygon in polygons],
                title=f"{opened.name}, {model.info.name}",
                positive_class=positive_class,
                threshold=model.info.threshold,
                resolution=resolution and resolution * reduction,
            )
            TILES.write(folder, tiles)
            outlines = outlines_geojson(
                polygons, shown, slide_name=opened.name, positive_class=positive_class, resolution=resolution
            )
            write_text(folder / OUTLINES, json.dumps(outlines, ensure_ascii=False, allow_nan=False))
            record = describe(
                opened,
                model,
                tiles,
                mask,
                resolution=resolution,
                level=level,
                overlap=overlap,
                outlines=len(polygons),
                notes=notes,
                seconds=time.monotonic() - started,
            )
            record.write(folder)  # last: where it lies, the scan is complete
            journal.remove()
    if renew:
        renew_report(Path(run), folder)
    return ScanResult(folder, tiles, record)


def _assess(
    model: Model, slide: Slide, tiles: pd.DataFrame, batch_size: int, journal: Journal[Any], progress: Progress | None
) -> pd.DataFrame:
    """The tiles with what the model says of each; batches that the journal holds already are not read again."""
    height, width = model.info.patch_size
    parts = [pd.DataFrame(entry).rename(columns=RENAMED) for entry in journal.entries]
    done, total = sum(map(len, parts)), len(tiles)
    images = read_tiles(slide, tiles.iloc[done:], (width, height), ahead=2 * batch_size)
    with closing(images), progress_bar() as bar:
        task = bar.add_task(f"scanning {slide.name}", total=total, completed=done)
        if progress is not None:
            progress(done, total)
        while batch := list(islice(images, batch_size)):
            rows = _rows(model, np.stack(batch))
            journal.append(rows.to_dict("list"))
            parts.append(rows)
            done += len(rows)
            bar.update(task, completed=done)
            if progress is not None:
                progress(done, total)
    said = pd.concat(parts, ignore_index=True) if total else _NOTHING
    return pd.concat([tiles, said], axis=1)


_NOTHING = pd.DataFrame(
    {"probability": np.empty(0), "prediction": np.empty(0, np.int64), "decision": np.empty(0, object)}
)


def _rows(model: Model, images: np.ndarray) -> pd.DataFrame:
    """What the model says of each image of a batch: columns of tiles.csv."""
    said = model.assess(images)
    probability = np.asarray(said.probability, dtype=np.float64)
    if probability.shape != (len(images),) or not ((probability >= 0) & (probability <= 1)).all():
        raise ModelError(
            "the model returned something other than one probability per tile",
            where=model.info.name,
            remedy="evaluate the model on patches first; its weights may be damaged",
        )
    rows = pd.DataFrame({"probability": probability, "prediction": said.prediction, "decision": said.decision})
    if said.ood_score is not None and said.in_distribution is not None:
        rows["ood_score"], rows["in_distribution"] = said.ood_score, said.in_distribution
    return rows


def _request(
    model: Model, slide: Slide, tiles: pd.DataFrame, batch_size: int, resolution: float | None, level: int
) -> dict[str, object]:
    """All that the rows of tiles.csv depend on, to the last bit: a scan goes on only where nothing has changed."""
    file = slide.path.stat()
    return {
        "slide": slide.name,
        "size": [slide.width, slide.height],
        "file": [file.st_size, file.st_mtime_ns],
        "model": model.info.weights_sha256,
        "threshold": model.info.threshold,
        "patch": list(model.info.patch_size),
        "device": str(getattr(model, "device", None)),
        "batch_size": batch_size,
        "resolution": resolution,
        "level": [level, RESAMPLING],
        "tiles": [len(tiles), zlib.crc32(tiles[["x", "y", "width", "height"]].to_numpy(np.int64).tobytes())],
    }
