"""How far the level that a slide is read from moves what a model says of its tiles.

    python benchmarks/read_level.py RUN [SLIDE ...]

Each slide is scanned from full resolution and from each of its levels that is no coarser than the tiles. Beside those
named a slide is made of real patches (PatchCamelyon's validation split, enlarged fourfold), with a level of factor 4
that is the mean of 4x4 px, as scanners store it. Writes the table into docs/slides.md.
"""

from __future__ import annotations

import argparse
import os
import tempfile
from itertools import pairwise
from pathlib import Path

import numpy as np
import openslide
import pandas as pd
import tifffile
from PIL import Image
from scipy.stats import binomtest

from tumortrace.models.bundle import load_model
from tumortrace.records.files import write_text
from tumortrace.slides.batch import scan_slides

BEGIN, END = "<!-- measured: written by benchmarks/read_level.py -->", "<!-- end of measured -->"
SIDE, ACROSS, FACTOR = 96, 22, 4
DOCUMENT = Path("docs/slides.md")


def stitched(folder: Path, resolution: float) -> Path:
    """A slide of patches side by side, and its level of factor 4."""
    data = os.environ.get("TUMORTRACE_DATA")
    if not data:
        raise SystemExit("TUMORTRACE_DATA is not set: no real patches to stitch")
    files = sorted((Path(data) / "pcam" / "valid").glob("*/*"))
    chosen = np.random.default_rng(0).permutation(len(files))[: ACROSS**2]
    tiles = [np.asarray(Image.open(files[index]).convert("RGB")) for index in chosen]
    rows = [np.concatenate(tiles[start : start + ACROSS], 1) for start in range(0, len(tiles), ACROSS)]
    small = Image.fromarray(np.concatenate(rows))
    full = np.asarray(small.resize((small.width * FACTOR, small.height * FACTOR), Image.Resampling.BICUBIC))
    level = full.reshape(small.height, FACTOR, small.width, FACTOR, 3).mean((1, 3)).round().astype(np.uint8)
    file = folder / "stitched.tif"
    dots = FACTOR * 1e4 / resolution  # per centimetre
    with tifffile.TiffWriter(file) as target:
        options = {"tile": (256, 256), "photometric": "rgb", "compression": "zlib", "resolutionunit": "CENTIMETER"}
        target.write(full, subfiletype=0, resolution=(dots, dots), **options)
        target.write(level, subfiletype=1, resolution=(dots / FACTOR, dots / FACTOR), **options)
    return file


def tiles(run: Path, slide: Path, level: int, out: Path, resolution: float | None) -> pd.DataFrame:
    """What the model says of the slide's tiles, read from a level."""
    folder = out / f"{slide.stem}-{level}"
    if scan_slides(run, [slide], out=folder, read_level=str(level), resolution=resolution):
        raise SystemExit(f"{slide} cannot be scanned")
    return pd.read_csv(next(folder.glob("*/tiles.csv"))).set_index(["x", "y"])


def rows(run: Path, slides: list[Path], resolution: float | None, out: Path) -> list[str]:
    """Lines of the table, a pair of levels each."""
    wanted, lines = load_model(run).info.resolution, []
    assert wanted is not None
    for slide in slides:
        opened = openslide.OpenSlide(slide)
        stated = opened.properties.get("openslide.mpp-x")
        scale = wanted / float(stated or resolution or 0)
        levels = [level for level, factor in enumerate(opened.level_downsamples) if factor <= scale * 1.02]
        read = {level: tiles(run, slide, level, out, None if stated else resolution) for level in levels}
        for finer, coarser in pairwise(levels):
            both = read[finer].join(read[coarser], suffixes=("", "_coarser"), how="inner")
            moved = (both["probability"] - both["probability_coarser"]).abs()
            flips = int((both["prediction"] != both["prediction_coarser"]).sum())
            low, high = binomtest(flips, len(both)).proportion_ci(method="wilson")
            lines.append(
                f"| {slide.name} | {finer} and {coarser} | {opened.level_downsamples[coarser]:.2f} | {len(both)} "
                f"| {moved.mean():.3f} | {flips} ({flips / len(both):.1%} [{low:.1%}, {high:.1%}]) |"
            )
    return lines


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("run", type=Path)
    parser.add_argument("slides", type=Path, nargs="*")
    parser.add_argument("--resolution", type=float, help="um per pixel of slides that state none")
    options = parser.parse_args()
    info = load_model(options.run).info
    if info.resolution is None:
        raise SystemExit("the model states no resolution of its patches")
    with tempfile.TemporaryDirectory() as folder:
        slides = [stitched(Path(folder), info.resolution), *options.slides]
        lines = rows(options.run, slides, options.resolution, Path(folder) / "scans")
    head = [
        f"Recipe `{info.training.recipe}`, patches of {info.resolution} um/px:",
        "",
        "| slide | levels | factor of the coarser | tiles | mean change of the probability | calls that differ |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    before, _, rest = DOCUMENT.read_text().partition(BEGIN)
    after = rest.partition(END)[2]
    write_text(DOCUMENT, before + BEGIN + "\n" + "\n".join([*head, *lines]) + "\n" + END + after)


if __name__ == "__main__":
    main()
