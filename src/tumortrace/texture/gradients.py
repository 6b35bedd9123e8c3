"""Gradients: Sobel edges, and the histogram of oriented gradients."""

from __future__ import annotations

from functools import cache
from itertools import product
from typing import Annotated

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from pydantic import Field

from tumortrace.errors import DataError
from tumortrace.texture.descriptor import DESCRIPTORS, Described
from tumortrace.texture.intensity import percentiles, to_grey


@DESCRIPTORS.register("sobel")
def sobel(images: np.ndarray) -> Described:
    """Statistics of the Sobel derivatives and of their magnitude.

    Sobel and Feldman (1968); equal to scikit-image's `sobel_v` (x), `sobel_h` (y) and `sobel` (magnitude), in its
    units: grey from 0 to 1, borders reflected. Columns: `sobel_x_mean`, `sobel_x_std`, the same of y (mean of the
    absolute value; standard deviation of the value), and of the magnitude mean, std, 90th percentile and maximum.

    Args:
        images: uint8, shape (N, H, W, 3); grey is luminance.

    Returns:
        Names and values, float64, shape (N, 8), range [0, 1].

    Example:
        >>> names, values = sobel(np.full((1, 8, 8, 3), 7, np.uint8))
        >>> len(names), float(values.max())
        (8, 0.0)
    """
    x, y = (each.reshape(len(images), -1) for each in derivatives(to_grey(images)))
    columns = {}
    for name, slope in {"x": x, "y": y}.items():
        columns[f"sobel_{name}_mean"] = np.abs(slope).mean(axis=1) / _SCALE
        columns[f"sobel_{name}_std"] = slope.std(axis=1, dtype=np.float64) / _SCALE
    strength = magnitude(x, y)
    columns["sobel_magnitude_mean"] = strength.mean(axis=1)
    columns["sobel_magnitude_std"] = strength.std(axis=1)
    columns["sobel_magnitude_p90"] = percentiles(strength, (90,))[0]
    columns["sobel_magnitude_max"] = strength.max(axis=1)
    return list(columns), np.stack(list(columns.values()), axis=1)


_SCALE = 4 * 255  # from whole numbers to scikit-image's units


def derivatives(grey: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Sobel derivatives along x (to the right) and y (downwards), in units of 1/1020 of scikit-image's.

    Args:
        grey: uint8, shape (N, H, W).

    Returns:
        Two int16 arrays of shape (N, H, W), range [-1020, 1020].

    Example:
        >>> x, y = derivatives(np.array([[[0, 0, 9], [0, 0, 9]]], np.uint8))
        >>> x[0, 0].tolist(), y[0, 0].tolist()
        ([0, 36, 36], [0, 0, 0])
    """
    padded = np.pad(grey.astype(np.int16), ((0, 0), (1, 1), (1, 1)), mode="symmetric")
    across = padded[:, :, 2:] - padded[:, :, :-2]
    down = padded[:, 2:] - padded[:, :-2]
    x = across[:, :-2] + 2 * across[:, 1:-1] + across[:, 2:]
    y = down[:, :, :-2] + 2 * down[:, :, 1:-1] + down[:, :, 2:]
    return x, y


def magnitude(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Root mean square of both derivatives, float64, range [0, 1], as scikit-image's `sobel`.

    Example:
        >>> float(magnitude(np.int16([[1020]]), np.int16([[1020]]))[0, 0])
        1.0
    """
    squared = np.square(x, dtype=np.int32) + np.square(y, dtype=np.int32)
    return np.sqrt(squared / 2) / _SCALE


# Histogram of oriented gradients.


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
