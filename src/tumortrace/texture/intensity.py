"""Histogram of pixel values and its moments."""

from __future__ import annotations

from typing import Annotated

import numpy as np
from pydantic import Field

from tumortrace.texture.descriptor import DESCRIPTORS, Described
from tumortrace.texture.grey import count, to_grey

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
