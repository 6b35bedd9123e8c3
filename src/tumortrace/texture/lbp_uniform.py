"""Uniform local binary patterns, the same however the image is turned."""

from __future__ import annotations

import numpy as np

from tumortrace.texture.descriptor import DESCRIPTORS, Described
from tumortrace.texture.grey import shares, to_grey
from tumortrace.texture.lbp_basic import basic_codes
from tumortrace.texture.ring import ROTATION_INVARIANT


@DESCRIPTORS.register("lbp-uniform")
def lbp_uniform(images: np.ndarray) -> Described:
    """Shares of the rotation-invariant uniform patterns of eight neighbours at radius 1.

    Ojala, Pietikäinen and Mäenpää (2002), "Multiresolution gray-scale and rotation invariant texture classification
    with local binary patterns"; equal to scikit-image's `local_binary_pattern(grey, 8, 1, "uniform")`. Column k counts
    the codes of k ones in one run; column 9 all others.

    Args:
        images: uint8, shape (N, H, W, 3); grey is luminance.

    Returns:
        Names `lbp_uniform_0` to `lbp_uniform_9`, and values, float64, shape (N, 10), range [0, 1].

    Example:
        >>> names, values = lbp_uniform(np.zeros((1, 8, 8, 3), np.uint8))
        >>> float(values[0, 8])
        1.0
    """
    return [f"lbp_uniform_{each}" for each in range(10)], shares(basic_codes(to_grey(images)), ROTATION_INVARIANT)
