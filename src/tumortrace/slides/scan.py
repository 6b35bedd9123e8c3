"""A trained model run over one whole slide: heat map, table of tiles, record."""

from __future__ import annotations

import json
import time
import zlib
from collections.abc import Iterator
from contextlib import closing
from functools import partial
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from shapely.affinity import scale as scale_polygon

from tumortrace.models.precision import Asked, choose, possible, sampled
from tumortrace.records.evaluation import Precision
from tumortrace.records.files import write_text
from tumortrace.records.journal import Journal
from tumortrace.records.progress import progress_bar, say
from tumortrace.records.scans import ScanRecord
from tumortrace.records.tables import TILES
from tumortrace.reports.slides import SHOWN, ScanPictures, TilePicture, write_scan_report
from tumortrace.reports.wording import called
from tumortrace.slides.assess import Batches, Progress, ask, assess, by_tile, tiles_of
from tumortrace.slides.dense import SIDE, by_block, dense_overlap, dense_tile, in_blocks
from tumortrace.slides.focus import told_of_focus
from tumortrace.slides.heat_pyramid import heat_levels, write_heat
from tumortrace.slides.heatmap import draw_heatmap, heat_array
from tumortrace.slides.identity import content_of, digest_of
from tumortrace.slides.memory import (
    BATCHES,
    SIDES,
    held_by_batch,
    held_by_block,
    held_by_slide,
    largest_within,
    usual_batch,
)
from tumortrace.slides.outlines import outlines_geojson, tumour_polygons
from tumortrace.slides.result import (
    HEAT,
    HEATMAP,
    JOURNAL,
    OUTLINES,
    ScanResult,
    claim,
    clear,
    default_folder,
    describe,
    finished,
    only_scan,
)
from tumortrace.slides.scale import (
    check_arguments,
    level_to_read,
    patch_resolution_of,
    require_bits,
    slide_resolution,
    tile_scale,
)
from tumortrace.slides.shares import Share, ShareKept, bounds, gather, journal_of, kept
from tumortrace.slides.slide import RESAMPLING, Slide
from tumortrace.slides.tiling import cells, read_tiles, tile_tissue
from tumortrace.slides.tissue import overview
from tumortrace.slides.tissue_mask import read_tissue_mask, tissue_on

if TYPE_CHECKING:
    from tumortrace.models.bundle import Model

PROCEDURE = 5  # raised whenever the same arguments give other tiles
_DECIDING = (
    "name",
    "patch_size",
    "classes",
    "symmetries",
    "preprocessing",
    "calibration",
    "threshold",
    "conformal",
    "ood",
)


