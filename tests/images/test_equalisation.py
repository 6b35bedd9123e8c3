"""Equalisation against scikit-image's."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import numpy as np
import pytest
from skimage.color import rgb2lab
from skimage.exposure import equalize_adapthist, equalize_hist

from tumortrace.images.preprocessing import equalise

REFERENCES = [("histogram", equalize_hist), ("clahe", equalize_adapthist)]


@pytest.mark.parametrize(("method", "reference"), REFERENCES)
def test_lightness_is_equalised_as_by_scikit_image(
    method: Literal["histogram", "clahe"], reference: Callable[[np.ndarray], np.ndarray]
) -> None:
    """On grey pictures, where every lightness has a grey level: within what 8 bits round away."""
    grey = np.random.default_rng(0).normal(150, 20, (2, 48, 48, 1)).clip(60, 220).astype(np.uint8)
    images = np.repeat(grey, 3, axis=3)
    for image, found in zip(images, equalise(images, method), strict=True):
        assert np.ptp(found, axis=2).max() <= 1  # stays grey
        np.testing.assert_allclose(rgb2lab(found)[..., 0], 100 * reference(rgb2lab(image)[..., 0] / 100), atol=0.3)


def test_colours_are_kept() -> None:
    """a and b of CIELAB change by what 8 bits round away, where the new colour can be shown."""
    rng = np.random.default_rng(1)
    image = (np.array([150, 130, 145]) + rng.normal(0, 6, (48, 48, 1)) + rng.normal(0, 3, (48, 48, 3))).astype(np.uint8)
    found = equalise(image[None], "clahe")[0]
    inside = ((found > 5) & (found < 250)).all(axis=2)
    assert np.abs(rgb2lab(found) - rgb2lab(image))[..., 1:][inside].max() < 1
    assert np.ptp(found) > 2 * np.ptp(image)


@pytest.mark.parametrize("method", ["histogram", "clahe"])
def test_a_flat_image_stays(method: Literal["histogram", "clahe"]) -> None:
    """There is nothing to spread; and no image is no image."""
    flat = np.full((1, 32, 32, 3), (200, 120, 160), np.uint8)
    assert np.array_equal(equalise(flat, method), flat)
    assert equalise(flat[:0], method).shape == (0, 32, 32, 3)
