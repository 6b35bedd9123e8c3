"""Tissue: how much hematoxylin and eosin it has taken, and its nuclei."""

from __future__ import annotations

from typing import Annotated

import numpy as np
from pydantic import Field
from scipy import ndimage
from skimage.color import hed_from_rgb
from skimage.segmentation import watershed

from tumortrace.texture.descriptor import DESCRIPTORS, Described
from tumortrace.texture.intensity import count, percentiles

_FLOOR = 1e-6  # darkest value, as in scikit-image, whose unit of density is -ln of it
_DENSITY = np.log(np.maximum(np.arange(256) / 255, _FLOOR)) / np.log(_FLOOR)


@DESCRIPTORS.register("stain")
def stain(images: np.ndarray) -> Described:
    """Statistics of the densities of hematoxylin and of eosin.

    Ruifrok and Johnston (2001), "Quantification of histochemical staining by color deconvolution"; densities equal to
    the first two channels of scikit-image's `rgb2hed`. Columns: of each stain mean, standard deviation, 10th, 50th and
    90th percentile, and `stain_correlation` of the two over the pixels (0 where one of them is the same everywhere).
    A colour at 0 is taken for 1e-6, as in scikit-image, which draws means and deviations up, but hardly percentiles.
    On images that are not stained so (MRI) the numbers are finite, but mean nothing.

    Args:
        images: uint8, shape (N, H, W, 3).

    Returns:
        Names and values, float64, shape (N, 11); densities in [0, 1].

    Example:
        >>> names, values = stain(np.full((1, 8, 8, 3), 255, np.uint8))
        >>> names[0], float(values.max())
        ('stain_hematoxylin_mean', 0.0)
    """
    found = [density.reshape(len(images), -1) for density in densities(images)]
    columns = {}
    for name, density in zip(("hematoxylin", "eosin"), found, strict=True):
        columns[f"stain_{name}_mean"] = density.mean(axis=1)
        columns[f"stain_{name}_std"] = density.std(axis=1)
        tenth, half, ninetieth = percentiles(density, (10, 50, 90))
        columns |= {f"stain_{name}_p10": tenth, f"stain_{name}_p50": half, f"stain_{name}_p90": ninetieth}
    columns["stain_correlation"] = _correlation(*found)
    return list(columns), np.stack(list(columns.values()), axis=1)


