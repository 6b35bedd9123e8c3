"""The grid of tiles over a slide's tissue, and their pixels read ahead of the model."""

from __future__ import annotations

import math
import os
from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

import numpy as np
import pandas as pd

from tumortrace.slides.slide import Slide

Item = TypeVar("Item")


def tile_tissue(
    mask: np.ndarray, slide: tuple[int, int], tile: tuple[float, float], *, overlap: float, minimum_tissue: float
) -> pd.DataFrame:
    """Tiles that hold enough tissue, row by row.

    The grid starts in the upper left corner and covers the whole slide; tiles at the right and lower edge may
    reach beyond it, where there is no tissue.

    Args:
        mask: bool array, the tissue on a thumbnail of the slide.
        slide: Width and height in level-0 px.
        tile: Width and height of a tile in level-0 px, rounded to whole px.
        overlap: Share of a tile's side that the next one repeats, in [0, .9].
        minimum_tissue: Smallest share of tissue in a tile that is kept, in [0, 1].

    Returns:
        Columns `x`, `y`, `width`, `height` (int, level-0 px) and `tissue` (share in [0, 1], exact to the mask).

    Example:
        >>> mask = np.zeros((10, 10), bool)
        >>> mask[:, :5] = True
        >>> tile_tissue(mask, (100, 100), (40, 40), overlap=0, minimum_tissue=0.25).head(2)
           x  y  width  height  tissue
        0  0  0     40      40    1.00
        1 40  0     40      40    0.25
    """
    width, height = (max(1, round(side)) for side in tile)
    columns, rows = _positions(slide[0], width, overlap), _positions(slide[1], height, overlap)
    across = _coverage(columns, width, slide[0], mask.shape[1])
    down = _coverage(rows, height, slide[1], mask.shape[0])
    tissue = down @ mask.astype(np.float32) @ across.T
    row, column = np.nonzero((tissue >= minimum_tissue - 1e-6) & (tissue > 0))
    return pd.DataFrame(
        {
            "x": columns[column],
            "y": rows[row],
            "width": width,
            "height": height,
            "tissue": np.clip(tissue[row, column].astype(np.float64), 0, 1).round(4),
        }
    )


def cells(tiles: pd.DataFrame, overlap: float) -> pd.DataFrame:
    """The middle of each tile, as long as a step of the grid: what the tile's probability is shown and counted for.

    Cells lie side by side whatever the overlap, so that no spot is counted twice and a tile that is called positive
    for its centre does not colour its surroundings. Without overlap they are the tiles.

    Args:
        tiles: From `tile_tissue`, with further columns or without.
        overlap: What `tile_tissue` was given.

    Returns:
        The same table with `x`, `y`, `width` and `height` of the cells, int, level-0 px.

    Example:
        >>> tiles = pd.DataFrame({"x": [0, 15, 30], "y": 0, "width": 30, "height": 30})
        >>> cells(tiles, 0.5)[["x", "width"]].to_numpy().tolist()
        [[8, 14], [22, 16], [38, 14]]
    """
    shown = tiles.copy()
    for start, length in (("x", "width"), ("y", "height")):
        stride = tiles[length] * (1 - overlap)
        number = (tiles[start] / stride).round()  # as _positions counted
        first = (tiles[length] - stride) / 2
        edges = [(first + step * stride).round().astype(np.int64) for step in (number, number + 1)]
        shown[start], shown[length] = edges[0], edges[1] - edges[0]
    return shown


def read_tiles(
    slide: Slide, tiles: pd.DataFrame, size: tuple[int, int], *, ahead: int, level: int | None = None
) -> Generator[np.ndarray, None, None]:
    """Yield the pixels of each tile in order, read by several threads at most `ahead` tiles in advance.

    Args:
        slide: The slide, open until the iterator is exhausted or closed.
        tiles: Columns `x`, `y`, `width`, `height` in level-0 px.
        size: Width and height of the results in px.
        ahead: Tiles that may wait in memory.
        level: Of the slide; None takes the best one for each tile.

    Yields:
        uint8 arrays (size[1], size[0], 3).
    """

    def read(x: int, y: int, width: int, height: int) -> np.ndarray:
        return slide.read_region(x, y, width, height, size=size, level=level)

    rows: Iterable[tuple[int, ...]] = tiles[["x", "y", "width", "height"]].itertuples(index=False, name=None)
    yield from read_ahead(lambda row: read(*row), rows, ahead=ahead)


def read_ahead(
    read: Callable[[Item], np.ndarray], items: Iterable[Item], *, ahead: int
) -> Generator[np.ndarray, None, None]:
    """Yield what `read` gives for each item, in order, by several threads and at most `ahead` items in advance."""
    pending: deque[Future[np.ndarray]] = deque()
    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        try:
            for item in items:
                pending.append(pool.submit(read, item))
                if len(pending) >= ahead:
                    yield pending.popleft().result()
            while pending:
                yield pending.popleft().result()
        finally:  # on an error or Ctrl-C, only the tiles that a thread has begun are waited for
            for future in pending:
                future.cancel()


def _positions(length: int, tile: int, overlap: float) -> np.ndarray:
    """Where the tiles along one side begin; a rest of less than a hundredth of a step gets no tile."""
    stride = tile * (1 - overlap)
    count = max(0, math.ceil((length - tile) / stride - 0.01)) + 1
    return np.rint(np.arange(count) * stride).astype(np.int64)


def _coverage(starts: np.ndarray, side: int, length: int, pixels: int) -> np.ndarray:
    """Share of each tile's side (rows) that falls into each thumbnail px (columns)."""
    edges = np.linspace(0, length, pixels + 1)
    shared = np.minimum(starts[:, None] + side, edges[None, 1:]) - np.maximum(starts[:, None], edges[None, :-1])
    return (np.clip(shared, 0, None) / side).astype(np.float32)
