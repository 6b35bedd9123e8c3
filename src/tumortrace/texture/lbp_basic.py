"""Local binary patterns: is each neighbour at least as bright as the centre?"""

from __future__ import annotations

import numpy as np

from tumortrace.texture.descriptor import DESCRIPTORS, Described
from tumortrace.texture.grey import count, to_grey
from tumortrace.texture.ring import circle, codes


@DESCRIPTORS.register("lbp-basic")
def lbp_basic(images: np.ndarray) -> Described:
    """Shares of the 256 local binary patterns of eight neighbours at radius 1.

    Ojala, Pietikäinen and Harwood (1996), "A comparative study of texture measures with classification based on
    featured distributions"; codes equal to scikit-image's `local_binary_pattern(grey, 8, 1)`. Bit k is set where the
    neighbour at 45 k degrees is at least as bright as the centre; what lies outside of the image is black.

    Args:
        images: uint8, shape (N, H, W, 3); grey is luminance.

    Returns:
        Names `lbp_basic_000` to `lbp_basic_255`, and values, float64, shape (N, 256), range [0, 1].

    Example:
        >>> names, values = lbp_basic(np.zeros((1, 8, 8, 3), np.uint8))
        >>> float(values[0, 255])
        1.0
    """
    names = [f"lbp_basic_{code:03d}" for code in range(256)]
    return names, count(basic_codes(to_grey(images))) / (images.shape[1] * images.shape[2])


def basic_codes(grey: np.ndarray) -> np.ndarray:
    """The code of each pixel.

    Args:
        grey: uint8, shape (N, H, W).

    Returns:
        uint8, shape (N, H, W).

    Example:
        >>> int(basic_codes(np.arange(9, dtype=np.uint8).reshape(1, 3, 3))[0, 1, 1])  # bits 0, 5, 6, 7
        225
    """
    return codes(circle(grey), grey)
