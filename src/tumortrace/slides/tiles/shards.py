"""The tiles of a slide as a Parquet file, which is there whole or not at all."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from contextlib import closing
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from PIL import Image

from tumortrace.errors import SlideError
from tumortrace.records.files import replacing
from tumortrace.slides.slide import Slide
from tumortrace.slides.tiling import read_tiles

if TYPE_CHECKING:
    from tumortrace.models.bundle import Model

BATCH = 128  # tiles in memory, and in a row group
_COMPRESSION = 4  # of PNG: see docs/slides.md
_COLUMNS = {
    "id": "string",
    "label": "int8",
    "group": "string",
    "split": "string",
    "slide": "string",
    "x": "int32",
    "y": "int32",
    "side": "int32",
    "level": "int8",
    "resolution": "float64",
    "tissue": "float64",
    "annotated": "string",
    "probability": "float64",
}


def write_shard(
    target: Path, slide: Slide, tiles: pd.DataFrame, size: int, level: int, progress: Callable[[int], object]
) -> None:
    """Write the tiles of a slide with their pictures.

    Args:
        target: The file.
        slide: From which they are read.
        tiles: Columns `x`, `y`, `width`, `height`, and of the file's as far as there are.
        size: Side of the pictures in px.
        level: From which they are read.
        progress: Called with the number of tiles that were written.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    image = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    types = {name: pa.type_for_alias(kind) for name, kind in _COLUMNS.items() if name in tiles}
    schema = pa.schema([*types.items(), ("image", image)])
    with (
        replacing(target) as temporary,
        pq.ParquetWriter(temporary, schema, compression="NONE") as writer,
        closing(read_tiles(slide, tiles, (size, size), ahead=2 * BATCH, level=level)) as pictures,
    ):
        for start in range(0, len(tiles), BATCH):
            rows = tiles.iloc[start : start + BATCH]
            cells = [{"bytes": encode(picture), "path": None} for picture in islice(pictures, len(rows))]
            columns: list[Any] = [
                pa.array([None if pd.isna(value) else value for value in rows[name].tolist()], kind)
                for name, kind in types.items()
            ]
            writer.write_table(pa.table([*columns, pa.array(cells, image)], schema=schema))
            progress(len(rows))


def encode(picture: np.ndarray) -> bytes:
    """A picture as PNG."""
    file = io.BytesIO()
    Image.fromarray(picture).save(file, "PNG", compress_level=_COMPRESSION)
    return file.getvalue()


def probabilities(model: Model, slide: Slide, tiles: pd.DataFrame, size: int, level: int) -> np.ndarray:
    """What a model says of each tile, batch by batch."""
    with closing(read_tiles(slide, tiles, (size, size), ahead=2 * BATCH, level=level)) as pictures:
        said = [model.assess(np.stack(batch)).probability for batch in _batches(pictures)]
    return np.concatenate([np.asarray(part, np.float64) for part in said]) if said else np.empty(0)


def _batches(pictures: Iterator[np.ndarray]) -> Iterator[list[np.ndarray]]:
    while batch := list(islice(pictures, BATCH)):
        yield batch


def require_alike(model: Model, size: int, resolution: float, where: Path) -> None:
    """Refuse a model that learnt from patches of another size or resolution.

    Raises:
        SlideError: It did.
    """
    trained = model.info.resolution
    if tuple(model.info.patch_size) != (size, size) or (trained and abs(trained / resolution - 1) > 0.02):
        height, width = model.info.patch_size
        raise SlideError(
            f"a model of patches of {width} x {height} px at {trained or '?'} um/px",
            where=where,
            expected=f"{size} x {size} px at {resolution:g}, as tiles are to have",
            remedy="change --size and --resolution, or mine with another model",
        )
