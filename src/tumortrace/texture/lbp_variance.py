"""Local variance around each pixel, by itself and as the weight of its pattern."""

from __future__ import annotations

import numpy as np

from tumortrace.texture.descriptor import DESCRIPTORS, Described
from tumortrace.texture.grey import shares, to_grey
from tumortrace.texture.ring import ROTATION_INVARIANT, circle, codes

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