def densities(images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Densities of hematoxylin and of eosin at each pixel.

    Args:
        images: uint8, shape (N, H, W, 3).

    Returns:
        Two float64 arrays of shape (N, H, W), range [0, inf), typically below 0.3; unit: 13.8 in natural logarithm.

    Example:
        >>> hematoxylin, eosin = densities(np.array([[[[90, 60, 140], [230, 120, 190]]]], np.uint8))
        >>> (hematoxylin > eosin)[0, 0].tolist()
        [True, False]
    """
    optical = _optical(images)
    return _unmixed(optical, 0), _unmixed(optical, 1)


def hematoxylin(images: np.ndarray) -> np.ndarray:
    """Density of hematoxylin alone; see `densities`."""
    return _unmixed(_optical(images), 0)


def _optical(images: np.ndarray) -> list[np.ndarray]:
    return [_DENSITY[images[..., channel]] for channel in range(3)]


def _unmixed(optical: list[np.ndarray], stain: int) -> np.ndarray:
    density = optical[0] * hed_from_rgb[0, stain]
    density += optical[1] * hed_from_rgb[1, stain]
    density += optical[2] * hed_from_rgb[2, stain]
    return np.maximum(density, 0, out=density)


def _correlation(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    first, second = (each - each.mean(axis=1, keepdims=True) for each in (first, second))
    spread = np.sqrt((first**2).sum(axis=1) * (second**2).sum(axis=1))
    varies = spread > 1e-12 * first.shape[1]
    return np.where(varies, (first * second).sum(axis=1) / np.where(varies, spread, 1), 0)


# Nuclei: how many, how large, how dark, as far as simple segmentation tells.


_LEVELS_PER_DENSITY = 640  # 256 levels up to a density of 0.4
_FAINTEST = 8  # level; what is fainter is no nucleus, but noise of an empty image
_IN_IMAGE = np.zeros((3, 3, 3), bool)  # all images at once, each for itself
_IN_IMAGE[1] = True


@DESCRIPTORS.register("nuclei")
def nuclei(
    images: np.ndarray,
    *,
    smoothing: Annotated[float, Field(gt=0)] = 1.0,
    spacing: Annotated[int, Field(ge=1)] = 3,
    smallest: Annotated[int, Field(ge=1)] = 12,
) -> Described:
    """Count, size and hematoxylin of nuclei, found by threshold and watershed.

    The density of hematoxylin, smoothed, is cut at its Otsu threshold (Otsu 1979; of each image, 256 levels up to a
    density of 0.4, at least 0.0125). Within what is denser, the peaks of the smoothed distance to the border are one
    nucleus each, parted by a watershed. The defaults suit about 1 um per pixel. Crowded and pale nuclei are miscounted;
    on images without hematoxylin (MRI) the numbers are finite, but mean nothing.

    Columns: `nuclei_count`; `nuclei_area_mean`, `_std`, `_max` (px); `nuclei_share` of the image's area, range [0, 1];
    `nuclei_hematoxylin`, mean density within them, as in `stain`. Without nuclei all are 0.

    Args:
        images: uint8, shape (N, H, W, 3).
        smoothing: Standard deviation of the Gaussian filters, px.
        spacing: Two peaks are further apart than this, px.
        smallest: Area from which on something is a nucleus, px.

    Returns:
        Names and values, float64, shape (N, 6).

    Example:
        >>> image = np.full((1, 32, 32, 3), 240, np.uint8)
        >>> image[0, 8:16, 8:16] = image[0, 20:28, 18:26] = (80, 50, 130)
        >>> names, values = nuclei(image)
        >>> names[0], float(values[0, 0])
        ('nuclei_count', 2.0)
    """
    density = hematoxylin(images)
    labels = _segment(density, smoothing, spacing, smallest)
    area = np.bincount(labels.ravel())[1:].astype(np.float64)
    owner = np.zeros(len(area) + 1, np.intp)  # the image that each nucleus lies in
    owner[labels] = np.arange(len(images))[:, None, None]
    owner = owner[1:]
    each = np.bincount(owner, minlength=len(images)).astype(np.float64)
    several = np.maximum(each, 1)
    total = np.bincount(owner, area, minlength=len(images))
    mean = total / several
    variance = np.bincount(owner, (area - mean[owner]) ** 2, minlength=len(images)) / several
    largest = np.zeros(len(images))
    np.maximum.at(largest, owner, area)
    dense = (density * (labels > 0)).sum(axis=(1, 2)) / np.maximum(total, 1)
    names = [f"nuclei_{name}" for name in ("count", "area_mean", "area_std", "area_max", "share", "hematoxylin")]
    columns = [each, mean, np.sqrt(variance), largest, total / labels[0].size, dense]
    return names, np.stack(columns, axis=1)


def segment(images: np.ndarray, *, smoothing: float = 1.0, spacing: int = 3, smallest: int = 12) -> np.ndarray:
    """The nucleus that each pixel belongs to.

    Args:
        images: uint8, shape (N, H, W, 3).
        smoothing: As for `nuclei`.
        spacing: As for `nuclei`.
        smallest: As for `nuclei`.

    Returns:
        int64, shape (N, H, W): 1 and on, numbered over all images; 0 outside of nuclei.

    Example:
        >>> segment(np.full((1, 9, 9, 3), 255, np.uint8)).any()
        np.False_
    """
    return _segment(hematoxylin(images), smoothing, spacing, smallest)


def otsu(levels: np.ndarray) -> np.ndarray:
    """The level that parts each image's pixels into two classes with the most variance between them (Otsu 1979).

    Args:
        levels: uint8, shape (N, H, W).

    Returns:
        int64, shape (N,): the highest level of the lower class, as scikit-image's `threshold_otsu`; for an image of
        one level that level.

    Example:
        >>> otsu(np.array([[[1, 1, 9, 9]]], np.uint8)).tolist()
        [1]
    """
    counts = count(levels).astype(np.float64)
    below = counts.cumsum(axis=1)
    above = below[:, -1:] - below
    sums = (counts * np.arange(256)).cumsum(axis=1)
    gap = sums / np.maximum(below, 1) - (sums[:, -1:] - sums) / np.maximum(above, 1)
    between = below * above * gap**2
    return np.where(between.any(axis=1), between.argmax(axis=1), counts.argmax(axis=1))


def _segment(density: np.ndarray, smoothing: float, spacing: int, smallest: int) -> np.ndarray:
    width = (0, smoothing, smoothing)
    smooth = ndimage.gaussian_filter(density, width)
    levels = np.minimum(smooth * _LEVELS_PER_DENSITY, 255).astype(np.uint8)
    mask = levels > np.maximum(otsu(levels), _FAINTEST)[:, None, None]
    depth = ndimage.distance_transform_cdt(mask, metric=_IN_IMAGE).astype(np.float64)
    depth = ndimage.gaussian_filter(depth, width)
    window = 2 * spacing + 1
    peaks = mask & (depth == ndimage.maximum_filter(depth, (1, window, window)))
    labels = watershed(-depth, ndimage.label(peaks, structure=_IN_IMAGE)[0], mask=mask, connectivity=_IN_IMAGE)
    kept = np.bincount(labels.ravel()) >= smallest
    kept[0] = False
    number = np.where(kept, np.cumsum(kept), 0)
    return number[labels]
