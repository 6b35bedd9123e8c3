"""Histogram of oriented gradients."""

from __future__ import annotations

from functools import cache
from itertools import product
from typing import Annotated

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from pydantic import Field

from tumortrace.errors import DataError
from tumortrace.texture.descriptor import DESCRIPTORS, Described
from tumortrace.texture.grey import to_grey

_HYSTERESIS, _EPSILON = 0.2, 1e-5


@DESCRIPTORS.register("hog")
def hog(
    images: np.ndarray,
    *,
    cells: Annotated[int, Field(ge=1)] = 4,
    block: Annotated[int, Field(ge=1)] = 2,
    orientations: Annotated[int, Field(ge=1, le=180)] = 9,
) -> Described:
    """Histograms of gradient orientation in a grid of cells, normalised within overlapping blocks (L2-Hys).

    Dalal and Triggs (2005), "Histograms of oriented gradients for human detection"; equal to scikit-image's `hog` with
    `pixels_per_cell = (H // cells, W // cells)`. The grid has the same number of cells whatever the size of the
    images, and so the descriptor the same length; a remainder of rows below and columns on the right is left out.
    Columns: `hog_b<row><column>_c<row><column>_o<orientation>` (block, cell within it, orientation from 0 to 180
    degrees), range [0, 1]; all 0 for an image of one value.

    Args:
        images: uint8, shape (N, H, W, 3); grey is luminance.
        cells: Cells in a row and in a column.
        block: Cells in a row and in a column of a block, at most `cells`.
        orientations: Bins of orientation.

    Returns:
        Names and values, float64, shape (N, (cells - block + 1)^2 x block^2 x orientations).

    Raises:
        DataError: The images are too small for so many cells, or the blocks larger than the grid.

    Example:
        >>> names, values = hog(np.zeros((1, 96, 96, 3), np.uint8))
        >>> values.shape, names[-1]
        ((1, 324), 'hog_b22_c11_o8')
    """
    height, width = images.shape[1] // cells, images.shape[2] // cells
    if not (height and width and block <= cells):
        found = f"{cells}x{cells} cells in blocks of {block}x{block}"
        expected = f"cells of one pixel or more in images of {images.shape[2]}x{images.shape[1]} px, and smaller blocks"
        raise DataError(found, where="descriptor hog", expected=expected, remedy="set hog.cells and hog.block to less")
    bins, magnitude = gradients(to_grey(images)[:, : cells * height, : cells * width], orientations)
    down, right = np.arange(cells * height) // height, np.arange(cells * width) // width
    cell = (down[:, None] * cells + right) * orientations
    shape = (len(images), cells, cells, orientations)
    place = bins + (cell + (np.arange(len(images)) * (cells * cells * orientations))[:, None, None])
    histogram = np.bincount(place.ravel(), magnitude.ravel(), minlength=int(np.prod(shape))) / (height * width)
    windows = sliding_window_view(histogram.reshape(shape), (block, block), axis=(1, 2)).transpose(0, 1, 2, 4, 5, 3)
    blocks = windows.reshape(*windows.shape[:3], -1)
    blocks = np.minimum(blocks / _norm(blocks), _HYSTERESIS)
    places = product(*map(range, windows.shape[1:]))
    names = [f"hog_b{row}{column}_c{down}{right}_o{each}" for row, column, down, right, each in places]
    return names, (blocks / _norm(blocks)).reshape(len(images), -1)


def gradients(grey: np.ndarray, orientations: int = 9) -> tuple[np.ndarray, np.ndarray]:
    """Orientation and magnitude of the gradient, by centred differences; 0 across the border, as in scikit-image.

    Args:
        grey: uint8, shape (N, H, W).
        orientations: Bins of orientation, over 0 to 180 degrees.

    Returns:
        uint8 bins, range [0, orientations), and float64 magnitudes (grey levels), both of shape (N, H, W).

    Example:
        >>> bins, magnitude = gradients(np.array([[[0, 0, 0], [0, 9, 8], [0, 0, 0]]], np.uint8))
        >>> bins[0, 1].tolist(), magnitude[0, 1].tolist()
        ([0, 0, 0], [0.0, 8.0, 0.0])
    """
    bins, magnitudes = _table(orientations)
    code = np.full(grey.shape, 255 * 511 + 255, np.intp)
    code[:, 1:-1] += (grey[:, 2:].astype(np.intp) - grey[:, :-2]) * 511
    code[:, :, 1:-1] += grey[:, :, 2:].astype(np.intp) - grey[:, :, :-2]
    return bins[code], magnitudes[code]


@cache
def _table(orientations: int) -> tuple[np.ndarray, np.ndarray]:
    """Bin and magnitude of every gradient there can be, at (rows + 255) * 511 + columns + 255."""
    rows, columns = np.mgrid[-255.0:256, -255.0:256]
    degrees = np.rad2deg(np.arctan2(rows, columns)) % 180
    edges = 180.0 / orientations * np.arange(1, orientations + 1)
    bins = np.minimum(np.searchsorted(edges, degrees, side="right"), orientations - 1)
    return bins.astype(np.uint8).ravel(), np.hypot(rows, columns).ravel()


def _norm(blocks: np.ndarray) -> np.ndarray:
    return np.sqrt((blocks**2).sum(axis=-1, keepdims=True) + _EPSILON**2)
