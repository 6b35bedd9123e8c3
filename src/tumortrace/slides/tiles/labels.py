"""The label of each tile of a slide, from areas that were annotated."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
import pandas as pd
import shapely
from shapely.geometry import box
from shapely.geometry.base import BaseGeometry

from tumortrace.slides.annotations.classes import Areas, Classes
from tumortrace.slides.annotations.region import Region

Rule = Literal["centre-third", "share", "centre"]
Border = Literal["edge", "mixed"]
_LEAST = 1e-6  # px² of level 0 in which two areas meet; below, they touch


def label_tiles(tiles: pd.DataFrame, areas: Areas, rule: Rule, share: float) -> pd.Series:
    """1 where a tile is positive by the rule, 0 where it is not, missing where it lies on what is excluded.

    Args:
        tiles: Columns `x`, `y`, `width`, `height` in px of level 0.
        areas: What is positive, and what is excluded.
        rule: `centre-third`: any of it in the middle third, as in PatchCamelyon; `share` of the tile's area;
            `centre`: the point in its middle.
        share: Of the rule `share`, in (0, 1].

    Returns:
        Int64.

    Example:
        >>> tiles = pd.DataFrame({"x": [0, 30], "y": 0, "width": 30, "height": 30})
        >>> areas = Areas(box(0, 0, 11, 11))
        >>> [label_tiles(tiles, areas, rule, 0.1).tolist() for rule in ("centre-third", "share", "centre")]
        [[1, 0], [1, 0], [0, 0]]
    """
    labels = pd.Series(hits(tiles, areas.positive, rule, share).astype(np.int64), index=tiles.index, dtype="Int64")
    return labels.mask(hits(tiles, areas.excluded, rule, share))


def hits(tiles: pd.DataFrame, area: BaseGeometry, rule: Rule, share: float) -> np.ndarray:
    """Whether the rule finds the area in each tile."""
    if area.is_empty:
        return np.zeros(len(tiles), bool)
    if rule == "centre":
        middle = tiles["x"] + tiles["width"] / 2, tiles["y"] + tiles["height"] / 2
        shapely.prepare(area)
        return np.asarray(shapely.contains_xy(area, *(side.to_numpy() for side in middle)))
    if rule == "share":
        return shares(tiles, area) >= share - 1e-9
    return _overlap(middle_third(tiles), area) > _LEAST


def shares(tiles: pd.DataFrame, area: BaseGeometry) -> np.ndarray:
    """Share of each tile that an area covers, in [0, 1]."""
    return _overlap(tiles, area) / (tiles["width"] * tiles["height"]).to_numpy(float)


def middle_third(tiles: pd.DataFrame) -> pd.DataFrame:
    """The middle third of each tile along both sides, as PatchCamelyon's 32 px of 96."""
    third = {"width": tiles["width"] / 3, "height": tiles["height"] / 3}
    return pd.DataFrame({"x": tiles["x"] + third["width"], "y": tiles["y"] + third["height"], **third})


def annotated(tiles: pd.DataFrame, regions: Sequence[Region], classes: Classes) -> np.ndarray:
    """Name of the class that covers most of each tile, as the file has it; blank where none does."""
    names = sorted({region.name for region in regions if region.name and classes.meaning(region.name) != "ignore"})
    if not names or tiles.empty:
        return np.full(len(tiles), "", object)
    unions = [shapely.union_all([region.geometry for region in regions if region.name == name]) for name in names]
    covered = np.stack([_overlap(tiles, union) for union in unions])
    return np.where(covered.max(0) > _LEAST, np.array(names, object)[covered.argmax(0)], "")


def _overlap(boxes: pd.DataFrame, area: BaseGeometry) -> np.ndarray:
    """Area that each box shares with another; strip by strip, as an outline may have a hundred thousand corners."""
    shared = np.zeros(len(boxes))
    if area.is_empty:
        return shared
    x, y, width, height = boxes[["x", "y", "width", "height"]].to_numpy(float).T
    squares = shapely.box(x, y, x + width, y + height)
    left, _, right, _ = area.bounds
    for top in np.unique(y):
        row = np.flatnonzero(y == top)
        strip = area.intersection(box(left, top, right, top + height[row].max()))
        if not strip.is_empty:
            shared[row] = shapely.area(shapely.intersection(squares[row], strip))
    return shared
