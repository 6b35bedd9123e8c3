"""Foci of a scan's map: cells side by side above a threshold, their sizes, and the surest places of a slide."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import ndimage
from scipy.spatial import cKDTree
from scipy.spatial.distance import pdist
from shapely import MultiPoint, get_coordinates

Floats = NDArray[np.float64]
LEAST = 0.1
"""Probability below which nothing is a detection."""
APART = 190.0
"""Um within which a surer place stands for the others: 12 points of a map of 15.6 um, as in Li & Ping 2018 (NCRF)."""


@dataclass(frozen=True)
class Focus:
    """Cells that share an edge, all at or above a threshold.

    Attributes:
        cells: How many.
        area: Mm².
        extent: Largest distance between the middles of two cells and one cell's side, um: true to about one cell.
        highest: Probability, like `mean`.
        place: Number of the surest cell, as a row of the tiles.
    """

    cells: int
    area: float
    extent: float
    highest: float
    mean: float
    place: int


@dataclass(frozen=True)
class Grid:
    """The cells of a scan on their grid.

    Attributes:
        row: Of each, like `column`, shape (n,).
        middle: x and y of each in pixels of level 0, shape (n, 2).
        side: Width and height of a cell in um.
        probability: Of each.
    """

    row: NDArray[np.int64]
    column: NDArray[np.int64]
    middle: Floats
    side: tuple[float, float]
    probability: Floats


def grid_of(tiles: pd.DataFrame, overlap: float, resolution: float) -> Grid:
    """The cells of a scan.

    Args:
        tiles: Columns `x`, `y`, `width`, `height` (pixels of level 0) and `probability`, as in tiles.csv.
        overlap: Of the scan.
        resolution: Um per px of level 0.
    """
    numbers, sides, middles = [], [], []
    for start, length in (("y", "height"), ("x", "width")):
        stride = tiles[length].to_numpy(np.float64) * (1 - overlap)
        numbers.append(np.rint(tiles[start].to_numpy() / stride).astype(np.int64))
        sides.append(float(stride[0] * resolution) if len(stride) else 0.0)
        middles.append(tiles[start].to_numpy(np.float64) + tiles[length].to_numpy() / 2)
    probability = tiles["probability"].to_numpy(np.float64)
    return Grid(numbers[0], numbers[1], np.stack(middles[::-1], axis=1), (sides[1], sides[0]), probability)


def foci(grid: Grid, threshold: float) -> list[Focus]:
    """The foci at or above a threshold, the largest extent first.

    Example:
        >>> tiles = pd.DataFrame({"x": [0, 10, 30], "y": 0, "width": 10, "height": 10, "probability": [0.9, 0.6, 0.7]})
        >>> [(focus.cells, focus.extent, focus.highest) for focus in foci(grid_of(tiles, 0.0, 2.0), 0.5)]
        [(2, 40.0, 0.9), (1, 20.0, 0.7)]
    """
    above = np.flatnonzero(grid.probability >= threshold)
    if not len(above):
        return []
    row, column = grid.row[above] - grid.row[above].min(), grid.column[above] - grid.column[above].min()
    plane = np.zeros((row.max() + 1, column.max() + 1), bool)
    plane[row, column] = True
    part = ndimage.label(plane)[0][row, column]
    order = np.argsort(part, kind="stable")
    pieces = np.split(above[order], np.flatnonzero(np.diff(part[order])) + 1)
    return sorted((_focus(grid, cells) for cells in pieces), key=lambda focus: (-focus.extent, focus.place))


def _focus(grid: Grid, cells: NDArray[np.int64]) -> Focus:
    across, down = grid.side
    points = np.stack([grid.column[cells] * across, grid.row[cells] * down], axis=1)
    outer = get_coordinates(MultiPoint(points).convex_hull)
    apart = float(pdist(outer).max()) if len(outer) > 1 else 0.0
    chances = grid.probability[cells]
    return Focus(
        cells=len(cells),
        area=len(cells) * across * down / 1e6,
        extent=apart + float(np.sqrt(across * down)),
        highest=float(chances.max()),
        mean=float(chances.mean()),
        place=int(cells[chances.argmax()]),
    )


def detections(grid: Grid, resolution: float, *, least: float = LEAST, apart: float = APART) -> NDArray[np.int64]:
    """The places of a slide at which tumour is detected, the surest first: each stands for what lies around it.

    The surest cell is a detection, those around it within `apart` are none, and so on with the surest that is left.

    Args:
        grid: Of the slide.
        resolution: Um per px of level 0.
        least: Probability below which nothing is a detection.
        apart: Um; at least the diagonal of a cell, so that neighbours are one detection.

    Returns:
        Their numbers, as rows of the tiles.

    Example:
        >>> tiles = pd.DataFrame({"x": [0, 10, 30], "y": 0, "width": 10, "height": 10, "probability": [0.6, 0.9, 0.7]})
        >>> detections(grid_of(tiles, 0.0, 10.0), 10.0).tolist()
        [1, 2]
    """
    sure = np.flatnonzero(grid.probability >= least)
    if not len(sure):
        return sure
    places = grid.middle[sure] * resolution
    tree, reach = cKDTree(places), max(apart, 1.01 * float(np.hypot(*grid.side)))
    left, kept = np.ones(len(sure), bool), []
    for number in np.argsort(-grid.probability[sure], kind="stable").tolist():
        if left[number]:
            kept.append(number)
            left[tree.query_ball_point(places[number], reach)] = False
    return sure[kept]
