"""Grey values of colour images, and what is told of each image's values: counts, shares, percentiles."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

_RED, _GREEN, _BLUE = (np.uint32(round(weight * 2**24)) for weight in (0.2125, 0.7154, 0.0721))


def to_grey(images: np.ndarray) -> np.ndarray:
    """Luminance, 0.2125 red + 0.7154 green + 0.0721 blue (ITU-R BT.709), rounded to 8 bits.

    It is scikit-image's `rgb2gray`, but for the rounding. Whole numbers let neighbours be compared exactly.

    Args:
        images: uint8, shape (N, H, W, 3).

    Returns:
        uint8, shape (N, H, W).

    Example:
        >>> to_grey(np.array([[[[255, 0, 0], [9, 9, 9]]]], np.uint8)).tolist()
        [[[54, 9]]]
    """
    grey = images[..., 0] * _RED  # weights in units of 2**-24: the sum stays below 2**32
    grey += images[..., 1] * _GREEN
    grey += images[..., 2] * _BLUE
    grey += np.uint32(1 << 23)
    grey >>= np.uint32(24)
    return grey.astype(np.uint8)


def count(values: np.ndarray) -> np.ndarray:
    """How often each value occurs in each image.

    Args:
        values: uint8, shape (N, H, W).

    Returns:
        int64, shape (N, 256).

    Example:
        >>> count(np.array([[[0, 2, 2]]], np.uint8))[0, :3].tolist()
        [1, 0, 2]
    """
    rows = values.reshape(len(values), -1)
    return np.array([np.bincount(row, minlength=256) for row in rows], np.int64).reshape(-1, 256)


def shares(values: np.ndarray, fold: np.ndarray) -> np.ndarray:
    """The share of each image's pixels that falls into each bin.

    Args:
        values: uint8, shape (N, H, W).
        fold: int, shape (256,): the bin of each value; bins are 0 to fold.max().

    Returns:
        float64, shape (N, bins), range [0, 1], each row with sum 1.

    Example:
        >>> shares(np.array([[[0, 1, 2, 255]]], np.uint8), np.arange(256) // 128).tolist()
        [[0.75, 0.25]]
    """
    member = np.eye(int(fold.max()) + 1)[fold]
    return count(values) @ member / (values.shape[1] * values.shape[2])


def percentiles(values: np.ndarray, wanted: Sequence[float]) -> list[np.ndarray]:
    """Percentiles of each image's values, interpolated; NumPy's, but twice as fast for whole batches.

    Args:
        values: float64, shape (N, pixels).
        wanted: Percentiles, range [0, 100].

    Returns:
        One float64 array of shape (N,) for each.

    Example:
        >>> [float(each[0]) for each in percentiles(np.array([[4.0, 0.0, 1.0]]), (50, 75))]
        [1.0, 2.5]
    """
    ordered = np.sort(values, axis=1)
    last = values.shape[1] - 1
    found = []
    for each in wanted:
        low = int(each / 100 * last)
        share = each / 100 * last - low
        found.append(ordered[:, low] * (1 - share) + ordered[:, min(low + 1, last)] * share)
    return found
