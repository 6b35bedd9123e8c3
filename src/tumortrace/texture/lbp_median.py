"""Median-based local binary patterns."""

from __future__ import annotations

import numpy as np

from tumortrace.texture.descriptor import DESCRIPTORS, Described
from tumortrace.texture.grey import shares, to_grey
from tumortrace.texture.ring import UNIFORM, codes, square, window_median


@DESCRIPTORS.register("lbp-median")
def lbp_median(images: np.ndarray) -> Described:
    """Shares of uniform patterns whose threshold is the median of the 3x3 window instead of its centre.

    After the median binary patterns of Hafiane, Seetharaman and Zavidovique (2007), "Median binary pattern for textures
    classification", whose ninth bit, for the centre, is left out here. Bit k is set where the neighbour on the square
    at 45 k degrees is at least the median of all nine; borders are mirrored; columns as for `lbp-mean`.

    Args:
        images: uint8, shape (N, H, W, 3); grey is luminance.

    Returns:
        Names `lbp_median_00` to `lbp_median_58`, and values, float64, shape (N, 59), range [0, 1].

    Example:
        >>> names, values = lbp_median(np.zeros((1, 8, 8, 3), np.uint8))
        >>> float(values[0, 57])
        1.0
    """
    return [f"lbp_median_{each:02d}" for each in range(59)], shares(median_codes(to_grey(images)), UNIFORM)


def median_codes(grey: np.ndarray) -> np.ndarray:
    """The code of each pixel.

    Args:
        grey: uint8, shape (N, H, W).

    Returns:
        uint8, shape (N, H, W).

    Example:
        >>> int(median_codes(np.array([[[7, 1, 2], [8, 5, 3], [6, 4, 9]]], np.uint8))[0, 1, 1])  # median 5
        184
    """
    return codes(square(grey), window_median(grey))
