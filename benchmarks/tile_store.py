"""In which form tiles of a slide are written and read fastest, and how large they are.

    python benchmarks/tile_store.py SLIDE

The tiles of one slide (96 px at 0.5 um/px, half overlapping) are held in memory, and written and read by each form as
`tumortrace` would do it. Processor seconds, so that other programs count little. Writes the table into docs/slides.md.
"""

from __future__ import annotations

import argparse
import io
import re
import tempfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path

import h5py
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from tumortrace.images.decoding import read_image
from tumortrace.images.reference import ImageRef
from tumortrace.records.files import write_text
from tumortrace.slides.slide import Slide
from tumortrace.slides.tiling import read_tiles, tile_tissue
from tumortrace.slides.tissue import find_tissue, overview

BEGIN, END = "<!-- measured: written by benchmarks/tile_store.py -->", "<!-- end of measured -->"
DOCUMENT = Path("docs/slides.md")
SIDE, RESOLUTION, ROWS = 96, 0.5, 128


def encoded(tile: np.ndarray, kind: str, **options: int) -> bytes:
    file = io.BytesIO()
    Image.fromarray(tile).save(file, kind, **options)
    return file.getvalue()


def parquet(tiles: list[np.ndarray], folder: Path, kind: str, **options: int) -> Iterable[ImageRef]:
    file = folder / "tiles.parquet"
    schema = pa.schema([("image", pa.struct([("bytes", pa.binary()), ("path", pa.string())]))])
    with pq.ParquetWriter(file, schema, compression="NONE") as writer:
        for start in range(0, len(tiles), ROWS):
            cells = [{"bytes": encoded(tile, kind, **options), "path": None} for tile in tiles[start : start + ROWS]]
            writer.write_table(pa.table({"image": pa.array(cells, schema.field(0).type)}))
    return [ImageRef(str(file), str(row)) for row in range(len(tiles))]


def files(tiles: list[np.ndarray], folder: Path) -> Iterable[ImageRef]:
    names = [folder / f"{number:06d}.png" for number in range(len(tiles))]
    for name, tile in zip(names, tiles, strict=True):
        name.write_bytes(encoded(tile, "PNG", compress_level=4))
    return [ImageRef(str(name)) for name in names]


def hdf5(tiles: list[np.ndarray], folder: Path, **options: object) -> Iterable[ImageRef]:
    file = folder / "tiles_x.h5"
    with h5py.File(file, "w") as handle:
        handle.create_dataset("x", data=np.stack(tiles), chunks=(1, SIDE, SIDE, 3), **options)
    return [ImageRef(str(file), str(row)) for row in range(len(tiles))]


FORMS: dict[str, Callable[[list[np.ndarray], Path], Iterable[ImageRef]]] = {
    "Parquet, PNG of level 1": lambda tiles, folder: parquet(tiles, folder, "PNG", compress_level=1),
    "**Parquet, PNG of level 4**": lambda tiles, folder: parquet(tiles, folder, "PNG", compress_level=4),
    "Parquet, PNG of level 6": lambda tiles, folder: parquet(tiles, folder, "PNG", compress_level=6),
    "Parquet, JPEG of quality 95 (lossy)": lambda tiles, folder: parquet(tiles, folder, "JPEG", quality=95),
    "a PNG each, of level 4": files,
    "HDF5, gzip 4": lambda tiles, folder: hdf5(tiles, folder, compression="gzip", compression_opts=4),
    "HDF5, lzf": lambda tiles, folder: hdf5(tiles, folder, compression="lzf"),
}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("slide", type=Path)
    path = parser.parse_args().slide
    with Slide(path) as slide:
        assert slide.resolution is not None
        side = SIDE * RESOLUTION / slide.resolution
        mask = find_tissue(overview(slide, slide.resolution), None)
        places = tile_tissue(mask, (slide.width, slide.height), (side, side), overlap=0.5, minimum_tissue=0.25)
        start = time.process_time()
        tiles = list(read_tiles(slide, places, (SIDE, SIDE), ahead=64))
        cut = time.process_time() - start
    lines = ["| form | written | read | bytes of raw pixels |", "| --- | --- | --- | --- |"]
    for name, write in FORMS.items():
        with tempfile.TemporaryDirectory() as folder:
            start = time.process_time()
            refs = list(write(tiles, Path(folder)))
            written = time.process_time()
            for ref in refs:
                read_image(ref)
            read = time.process_time()
            size = sum(file.stat().st_blocks * 512 for file in Path(folder).iterdir())
        each = [1e3 * seconds / len(tiles) for seconds in (written - start, read - written)]
        lines.append(f"| {name} | {each[0]:.2f} ms | {each[1]:.2f} ms | {size / sum(t.nbytes for t in tiles):.0%} |")
    table = "\n".join(lines)
    head = f"{len(tiles):,} tiles of {SIDE} px of {path.name}; cutting takes {1e3 * cut / len(tiles):.2f} ms each, "
    head += "and besides (processor time for each tile):"
    text = DOCUMENT.read_text("utf-8")
    section = f"{BEGIN}\n{head}\n\n{table}\n{END}"
    write_text(DOCUMENT, re.sub(re.escape(BEGIN) + ".*?" + re.escape(END), lambda _: section, text, flags=re.DOTALL))
    print(f"{head}\n{table}")


if __name__ == "__main__":
    main()
