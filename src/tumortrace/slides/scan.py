"""A trained model run over one whole slide: heat map, table of tiles, record."""

from __future__ import annotations

import time
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from tumortrace.errors import ModelError, SlideError
from tumortrace.runs.files import write_csv, write_json
from tumortrace.runs.progress import track
from tumortrace.slides.heatmap import draw_heatmap, heat_array
from tumortrace.slides.reading import RESOLUTIONS, Slide
from tumortrace.slides.result import ScanResult, claim, default_folder, describe
from tumortrace.slides.tiling import read_tiles, tile_tissue
from tumortrace.slides.tissue import find_tissue, overview

if TYPE_CHECKING:
    from tumortrace.models.bundle import Model


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
) -> ScanResult:
    """Run a model over the tissue of one slide and write heatmap.png, tiles.csv and scan.json.

    Tiles have the size and the resolution of the patches that the model was trained on. A model whose label
    concerns the centre of a patch sees every spot in a centre only with an `overlap`.

    Args:
        run: Run folder or bundle; only names the default of `out` when `model` is given.
        slide: The slide's file.
        out: Folder to write to. Default: `scans/<slide>` in the run folder, `scan-<slide>` here for a bundle.
        overlap: Share of a tile's side that the next one repeats, in [0, .9].
        minimum_tissue: Smallest share of tissue in a tile that is kept, in [0, 1].
        batch_size: Tiles per call of the model.
        device: `auto`, `cpu`, `cuda`, ...; not used when `model` is given.
        model: A model that is loaded already.
        resolution: Um per px at full resolution, in place of what the file states.

    Returns:
        The scan. A slide without tissue is a result too, with no tiles.

    Raises:
        SlideError: The slide cannot be read, its resolution is needed and not known, or a value is out of range.
        RunError: The folder to write to cannot be made or holds another slide's scan.
        ModelError: The model cannot be loaded or returns something other than probabilities.
        MissingDependencyError: OpenSlide is not installed.

    Example:
        >>> import tempfile
        >>> from types import SimpleNamespace
        >>> from PIL import Image
        >>> folder = Path(tempfile.mkdtemp())
        >>> Image.new("RGB", (300, 200), (150, 70, 140)).save(folder / "a.png")
        >>> info = SimpleNamespace(name="dark", patch_size=(50, 50), resolution=1.0, threshold=0.5,
        ...                        classes=("normal", "tumour"), weights_sha256="")
        >>> dark = SimpleNamespace(info=info, predict=lambda images: 1 - images.mean(axis=(1, 2, 3)) / 255)
        >>> result = scan(folder, folder / "a.png", out=folder / "scan", model=dark, resolution=1.0)
        >>> result.record["tiles"], result.record["positive_tiles"]
        (24, 24)
    """
    started = time.monotonic()
    _check_arguments(overlap, minimum_tissue, batch_size, resolution)
    with Slide(slide) as opened:
        if model is None:
            from tumortrace.models.bundle import load_model

            model = load_model(Path(run), device=device)
            model.require_preparation(None, opened.name)
        notes = list(opened.notes)
        resolution = resolution or opened.resolution
        scale = _scale(model, opened, resolution, notes)
        folder = claim(Path(out) if out is not None else default_folder(Path(run), opened.path), opened)
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
        tiles["probability"] = _predict(model, opened, tiles, batch_size)
        tiles["prediction"] = (tiles["probability"] >= model.info.threshold).astype(int)
    draw_heatmap(
        folder / "heatmap.png",
        thumbnail,
        mask,
        heat_array(tiles, size, mask.shape),
        title=f"{opened.name}, {model.info.name}",
        positive_class=model.info.classes[1],
        threshold=model.info.threshold,
        resolution=resolution and resolution * reduction,
    )
    write_csv(folder / "tiles.csv", tiles)
    record = describe(opened, model, tiles, mask, resolution, overlap, notes, time.monotonic() - started)
    write_json(folder / "scan.json", record)  # last: where it lies, the scan is complete
    return ScanResult(folder, tiles, record)


def _predict(model: Model, slide: Slide, tiles: pd.DataFrame, batch_size: int) -> np.ndarray:
    """Probability of the positive class per tile, float64."""
    height, width = model.info.patch_size
    done: list[np.ndarray] = []
    batch: list[np.ndarray] = []
    with closing(read_tiles(slide, tiles, (width, height), ahead=2 * batch_size)) as images:
        for image in track(images, f"scanning {slide.name}", total=len(tiles)):
            batch.append(image)
            if len(batch) == batch_size:
                done.append(model.predict(np.stack(batch)))
                batch = []
    if batch:
        done.append(model.predict(np.stack(batch)))
    probability = np.concatenate(done).astype(np.float64) if done else np.empty(0)
    if probability.shape != (len(tiles),) or not ((probability >= 0) & (probability <= 1)).all():
        raise ModelError(
            "the model returned something other than one probability per tile",
            where=model.info.name,
            remedy="evaluate the model on patches first; its weights may be damaged",
        )
    return probability


def _scale(model: Model, slide: Slide, resolution: float | None, notes: list[str]) -> float:
    """Level-0 px per px of a tile; what was assumed is added to `notes`."""
    wanted = model.info.resolution
    if wanted is None:
        notes.append("the model states no resolution; tiles were taken at the slide's full resolution")
        return 1.0
    if resolution is None:
        raise SlideError(
            slide.notes[0] if slide.notes else "states no resolution",
            where=slide.path,
            expected=f"um per pixel, because the model was trained at {wanted:g}",
            remedy="state it with --resolution, such as --resolution 0.25 for most 40x scans or 0.5 for 20x",
        )
    if wanted < 0.8 * resolution:
        notes.append(
            f"the slide ({resolution:.3g} um/px) is coarser than the model's patches ({wanted:.3g} um/px); tiles were "
            "enlarged and probabilities are less reliable"
        )
    return wanted / resolution


def _check_arguments(overlap: float, minimum_tissue: float, batch_size: int, resolution: float | None) -> None:
    checks = [
        ("--overlap", overlap, 0 <= overlap <= 0.9, "between 0 and 0.9"),
        ("--minimum-tissue", minimum_tissue, 0 <= minimum_tissue <= 1, "between 0 and 1"),
        ("--batch-size", batch_size, batch_size >= 1, "at least 1"),
    ]
    if resolution is not None:
        low, high = RESOLUTIONS
        checks.append(("--resolution", resolution, low <= resolution <= high, f"um per pixel from {low} to {high}"))
    for name, value, valid, expected in checks:
        if not valid:
            raise SlideError(f"the value {value!r}", where=name, expected=expected, remedy="change it")
