"""What local binary patterns share: a pixel's eight neighbours, codes of eight bits, and kinds of codes.

Neighbour k lies at an angle of 45 k degrees, counter-clockwise from the right, and gives bit k.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

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
