"""Mean-based local binary patterns: is each neighbour at least as bright as its surroundings?"""

from __future__ import annotations

import numpy as np

from tumortrace.texture.descriptor import DESCRIPTORS, Described
from tumortrace.texture.grey import shares, to_grey
from tumortrace.texture.ring import UNIFORM, codes, square, window_sum


@DESCRIPTORS.register("lbp-mean")
def lbp_mean(images: np.ndarray) -> Described:
    """Shares of uniform patterns whose threshold is the mean of the 3x3 window instead of its centre.

    After the improved local binary patterns of Jin, Liu, Lu and Tong (2004), "Face detection using improved LBP under
    Bayesian framework", whose ninth bit, for the centre, is left out here. Bit k is set where the neighbour on the
    square at 45 k degrees is at least the mean of all nine; borders are mirrored. The 58 codes of at most two changes
    around the circle have a column each, in ascending order; the last column counts all others.

    Args:
        images: uint8, shape (N, H, W, 3); grey is luminance.

    Returns:
        Names `lbp_mean_00` to `lbp_mean_58`, and values, float64, shape (N, 59), range [0, 1].

    Example:
        >>> names, values = lbp_mean(np.zeros((1, 8, 8, 3), np.uint8))
        >>> float(values[0, 57])
        1.0
    """
    return [f"lbp_mean_{each:02d}" for each in range(59)], shares(mean_codes(to_grey(images)), UNIFORM)


def mean_codes(grey: np.ndarray) -> np.ndarray:
    """The code of each pixel.

    Args:
        grey: uint8, shape (N, H, W).

    Returns:
        uint8, shape (N, H, W).

    Example:
        >>> int(mean_codes(np.array([[[9, 0, 0], [0, 0, 0], [0, 0, 9]]], np.uint8))[0, 1, 1])  # bits 3 and 7
        136
    """
    wide = grey.astype(np.uint16)
    return codes((neighbour * np.uint16(9) for neighbour in square(wide)), window_sum(wide))
