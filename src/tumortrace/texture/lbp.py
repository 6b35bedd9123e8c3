"""Local binary patterns of all kinds: codes of eight bits from a pixel's eight neighbours.

Neighbour k lies at an angle of 45 k degrees, counter-clockwise from the right, and gives bit k.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from tumortrace.texture.descriptor import DESCRIPTORS, Described
from tumortrace.texture.intensity import count, shares, to_grey

PLACES = ((0, 1), (-1, 1), (-1, 0), (-1, -1), (0, -1), (1, -1), (1, 0), (1, 1))  # rows and columns from the centre

_BITS = np.arange(256)[:, None] >> np.arange(8) & 1
_CHANGES = (np.roll(_BITS, 1, axis=1) != _BITS).sum(axis=1)

#: Bin of each code, 10 in all: the number of ones in a code of at most two changes around the circle, else 9. Such
#: "uniform" codes are edges, corners, spots; turned by 45 degrees they stay in their bin (Ojala et al. 2002).
ROTATION_INVARIANT = np.where(_CHANGES <= 2, _BITS.sum(axis=1), 9)

#: Bin of each code, 59 in all: each of the 58 uniform codes its own, in ascending order; all others 58.
UNIFORM = np.where(_CHANGES <= 2, np.cumsum(_CHANGES <= 2) - 1, 58)


def square(maps: np.ndarray) -> list[np.ndarray]:
    """The eight neighbours of each pixel on the 3x3 square, the border mirrored (d c b a | a b c d | d c b a).

    Args:
        maps: Shape (N, H, W), any type.

    Returns:
        Eight arrays of the same shape and type.

    Example:
        >>> [int(each[0, 1, 1]) for each in square(np.arange(9).reshape(1, 3, 3))]
        [5, 2, 1, 0, 3, 6, 7, 8]
    """
    padded = np.pad(maps, ((0, 0), (1, 1), (1, 1)), mode="symmetric")
    height, width = maps.shape[1:]
    return [padded[:, 1 + row : 1 + row + height, 1 + column : 1 + column + width] for row, column in PLACES]


def circle(grey: np.ndarray) -> list[np.ndarray]:
    """The eight neighbours of each pixel on the circle of radius 1, interpolated, 0 outside of the image.

    Every step is rounded as in scikit-image's `local_binary_pattern`, down to the last bit, since neighbours that are
    equal to the centre turn on it.

    Args:
        grey: uint8, shape (N, H, W).

    Returns:
        Eight arrays of the same shape, range [0, 255]: uint8 beside and above, float64 on the diagonals.

    Example:
        >>> [round(float(each[0, 1, 1]), 3) for each in circle(np.arange(9, dtype=np.uint8).reshape(1, 3, 3))]
        [5.0, 2.586, 1.0, 1.172, 3.0, 5.414, 7.0, 6.828]
    """
    padded = np.pad(grey, ((0, 0), (1, 1), (1, 1)))
    height, width = grey.shape[1:]
    fine = padded.astype(np.float64)
    rows, columns = np.arange(height)[:, None], np.arange(width)
    beside = {}
    for side in (-1, 1):
        share = _fraction(columns, side)
        left = (1 + side) // 2
        beside[side] = (1 - share) * fine[:, :, left : left + width] + share * fine[:, :, left + 1 : left + 1 + width]
    neighbours = []
    for row, column in PLACES:
        if row and column:
            share, top = _fraction(rows, row), (1 + row) // 2
            upper, lower = beside[column][:, top : top + height], beside[column][:, top + 1 : top + 1 + height]
            neighbours.append((1 - share) * upper + share * lower)
        else:
            neighbours.append(padded[:, 1 + row : 1 + row + height, 1 + column : 1 + column + width])
    return neighbours


def codes(neighbours: Iterable[np.ndarray], threshold: np.ndarray) -> np.ndarray:
    """Bit k is 1 where neighbour k is at least `threshold`: uint8, of the threshold's shape.

    Example:
        >>> codes([np.array([value]) for value in (5, 2, 1, 0, 3, 6, 7, 8)], np.array([4])).tolist()
        [225]
    """
    code = np.zeros(threshold.shape, np.uint8)
    for bit, neighbour in enumerate(neighbours):
        code |= (neighbour >= threshold).view(np.uint8) << np.uint8(bit)
    return code


def window_sum(maps: np.ndarray) -> np.ndarray:
    """Sum over the 3x3 window around each pixel, the border mirrored; of the type of `maps`.

    Example:
        >>> window_sum(np.ones((1, 2, 2), np.uint16)).tolist()
        [[[9, 9], [9, 9]]]
    """
    padded = np.pad(maps, ((0, 0), (1, 1), (1, 1)), mode="symmetric")
    rows = padded[:, :-2] + padded[:, 1:-1] + padded[:, 2:]
    return rows[:, :, :-2] + rows[:, :, 1:-1] + rows[:, :, 2:]


def window_median(grey: np.ndarray) -> np.ndarray:
    """Median over the 3x3 window around each pixel, the border mirrored; of the type of `grey`.

    The median of nine is the median of three: the largest of the columns' minima, the median of their medians and the
    smallest of their maxima.

    Example:
        >>> window_median(np.arange(9).reshape(1, 3, 3))[0].tolist()
        [[1, 2, 2], [3, 4, 5], [6, 6, 7]]
    """
    padded = np.pad(grey, ((0, 0), (1, 1), (1, 1)), mode="symmetric")
    low, middle, high = _sorted(padded[:, :-2], padded[:, 1:-1], padded[:, 2:])
    largest = np.maximum(np.maximum(low[..., :-2], low[..., 1:-1]), low[..., 2:])
    smallest = np.minimum(np.minimum(high[..., :-2], high[..., 1:-1]), high[..., 2:])
    centre = _sorted(middle[..., :-2], middle[..., 1:-1], middle[..., 2:])[1]
    return _sorted(largest, centre, smallest)[1]


def _sorted(a: np.ndarray, b: np.ndarray, c: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    low, high = np.minimum(a, b), np.maximum(a, b)
    middle = np.maximum(low, np.minimum(high, c))
    return np.minimum(low, c), middle, np.maximum(high, c)


def _fraction(place: np.ndarray, side: int) -> np.ndarray:
    """Where between two pixels a neighbour on the diagonal lies; its distance has five decimals in scikit-image."""
    point = place + side * 0.70711
    return point - np.floor(point)


# Local binary patterns: is each neighbour at least as bright as the centre?


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


# Mean-based local binary patterns: is each neighbour at least as bright as its surroundings?


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


# Median-based local binary patterns.


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


# Multi-variance median local binary patterns: codes of the local mean, variance and median, joined.


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


# Uniform local binary patterns, the same however the image is turned.


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


# Local variance around each pixel, by itself and as the weight of its pattern.


BINS = 15


@DESCRIPTORS.register("lbp-variance")
def lbp_variance(images: np.ndarray) -> Described:
    """Histogram of the variance among eight neighbours, and uniform patterns weighted by it.

    Columns `lbp_variance_00` to `14`: shares of pixels whose variance VAR among the eight neighbours at radius 1 is
    below 1, from 1 to 2, from 2 to 4, and on by powers of two (Ojala, Pietikäinen and Mäenpää 2002); VAR equals
    scikit-image's `local_binary_pattern(grey, 8, 1, "var")`, but is 0 where that is undefined, for eight equal
    neighbours. Columns `lbp_variance_weighted_0` to `9`: the patterns of `lbp-uniform`, each pixel counted by its
    variance, with sum 1; all 0 where nothing varies (Guo, Zhang and Zhang 2010, "Rotation invariant texture
    classification using LBP variance (LBPV) with global matching").

    Args:
        images: uint8, shape (N, H, W, 3); grey is luminance.

    Returns:
        Names and values, float64, shape (N, 25), range [0, 1].

    Example:
        >>> names, values = lbp_variance(np.zeros((1, 2, 2, 3), np.uint8))
        >>> values[0, :2].tolist(), float(values[0, 15:].sum())
        ([1.0, 0.0], 0.0)
    """
    grey = to_grey(images)
    neighbours = circle(grey)
    variances = _variance(neighbours)
    power = np.clip(np.frexp(variances)[1], 0, BINS - 1).astype(np.uint8)  # 1 for values from 1 to 2
    pattern = ROTATION_INVARIANT[codes(neighbours, grey)]
    pattern += 10 * np.arange(len(grey))[:, None, None]
    weight = np.bincount(pattern.ravel(), variances.ravel(), minlength=10 * len(grey)).reshape(len(grey), 10)
    total = weight.sum(axis=1, keepdims=True)
    names = [f"lbp_variance_{each:02d}" for each in range(BINS)]
    names += [f"lbp_variance_weighted_{each}" for each in range(10)]
    histogram = shares(power, np.minimum(np.arange(256), BINS - 1))
    return names, np.concatenate([histogram, weight / np.where(total > 0, total, 1)], axis=1)


def variance(grey: np.ndarray) -> np.ndarray:
    """Variance among the eight neighbours of each pixel at radius 1.

    Args:
        grey: uint8, shape (N, H, W).

    Returns:
        float64, shape (N, H, W), range [0, 16256.25], in squared grey levels.

    Example:
        >>> float(variance(np.full((1, 3, 3), 7, np.uint8))[0, 1, 1])
        0.0
    """
    return _variance(circle(grey))


def _variance(neighbours: list[np.ndarray]) -> np.ndarray:
    total = np.zeros(neighbours[0].shape)
    squares = np.zeros(neighbours[0].shape)
    for neighbour in neighbours:
        total += neighbour
        squares += np.square(neighbour, dtype=np.float64)
    spread = (squares - total * total / 8) / 8
    return np.where(spread > 1e-9, spread, 0)  # what is less comes from rounding
