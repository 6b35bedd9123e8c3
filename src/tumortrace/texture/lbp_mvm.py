"""Multi-variance median local binary patterns: codes of the local mean, variance and median, joined."""

from __future__ import annotations

import numpy as np

from tumortrace.texture.descriptor import DESCRIPTORS, Described
from tumortrace.texture.grey import shares, to_grey
from tumortrace.texture.ring import UNIFORM, codes, square, window_median, window_sum


@DESCRIPTORS.register("lbp-mvm")
def lbp_mvm(images: np.ndarray) -> Described:
    """Shares of uniform patterns of three maps: local mean, local variance and local median.

    Definition. For each pixel, the mean m, the variance v (population) and the median d of its 3x3 window, borders
    mirrored. Each of the three is a map, and on each the local binary pattern is taken: bit k is set where the map at
    the neighbour at 45 k degrees, on the square, is at least the map at the pixel, the map's border mirrored. The 58
    codes of at most two changes around the circle have a bin each and all others one; the three histograms of 59
    shares stand side by side. All comparisons are between whole numbers (9 m, 81 v, d), thus exact.

    It rests on local binary patterns and their uniform codes (Ojala, Pietikäinen and Mäenpää 2002), on the mean and
    the median of the window in place of its centre (Jin, Liu, Lu and Tong 2004; Hafiane, Seetharaman and Zavidovique
    2007), on local variance beside the code (Guo, Zhang and Zhang 2010), and on patterns of median-filtered images
    (Liu, Lao, Fieguth, Guo, Wang and Pietikäinen 2016, "Median robust extended local binary pattern for texture
    classification"). The name is System E's of the reference systems, the joint definition is given here.

    Args:
        images: uint8, shape (N, H, W, 3); grey is luminance.

    Returns:
        Names `lbp_mvm_mean_00` to `58`, the same of `variance` and `median`, and values, float64, shape (N, 177),
        range [0, 1].

    Example:
        >>> names, values = lbp_mvm(np.zeros((1, 8, 8, 3), np.uint8))
        >>> values.shape, [float(values[0, 59 * each + 57]) for each in range(3)]
        ((1, 177), [1.0, 1.0, 1.0])
    """
    found = mvm_codes(to_grey(images))
    names = [f"lbp_mvm_{each}_{bin:02d}" for each in found for bin in range(59)]
    return names, np.concatenate([shares(code, UNIFORM) for code in found.values()], axis=1)


def mvm_codes(grey: np.ndarray) -> dict[str, np.ndarray]:
    """The codes of each pixel on the maps `mean`, `variance` and `median`.

    Args:
        grey: uint8, shape (N, H, W).

    Returns:
        Three uint8 arrays of shape (N, H, W).

    Example:
        >>> found = mvm_codes(np.arange(9, dtype=np.uint8).reshape(1, 3, 3))
        >>> {name: int(code[0, 1, 1]) for name, code in found.items()}
        {'mean': 225, 'variance': 0, 'median': 225}
    """
    wide = grey.astype(np.int32)
    total = window_sum(wide)
    maps = {"mean": total, "variance": 9 * window_sum(wide * wide) - total * total, "median": window_median(grey)}
    return {name: codes(square(values), values) for name, values in maps.items()}
