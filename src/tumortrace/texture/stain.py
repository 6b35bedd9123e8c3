"""How much hematoxylin and eosin the tissue has taken."""

from __future__ import annotations

import numpy as np
from skimage.color import hed_from_rgb

from tumortrace.texture.descriptor import DESCRIPTORS, Described
from tumortrace.texture.grey import percentiles

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
