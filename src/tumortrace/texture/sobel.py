"""Sobel edges: strength across, along and in any direction."""

from __future__ import annotations

import numpy as np

from tumortrace.texture.descriptor import DESCRIPTORS, Described
from tumortrace.texture.grey import percentiles, to_grey


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
