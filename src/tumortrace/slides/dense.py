"""Dense scanning: blocks of overlapping tiles, each read as one region over which a network passes once."""

from __future__ import annotations

from collections.abc import Generator
from itertools import pairwise
from math import gcd
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from tumortrace.errors import ModelError, SlideError
from tumortrace.slides.slide import Slide
from tumortrace.slides.tiling import read_ahead

if TYPE_CHECKING:
    from tumortrace.models.bundle import Assessment, Model

SIDE = 768
"""Px of a block's side: maps of 64 channels take 150 MB."""


def dense_overlap(model: Model, overlap: float) -> float:
    """The overlap by which tiles lie a whole number of the network's strides apart: `overlap` to half a hundredth.

    Raises:
        ModelError: The network cannot pass over a region, or an exported file computes.
        SlideError: The step of the tiles is no multiple of its stride.
    """
    from tumortrace.models.dense import stride_of

    if getattr(model, "runtime", None) is not None:
        found, remedy = "--dense with an exported file", "leave out --dense, or compute with --backend torch"
        raise ModelError(found, where=model.info.name, expected="the network in torch", remedy=remedy)
    stride, (height, width) = stride_of(model), model.info.patch_size
    step = round(width * (1 - overlap) / stride) * stride
    exact = 1 - step / width
    if step and abs(exact - overlap) <= 0.005 and height * step % (width * stride) == 0:
        return exact
    steps = [step for step in range(stride, width + 1, stride) if height * step % (width * stride) == 0]
    known = ", ".join(f"{1 - step / width:.3g} ({step} px)" for step in reversed(steps[:: max(1, len(steps) // 6)]))
    raise SlideError(
        f"--overlap {overlap:g}, a step of {width * (1 - overlap):.3g} px",
        where="--dense",
        expected=f"a multiple of the network's stride of {stride} px" + (f", such as {known}" if known else ""),
        remedy="change --overlap, or leave out --dense",
    )


def dense_tile(size: tuple[int, int], scale: float, overlap: float, slide: Slide) -> tuple[int, int]:
    """Width and height of tiles in px of level 0, next to what the scale asks, so that steps are whole px of it too.

    Args:
        size: Width and height of tiles in px of their own.
        scale: Level-0 px per px of a tile.
        overlap: From `dense_overlap`.
        slide: For messages.

    Raises:
        SlideError: They would be larger or smaller by more than 1 %.
    """
    laid = []
    for side in size:
        unit = side // gcd(side, round(side * (1 - overlap)))
        laid.append(max(1, round(side * scale / unit)) * unit)
        if abs(laid[-1] / (side * scale) - 1) > 0.01:
            found = f"--dense with --overlap {overlap:g}: steps of whole px ask for tiles of {laid[-1]} px"
            expected, remedy = f"{side * scale:.1f} px, give or take 1 %", "change --overlap, or leave out --dense"
            raise SlideError(found, where=slide.path, expected=expected, remedy=remedy)
    return laid[0], laid[1]


def places_in(side: int, size: tuple[int, int], overlap: float) -> tuple[int, int]:
    """How many tiles of a size (width, height) lie in a block, down and across.

    Example:
        >>> places_in(768, (96, 96), 2 / 3)
        (22, 22)
    """
    down, across = (max(1, int((side - length) // (length * (1 - overlap))) + 1) for length in size[::-1])
    return down, across


def in_blocks(
    tiles: pd.DataFrame, slide: tuple[int, int], size: tuple[int, int], overlap: float, side: int = SIDE
) -> pd.DataFrame:
    """Tiles in the order in which they are computed, with columns `row` and `column` in the grid, and `block`.

    Args:
        tiles: From `tile_tissue`.
        slide: Width and height in px of level 0.
        size: Width and height of tiles in px of their own.
        overlap: As `tile_tissue` was given it.
        side: Px of a block's side.
    """
    row = (tiles["y"] / (tiles["height"] * (1 - overlap))).round().astype(np.int64)
    column = (tiles["x"] / (tiles["width"] * (1 - overlap))).round().astype(np.int64)
    down, across = places_in(side, size, overlap)
    # what reaches beyond the slide, and by how much, is read apart: white would shine into the border of others
    below, beside = tiles["y"] + tiles["height"] - slide[1], tiles["x"] + tiles["width"] - slide[0]
    below, beside = below.clip(lower=0), beside.clip(lower=0)
    keys = pd.DataFrame({"down": row // down, "below": below, "across": column // across, "beside": beside})
    laid = tiles.assign(row=row, column=column, block=keys.groupby(list(keys)).ngroup())
    return laid.sort_values(["block", "row", "column"], kind="stable")


def by_block(
    model: Model, slide: Slide, level: int, overlap: float, tiles: pd.DataFrame
) -> Generator[tuple[np.ndarray, Assessment], None, None]:
    """Yield the pictures of the tiles of each block, and what the model says of them.

    Args:
        model: That `dense_overlap` does not refuse.
        slide: The slide, open until the iterator is exhausted or closed.
        level: From which it is read.
        overlap: From `dense_overlap`.
        tiles: From `in_blocks`, whole blocks.
    """
    from tumortrace.models.dense import assess_places

    height, width = model.info.patch_size
    step = np.array([round(height * (1 - overlap)), round(width * (1 - overlap))])
    blocks = [block for _, block in tiles.groupby("block", sort=False)]

    def read(block: pd.DataFrame) -> np.ndarray:
        x, y, grid = block["x"].min(), block["y"].min(), np.ptp(block[["row", "column"]].to_numpy(), axis=0)
        down, across = (int(side) for side in grid * step + (height, width))
        wide, high = block["x"].max() - x + block["width"].iloc[0], block["y"].max() - y + block["height"].iloc[0]
        # in pieces no taller than wide: of others Pillow resamples the columns first, which rounds otherwise
        piece = int(step[0]) * max(1, across // int(step[0]))
        parts = []
        for top, bottom in pairwise([*range(0, down, piece), down]):
            edges = [round(edge * high / down) for edge in (top, bottom)]
            place = int(x), int(y) + edges[0], int(wide), edges[1] - edges[0]
            parts.append(slide.read_region(*place, size=(across, bottom - top), level=level))
        return np.concatenate(parts)

    regions = read_ahead(read, blocks, ahead=2)
    try:
        for block, region in zip(blocks, regions, strict=True):
            grid = block[["row", "column"]].to_numpy()
            places = (grid - grid.min(axis=0)) * step
            pictures = np.stack([region[y : y + height, x : x + width] for y, x in places])
            yield pictures, assess_places(model, region, places)
    finally:
        regions.close()