def scan(
    run: str | Path,
    slide: str | Path,
    *,
    out: str | Path | None = None,
    overlap: float = 0.0,
    minimum_tissue: float = 0.25,
    batch_size: int | None = None,
    device: str = "auto",
    model: Model | None = None,
    resolution: float | None = None,
    override_resolution: float | None = None,
    patch_resolution: float | None = None,
    read_level: str | int = "auto",
    tissue_mask: str | Path | None = None,
    bits: int | None = None,
    plane: int | None = None,
    dense: bool = False,
    precision: Asked = "auto",
    name: str | None = None,
    max_memory: str | None = None,
    progress: Progress | None = None,
    renew: bool = True,
    share: Share | None = None,
) -> ScanResult:
    """Run a model over the tissue of one slide; write its report, heat maps, table, outlines and record.

    Tiles have the size and the resolution of the patches that the model was trained on. A model whose label
    concerns the centre of a patch sees every spot in a centre only with an `overlap`. What is interrupted or killed
    goes on where it stopped when called again with the same arguments, and ends with the same files. What is complete
    with the same arguments, model and slide is given back as it is.

    Args:
        run: Run folder or bundle; only names the default of `out` when `model` is given.
        slide: The slide's file.
        out: Folder to write to. Default: `scans/<slide>` in the run folder, `scan-<slide>` here for a bundle.
        overlap: Share of a tile's side that the next one repeats, in [0, .9].
        minimum_tissue: Smallest share of tissue in a tile that is kept, in [0, 1].
        batch_size: Tiles per call of the model. Default: 128 on a CPU, else 256.
        device: `auto`, `cpu`, `cuda`, ...; not used when `model` is given.
        model: A model that is loaded already.
        resolution: Um per px at full resolution, where the file states none.
        override_resolution: Um per px at full resolution, in place of what the file states; goes on record.
        patch_resolution: Um per px of the patches that the model was trained on, in place of what the model states.
        read_level: Number of the level from which tiles are read and resampled, 0 for full resolution; `auto` takes the
            coarsest that is no coarser than the tiles. Probabilities depend on it: see docs/slides.md.
        tissue_mask: A PNG or TIFF of any size that covers the whole slide; what is not zero is tissue, in place of what
            the slide's colours tell.
        bits: Bits that the numbers of a deep slide hold where it does not say, such as 12 for 12 bits stored in 16.
            Default: as the training images of the model were said to have.
        plane: Number of the plane of focus to read, from 1. Default: the middle one, where the file states planes.
        dense: Let the network pass over whole regions, in which tiles overlap, where it gives the same answers then.
        precision: "fp32", "bf16", or "auto": bfloat16 where the hardware has it, it is quicker and says the same of a
            sample of the slide's tiles; see `models.precision.choose`. Chosen once: a scan that goes on keeps it.
        name: What to call the slide, in place of its file's name.
        max_memory: Such as `4GB`: fewer tiles at a time than `batch_size`, and smaller blocks of a `dense` scan, so
            that the scan holds no more, as `slides.memory` counts.
        progress: Called with the tiles done and all tiles, at the beginning and after each batch. Whatever it raises
            ends the scan, which can then go on later.
        renew: Tell the report of the run anew, where `out` lies in its folder; False where more slides follow.
        share: Compute no more than this share of the slide, and keep it for a scan with the same arguments, which may
            be computed elsewhere meanwhile; of a slide whose tissue is costly to find, nothing.

    Returns:
        The scan. A slide without tissue is a result too, with no tiles.

    Raises:
        SlideError: The slide or the mask cannot be read or does not fit, the resolution of the slide or of the
            model's patches is not known, a value is out of range, or the memory is too little.
        RunError: The folder to write to cannot be made, holds another slide's scan, or is being written.
        ModelError: The model cannot be loaded, returns something other than probabilities, or cannot be `dense`.
        MissingDependencyError: OpenSlide is not installed.
        ShareKept: The share is done.

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
    check_arguments(overlap, minimum_tissue, 1 if batch_size is None else batch_size, bits, resolutions)
    if model is None:
        from tumortrace.models.bundle import load_model

        model = load_model(Path(run), device=device, backend=None)
        model.require_preparation(None, name or Path(slide).name)
    batch_size = batch_size or usual_batch(model)
    bits = bits or getattr(model.info, "bits", None)
    if dense:
        overlap = dense_overlap(model, overlap)
    with Slide(slide, name=name, bits=bits, plane=plane) as opened:
        require_bits(opened)
        notes = list(opened.notes)
        resolution = slide_resolution(opened, resolution, override_resolution, notes)
        scale = tile_scale(model.info.resolution, patch_resolution, opened, resolution, notes)
        level = level_to_read(opened, scale, read_level, notes)
        marked = None if tissue_mask is None else read_tissue_mask(Path(tissue_mask), opened)
        block = SIDE
        if max_memory is not None:
            laid = resolution, scale, overlap
            batch_size, block = _within(max_memory, model, opened, laid, batch_size, dense, notes)
        content = content_of(opened.path)
        asked = _request(model, opened, content, batch_size) | {
            "tissue": None if marked is None else [marked.shape, zlib.crc32(marked.tobytes())],
            "tiles": [overlap, minimum_tissue, resolution, scale, level, RESAMPLING],
        }
        asked |= {name: value for name, value in (("bits", bits), ("plane", plane), ("dense", dense)) if value}
        asked |= {"block": block} if block != SIDE else {}
        folder = claim(
            Path(out) if out is not None else default_folder(Path(run), opened.path.stem), opened.name, content
        )
        if share is not None and opened.lacks_levels:
            raise ShareKept
        with only_scan(folder, share):
            for taken in possible(model, precision):
                if (complete := finished(folder, asked | {"precision": taken})) is not None:
                    if progress is not None:
                        progress(complete.record.tiles, complete.record.tiles)
                    return complete
            thumbnail = _overview(opened, resolution, shown=progress is None)
            reduction = opened.width / thumbnail.shape[1]
            tissue = tissue_on(thumbnail, resolution and resolution * reduction, marked)
            mask = tissue.mask
            notes += tissue.notes
            height, width = model.info.patch_size
            size = (opened.width, opened.height)
            tile: tuple[float, float] = (width * scale, height * scale)
            if dense:
                tile = dense_tile((width, height), scale, overlap, opened)
            tiles = tile_tissue(mask, size, tile, overlap=overlap, minimum_tissue=minimum_tissue)
            if mask.any() and tiles.empty:
                notes.append(f"no tile holds {minimum_tissue:.0%} of tissue")
            if dense:
                tiles = in_blocks(tiles, size, (width, height), overlap, block)
            places = tiles[["x", "y", "width", "height"]].to_numpy(np.int64)
            request = asked | {"places": [len(tiles), zlib.crc32(places.tobytes())]}
            how = _begun(folder, request, precision, model)
            if how is None:
                sample = partial(_pictures_of, opened, (width, height), level, batch_size, tiles)
                how = choose(model, precision, len(tiles), sample)
            asked |= {"precision": how.taken}
            notes += [how.line] if how.line else []
            computing = model if how.taken != "bf16" else model.at("bf16")
            batches: Batches = partial(by_tile, computing, opened, level, batch_size)
            if dense:
                batches = partial(by_block, computing, opened, level, overlap)
            request |= {"precision": how.model_dump(mode="json")}
            journal = Journal[Any](folder / JOURNAL, request)
            trained = patch_resolution_of(model.info.resolution, patch_resolution)
            if share is not None:
                first, stop = bounds(tiles, batch_size, share)
                mine = journal_of(folder, (first, stop), request)
                known = sum(map(tiles_of, journal.entries)) >= stop  # to an interrupted scan
                begun = stop if known else first + sum(map(tiles_of, mine.entries))
                ask(model, opened, tiles, (begun, stop), trained, batches, mine, started, progress, first)
                raise ShareKept
            gather(folder, request, journal)
            tiles, components, before = assess(model, opened, tiles, trained, batches, journal, started, progress)
            tiles = tiles.drop(columns=["row", "column", "block"], errors="ignore")
            notes += told_of_focus(tiles)
            drift = None
            if len(tiles) and (judge := getattr(model, "judge_set", None)) is not None:
                drift, line = judge(components, images=len(tiles))
                notes.append(line)
            shown = cells(tiles, overlap)
            polygons = tumour_polygons(shown, size)
            positive_class = called(model.info.classes[1])
            ScanRecord.file(folder).unlink(missing_ok=True)  # an earlier one would vouch for the files to come
            heat = heat_array(shown, size, mask.shape)
            draw_heatmap(
                folder / HEATMAP,
                thumbnail,
                mask,
                heat,
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
                tissue,
                resolution=resolution,
                level=level,
                read_level=str(read_level),
                plane=plane,
                overlap=overlap,
                outlines=len(polygons),
                notes=notes,
                drift=drift,
                precision=how,
                content=content,
                request=digest_of(asked),
                seconds=before + time.monotonic() - started,
            )
            write_heat(folder / HEAT, heat_levels(shown, size), size, resolution)
            write_scan_report(folder, record, _pictures(opened, model, thumbnail, heat, tiles, level))
            record.write(folder)  # last: where it lies, the scan is complete
            clear(folder)
    if renew:
        from tumortrace.reports.report import renew_report  # torch comes with it

        renew_report(Path(run), folder)
    return ScanResult(folder, tiles, record)


def _within(
    limit: str,
    model: Model,
    slide: Slide,
    laid: tuple[float | None, float, float],
    most: int,
    dense: bool,
    notes: list[str],
) -> tuple[int, int]:
    """Tiles at a time, and px of a dense block, that keep within a limit; a note where they are fewer than usual.

    Args:
        laid: Um per px of the slide, level-0 px to one of a tile, and the overlap.
        most: Tiles at a time.
    """
    resolution, scale, overlap = laid
    height, width = model.info.patch_size
    map_ = held_by_slide(slide, resolution, (width * scale, height * scale), overlap)
    sizes = [most, *(size for size in BATCHES if size < most)]
    held = held_by_batch(model)
    tiles = largest_within(limit, sizes, lambda size: map_ + held(size), slide.path)
    if tiles < most:
        notes.append(f"{tiles} tiles at a time in place of {most}, to keep within {limit}")
    if not dense:
        return tiles, SIDE
    of_block = held_by_block(model, overlap)
    block = largest_within(limit, SIDES, lambda side: map_ + held(0) + of_block(side), slide.path)
    if block < SIDE:
        notes.append(f"blocks of {block} px in place of {SIDE}, to keep within {limit}")
    return tiles, block


def _pictures(
    slide: Slide, model: Model, thumbnail: np.ndarray, heat: np.ndarray, tiles: pd.DataFrame, level: int
) -> ScanPictures:
    """What the report of a slide shows: the overview, and the most suspicious, referred and blurred tiles."""
    height, width = model.info.patch_size

    def read(chosen: pd.DataFrame) -> list[TilePicture]:
        images = list(read_tiles(slide, chosen, (width, height), ahead=SHOWN, level=level))
        rows = chosen[["x", "y", "probability", "decision"]].itertuples(index=False, name=None)
        return [TilePicture(image, *row) for image, row in zip(images, rows, strict=True)]

    suspicious = tiles.sort_values("probability", ascending=False, kind="stable").head(SHOWN)
    unsure = tiles[tiles["decision"] == "refer"]
    nearest = (unsure["probability"] - model.info.threshold).abs().sort_values(kind="stable").index[:SHOWN]
    blurred = tiles[~tiles["in_focus"]].sort_values("sharpness", kind="stable").head(SHOWN)
    return ScanPictures(thumbnail, heat, read(suspicious), read(unsure.loc[nearest]), read(blurred))


def _begun(folder: Path, request: dict[str, object], asked: Asked, model: Model) -> Precision | None:
    """How exactly an unfinished scan of the same request computes; None where there is none."""
    for file in (folder / JOURNAL, *kept(folder)):
        before = Journal.request_of(file)
        if not isinstance(before, dict) or not isinstance(how := before.pop("precision", None), dict):
            continue
        chosen = Precision.model_validate(how)
        if before == json.loads(json.dumps(request)) and chosen.taken in possible(model, asked):
            return chosen
    return None


def _pictures_of(
    slide: Slide, size: tuple[int, int], level: int, at_once: int, tiles: pd.DataFrame
) -> Iterator[np.ndarray]:
    """Pictures of a sample of tiles, evenly spread, some at once."""
    some = tiles.iloc[sampled(len(tiles))]
    with closing(read_tiles(slide, some, size, ahead=2 * at_once, level=level)) as pictures:
        while batch := list(islice(pictures, at_once)):
            yield np.stack(batch)


def _overview(slide: Slide, resolution: float | None, shown: bool) -> np.ndarray:
    """The picture on which tissue is sought; a slide without small levels is read for it, which is told."""
    if slide.lacks_levels:
        say(f"scan: {slide.name} has no small levels; all of it is read to find the tissue")
    with progress_bar(shown) as bar:
        task = bar.add_task(f"overview of {slide.name}", total=None)
        return overview(slide, resolution, lambda done, total: bar.update(task, completed=done, total=total))


def _request(model: Model, slide: Slide, content: str, batch_size: int) -> dict[str, object]:
    """Slide, model and device: with the tiles, all that the results depend on, to the last bit."""
    info = {name: str(getattr(model.info, name, None)) for name in _DECIDING}
    drift = getattr(model.info, "drift", None)
    return ({} if drift is None else {"drift": drift.sha256}) | {
        "procedure": PROCEDURE,
        "slide": slide.name,
        "size": [slide.width, slide.height],
        "content": content,
        "model": [model.info.weights_sha256, digest_of(info)],
        "device": str(getattr(model, "device", None)),
        "batch_size": batch_size,
    }
