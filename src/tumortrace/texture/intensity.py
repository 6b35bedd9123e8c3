"""Grey values: their histogram and moments, and what other descriptors share of them: counts, shares, percentiles."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import numpy as np
from pydantic import Field

from tumortrace.texture.descriptor import DESCRIPTORS, Described

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


# Histogram of pixel values and its moments.


VALUES = np.arange(256.0)


@DESCRIPTORS.register("intensity")
def intensity(images: np.ndarray, *, bins: Annotated[int, Field(ge=1, le=256)] = 32) -> Described:
    """Grey histogram, its moments and entropy, and the mean and spread of each colour.

    Columns: `intensity_bin_00` and on (shares of pixels, bins equally wide over 0 to 255); of grey `mean` and `std`
    (grey levels), `skewness`, `kurtosis` (excess, 0 for a normal distribution; both are 0 for an image of one value,
    where they are undefined) and `entropy` of the 256 grey levels (bits); `mean` and `std` of red, green and blue.

    Args:
        images: uint8, shape (N, H, W, 3).
        bins: Number of bins, 1 to 256.

    Returns:
        Names and values, float64, shape (N, bins + 11).

    Example:
        >>> names, values = intensity(np.full((1, 8, 8, 3), 200, np.uint8))
        >>> float(values[0, names.index("intensity_bin_25")]), float(values[0, names.index("intensity_mean")])
        (1.0, 200.0)
    """
    pixels = images.shape[1] * images.shape[2]
    counts = count(to_grey(images))
    share = counts / pixels
    histogram = counts @ np.eye(bins)[np.arange(256) * bins // 256] / pixels
    mean, std = _moments(share)
    deviation = (VALUES - mean[:, None]) / np.where(std > 0, std, 1)[:, None]
    skewness = np.where(std > 0, (share * deviation**3).sum(axis=1), 0)
    kurtosis = np.where(std > 0, (share * deviation**4).sum(axis=1) - 3, 0)
    entropy = -(share * np.log2(np.where(share > 0, share, 1))).sum(axis=1)
    colours = [values for channel in range(3) for values in _moments(count(images[..., channel]) / pixels)]
    names = [f"intensity_bin_{each:02d}" for each in range(bins)]
    names += [f"intensity_{each}" for each in ("mean", "std", "skewness", "kurtosis", "entropy")]
    names += [f"intensity_{colour}_{each}" for colour in ("red", "green", "blue") for each in ("mean", "std")]
    values = [histogram, np.stack([mean, std, skewness, kurtosis, np.maximum(entropy, 0), *colours], axis=1)]
    return names, np.concatenate(values, axis=1)


def _moments(share: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation of each row of a histogram."""
    mean = (share * VALUES).sum(axis=1)
    one_value = share.max(axis=1) == 1
    std = np.sqrt((share * (VALUES - mean[:, None]) ** 2).sum(axis=1))
    return mean, np.where(one_value, 0, std)
