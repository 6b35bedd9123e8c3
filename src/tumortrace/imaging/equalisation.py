"""Contrast: equalisation of the histogram of lightness, over the whole patch or locally."""

from __future__ import annotations

import warnings
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from skimage.color import lab2rgb, rgb2lab
from skimage.exposure import equalize_adapthist, equalize_hist


def equalise(images: NDArray[np.uint8], method: Literal["histogram", "clahe"]) -> NDArray[np.uint8]:
    """Patches with their lightness L of CIELAB equalised; the colour coordinates a and b are kept.

    - "histogram": the whole patch's histogram in 256 bins becomes flat.
    - "clahe": contrast-limited adaptive equalisation (Zuiderveld, Graphics Gems IV, 1994) in 8 by 8 tiles, clip limit
      0.01. Both are scikit-image's.

    Args:
        images: uint8, shape (N, H, W, 3), RGB; may be memory-mapped.
        method: Which of these.

    Returns:
        uint8 of the same shape. A patch of one flat colour stays as it is.

    Example:
        >>> ramp = np.arange(100, 164, dtype=np.uint8).reshape(1, 8, 8, 1).repeat(3, axis=3)
        >>> result = equalise(ramp, "histogram")
        >>> int(np.ptp(ramp)), int(np.ptp(result))
        (63, 249)
    """
    function = equalize_hist if method == "histogram" else equalize_adapthist

    def one(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
        if (image == image[0, 0]).all():
            return image
        lab = rgb2lab(image)
        lab[..., 0] = 100 * function(lab[..., 0] / 100)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Conversion from CIE-LAB")  # colours that cannot be shown
            return np.rint(lab2rgb(lab) * 255).astype(np.uint8)

    return np.stack([one(image) for image in images]) if len(images) else np.array(images)
