"""Processor time of regions of a plain pyramid by OpenSlide and by tifffile, in turn, and how far their pixels differ.

    python benchmarks/tiff_readers.py [SLIDE]

A part of the slide is written as tiled TIFF in each compression; squares side by side are read row by row, as scans do.
"""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import tifffile

from tumortrace.images.readers import Reader
from tumortrace.images.readers.openslide import open_reader as by_openslide
from tumortrace.images.readers.tiff import open_reader as by_tifffile
from tumortrace.slides.slide import Slide

SIDE, SQUARES, ROUNDS = 1536, (96, 256, 512), 3
FORMS: dict[str, dict[str, Any]] = {
    "none": {"photometric": "rgb"},
    "deflate": {"photometric": "rgb", "compression": "zlib"},
    "LZW": {"photometric": "rgb", "compression": "lzw"},
    "JPEG, RGB": {"photometric": "rgb", "compression": "jpeg"},
    "JPEG, YCbCr": {"photometric": "ycbcr", "compression": "jpeg", "subsampling": (2, 2)},
}


def written(file: Path, pixels: np.ndarray, options: dict[str, Any]) -> Path:
    with tifffile.TiffWriter(file) as target:
        for step in (1, 2, 4):
            level = np.ascontiguousarray(pixels[::step, ::step])
            target.write(level, subfiletype=int(step > 1), tile=(256, 256), metadata=None, **options)
    return file


def seconds(file: Path, square: int) -> tuple[np.ndarray, int, int]:
    """Processor time by OpenSlide and by tifffile, number of regions, and the largest difference of a px."""
    spent, number, apart = np.zeros(2), 0, 0
    for _ in range(ROUNDS):
        readers: list[Reader] = [reader for open_it in (by_openslide, by_tifffile) if (reader := open_it(file))]
        for y in range(40, SIDE - square, square):
            rows = []
            for place, reader in enumerate(readers):
                start = time.process_time()
                rows.append([reader.read_region(0, x, y, square, square) for x in range(40, SIDE - square, square)])
                spent[place] += time.process_time() - start
            number += len(rows[0])
            apart = max(apart, int(np.abs(np.subtract(*rows, dtype=np.int16)).max()))
        for reader in readers:
            reader.close()
    return spent, number, apart


def main() -> None:
    source = Path(sys.argv[1] if len(sys.argv) > 1 else "slides/tcga-cr-7395-01a-01-ts1.svs")
    with Slide(source) as slide:
        pixels = slide.read_region(500, 500, SIDE, SIDE, size=(SIDE, SIDE), level=0)
    print("| compression | px of a region | OpenSlide | tifffile | times as long | largest difference |")
    print("| --- | --- | --- | --- | --- | --- |")
    with tempfile.TemporaryDirectory() as folder:
        for name, options in FORMS.items():
            file = written(Path(folder) / "a.tif", pixels, options)
            for square in SQUARES:
                spent, number, apart = seconds(file, square)
                one, other = 1e3 * spent / number
                print(f"| {name} | {square} | {one:.2f} ms | {other:.2f} ms | {one / other:.1f} | {apart} |")


if __name__ == "__main__":
    main()
