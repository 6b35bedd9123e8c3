"""The outlines of what is marked on a picture, along the edges of its px."""

from __future__ import annotations

import numpy as np
import shapely
from shapely.geometry import MultiPolygon


def trace(mask: np.ndarray) -> MultiPolygon:
    """What is True, exactly: px are squares of side 1, the first from (0, 0) to (1, 1).

    Args:
        mask: bool array (height, width).

    Returns:
        Parts that share no edge; those of px that meet in a corner alone are apart.

    Example:
        >>> ring = np.ones((3, 3), bool)
        >>> ring[1, 1] = False
        >>> area = trace(ring)
        >>> area.area, area.bounds, len(area.geoms[0].interiors)
        (8.0, (0.0, 0.0, 3.0, 3.0), 1)
    """
    padded = np.pad(mask.astype(np.int8), 1)
    row, left, right = _straight(np.diff(padded, axis=0)[:, 1:-1])
    column, top, bottom = _straight(np.diff(padded, axis=1)[1:-1].T)
    across = np.stack([np.stack([left, row], -1), np.stack([right, row], -1)], 1)
    down = np.stack([np.stack([column, top], -1), np.stack([column, bottom], -1)], 1)
    # Lines end where others meet them and nowhere else, so that the faces between them need no cutting.
    faces = shapely.polygonize(shapely.linestrings(np.concatenate([across, down]).astype(np.float64)))
    parts = shapely.get_parts(faces)
    x, y = shapely.get_coordinates(shapely.point_on_surface(parts)).reshape(-1, 2).T.astype(np.int64)
    return MultiPolygon(list(parts[mask[y, x]]))


def _straight(steps: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Row, first column and column after the last of each run of one sign in a row."""
    changes = np.diff(np.pad(steps, ((0, 0), (1, 1))), axis=1)
    row, column = np.nonzero(changes)
    starts = np.pad(steps, ((0, 0), (0, 1)))[row, column] != 0
    return row[starts], column[starts], np.append(column[1:], 0)[starts]  # each row ends with a change to zero
