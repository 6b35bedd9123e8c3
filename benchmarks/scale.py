"""How much sooner two workers scan twelve slides than one.

    OMP_NUM_THREADS=1 python benchmarks/scale.py RUN [--workers 2] [--slides 12] [--side 1400] [--rounds 1]

Slides are generated. One process and the workers scan the same ones side by side: in turn, each round, into folders of
their own. Prints seconds of each (the start of the program with its libraries is in them), tiles a second, the ratio
with the round of the smallest and largest, and what the results take of the disk; before that what is read and what is
predicted in a second of a processor, each by itself. It ends with 1 where a byte differs.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pandas as pd
import tifffile
import torch

from tumortrace.models.bundle import load_model
from tumortrace.records.tables import TILES
from tumortrace.slides.slide import Slide
from tumortrace.slides.tiling import read_tiles


def write_slides(folder: Path, count: int, side: int, um: float) -> None:
    """Slides all of tissue, no two pixels alike."""
    for number in range(count):
        random = np.random.default_rng(number)
        pixels = random.integers(120, 200, (side, side, 1)) + np.array([30, -40, 20])
        pixels = (pixels + random.integers(-15, 15, (side, side, 3))).clip(0, 255).astype(np.uint8)
        dots = {"resolution": (1e4 / um,) * 2, "resolutionunit": "CENTIMETER"}
        tifffile.imwrite(folder / f"{number:02d}.tif", pixels, tile=(256, 256), photometric="rgb", **dots)


def scanned(run: Path, slides: Path, out: Path, workers: int) -> float:
    """Seconds that the command takes."""
    program = [sys.executable, "-c", "from tumortrace.cli.main import main; main()", "scan", str(run), str(slides)]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    started = time.monotonic()
    command = [*program, "-o", str(out), "--device", "cpu", "--workers", str(workers)]
    subprocess.run(command, env=environment, check=True, capture_output=True)
    return time.monotonic() - started


def rates(run: Path, file: Path) -> str:
    """Tiles that are read, and predicted, in a second of a processor's time, whoever else it works for."""
    torch.set_num_threads(1)
    model = load_model(run, device="cpu")
    height, width = model.info.patch_size
    with Slide(file) as slide:
        across, down = (range(0, side - step, step) for side, step in ((slide.width, width), (slide.height, height)))
        places = pd.DataFrame([(x, y) for y in down for x in across], columns=["x", "y"])
        places = places.assign(width=width, height=height)
        started = time.process_time()
        images = np.stack(list(read_tiles(slide, places, (width, height), ahead=64, level=0)))
        read = time.process_time()
        model.assess(images)
    parts = len(images) / (read - started), len(images) / (time.process_time() - read)
    return "{:.0f} tiles read in a second of a processor, {:.1f} predicted".format(*parts)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("run", type=Path)
    for name, default in (("workers", 2), ("slides", 12), ("side", 1400), ("rounds", 1)):
        parser.add_argument(f"--{name}", type=int, default=default)
    given = parser.parse_args()
    um = load_model(given.run, device="cpu").info.resolution or 1.0
    ratios, same = [], True
    with tempfile.TemporaryDirectory() as folder:
        slides = Path(folder, "slides")
        slides.mkdir()
        write_slides(slides, given.slides, given.side, um)
        print(rates(given.run, slides / "00.tif"))
        for number in range(given.rounds):
            seconds = {}
            for workers in (1, given.workers):
                out = Path(folder, f"{number}-{workers}")
                seconds[workers] = scanned(given.run, slides, out, workers)
                tables = sorted(out.glob(f"*/{TILES.name}"))
                tiles = sum(len(TILES.read(table.parent)) for table in tables)
                disk = sum(file.stat().st_size for file in out.rglob("*") if file.is_file())
                told = f"{seconds[workers]:.1f} s, {tiles} tiles, {tiles / seconds[workers]:.0f} a second"
                print(f"{workers} workers: {told}, {disk / len(tables) / 1e6:.2f} MB a slide")
            ones = [sorted(Path(folder, f"{number}-{workers}").glob(f"*/{TILES.name}")) for workers in seconds]
            same &= all(one.read_bytes() == other.read_bytes() for one, other in zip(*ones, strict=True))
            ratios.append(seconds[1] / seconds[given.workers])
    print(f"{given.workers} workers against one: {np.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})")
    print(f"the same bytes of {TILES.name}: {same}")
    return int(not same)


if __name__ == "__main__":
    sys.exit(main())
