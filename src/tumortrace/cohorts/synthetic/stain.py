"""From stain densities to colour: staining, optics and sensor of one slide on one scanner."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

Density = NDArray[np.float32]

SCANNERS = ("scanner-a", "scanner-b", "scanner-c")
# Reference optical densities of haematoxylin and eosin in red, green, blue (Macenko et al., ISBI 2009).
_STAINS = np.array([[0.5626, 0.7201, 0.4062], [0.2159, 0.8012, 0.5581]])
# White point, contrast, blur (sigma in px) and sensor noise (grey levels) of each scanner.
_WHITE = ((0.96, 0.95, 0.97), (0.94, 0.92, 0.93), (0.97, 0.97, 0.95))
_CONTRAST = (1.0, 0.92, 1.08)
_BLUR = (0.5, 0.7, 0.6)
_NOISE = (3.0, 4.5, 6.0)


@dataclass(frozen=True)
class Stain:
    """How one slide was stained and scanned.

    Attributes:
        vectors: float64 (2, 3); optical density in red, green, blue of one unit of haematoxylin and of eosin.
        white: float64 (3,); transmittance of empty glass.
        blur: Sigma of the optics in pixels.
        noise: Standard deviation of the sensor's noise in grey levels.
    """

    vectors: NDArray[np.float64]
    white: NDArray[np.float64]
    blur: float
    noise: float


def draw_stain(rng: np.random.Generator, scanner: str) -> Stain:
    """The stain of a new slide: strengths and vectors vary by slide, optics by scanner.

    Example:
        >>> draw_stain(np.random.default_rng(0), "scanner-a").vectors.shape
        (2, 3)
    """
    device = SCANNERS.index(scanner)
    vectors = np.abs(_STAINS + rng.normal(0, 0.04, (2, 3)))
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    strengths = rng.uniform((1.0, 0.55), (1.7, 1.05)) * _CONTRAST[device]
    white = np.array(_WHITE[device]) + rng.normal(0, 0.01, 3)
    return Stain(vectors * strengths[:, None], np.minimum(white, 1), _BLUR[device], _NOISE[device])


def colour(
    haematoxylin: Density, eosin: Density, stain: Stain, rng: np.random.Generator, defocus: float = 0.0
) -> NDArray[np.uint8]:
    """The picture of stained tissue, by the Beer-Lambert law (Ruifrok & Johnston, Anal Quant Cytol Histol 2001).

    Args:
        haematoxylin: float32 (height, width), amount of stain, 0 or more.
        eosin: The same of eosin.
        stain: Staining and scanner.
        rng: For the sensor's noise.
        defocus: Added to the sigma of the scanner's blur, in pixels.

    Returns:
        uint8 (height, width, 3), RGB.

    Example:
        >>> glass = np.zeros((4, 4), np.float32)
        >>> stain = Stain(_STAINS, np.ones(3), 0.5, 0.0)
        >>> int(colour(glass, glass, stain, np.random.default_rng(0)).min())
        255
    """
    vectors = stain.vectors.astype(np.float32)
    image = np.empty((*haematoxylin.shape, 3), np.float32)
    for channel in range(3):
        light = np.exp(-(haematoxylin * vectors[0, channel] + eosin * vectors[1, channel]))
        ndimage.gaussian_filter(light, stain.blur + defocus, truncate=3, output=image[..., channel])
    image *= (255 * stain.white).astype(np.float32)
    image += rng.standard_normal(image.shape, np.float32) * np.float32(stain.noise)
    return np.clip(np.rint(image), 0, 255).astype(np.uint8)
