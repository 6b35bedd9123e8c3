"""What training takes as data grow: peak memory and seconds, on drawn noise in the layout of PatchCamelyon.

    python benchmarks/memory.py [--images 2000 20000 220000] [--recipe cnn-64]

One epoch each. Counted is what the process holds for itself: pages of the mapped store, which the system takes back
when it needs them, are in `resident` alone. 220,000 images need 20 GB on the disk of the temporary folder.
"""

from __future__ import annotations

import argparse
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import h5py
import numpy as np

AT_ONCE = 1000


def write(folder: Path, images: int) -> Path:
    """Images of noise, half of them darker and called tumour, an eighth apart to validate and as many to test."""
    draw = np.random.default_rng(0)
    for split, count in (("train", images * 3 // 4), ("valid", images // 8), ("test", images // 8)):
        stem = f"camelyonpatch_level_2_split_{split}"
        labels = draw.integers(0, 2, count)
        with h5py.File(folder / f"{stem}_x.h5", "w") as file:
            pixels = file.create_dataset("x", (count, 96, 96, 3), np.uint8, chunks=(1, 96, 96, 3))
            for start in range(0, count, AT_ONCE):
                some = labels[start : start + AT_ONCE, None, None, None]
                noise = draw.integers(0, 200, (len(some), 96, 96, 3), np.uint8)
                pixels[start : start + AT_ONCE] = noise + np.where(some, 0, 50).astype(np.uint8)
        with h5py.File(folder / f"{stem}_y.h5", "w") as file:
            file["y"] = labels.reshape(-1, 1, 1, 1)
    return folder


def trained(data: Path, recipe: str, home: Path) -> tuple[int, int, float, float]:
    """Most bytes of its own and resident, wall and processor seconds of a training."""
    typed = [sys.executable, "-m", "tumortrace", "train", str(data), "--recipe", recipe, "--epochs", "1"]
    environment, started = os.environ | {"TUMORTRACE_CACHE": str(home / "cache")}, time.perf_counter()
    with (home / "log").open("wb") as log:
        process = subprocess.Popen([*typed, "-o", str(home / "runs")], env=environment, stdout=log, stderr=log)
        most = [0, 0]
        while process.poll() is None:
            try:
                lines = Path(f"/proc/{process.pid}/smaps_rollup").read_text("utf-8").splitlines()[1:]
            except OSError:  # it has just ended
                continue
            sizes = {line.split(":")[0]: int(line.split()[1]) << 10 for line in lines}
            most = [max(high, sizes.get(name, 0)) for high, name in zip(most, ("Anonymous", "Rss"), strict=True)]
            time.sleep(0.2)
    if process.returncode:
        sys.exit((home / "log").read_text("utf-8")[-2000:])
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return most[0], most[1], time.perf_counter() - started, used.ru_utime + used.ru_stime


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, nargs="+", default=[2_000, 20_000, 220_000])
    parser.add_argument("--recipe", default="cnn-64")
    options = parser.parse_args()
    print("| images | of its own, GB | resident, GB | wall, s | processor, s |\n| --- | --- | --- | --- | --- |")
    before = 0.0
    for images in options.images:
        with tempfile.TemporaryDirectory() as folder:
            home = Path(folder)
            (home / "data").mkdir()
            private, resident, wall, cpu = trained(write(home / "data", images), options.recipe, home)
        print(
            f"| {images:,} | {private / 1e9:.2f} | {resident / 1e9:.2f} | {wall:.0f} | {cpu - before:.0f} |", flush=True
        )
        before = cpu


if __name__ == "__main__":
    main()
