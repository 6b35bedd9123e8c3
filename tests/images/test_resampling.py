"""Resizing of tensors against Pillow."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from tumortrace.images.preprocessing import Filter
from tumortrace.images.resampling import resize

PILLOW: dict[Filter, Image.Resampling] = {
    "nearest": Image.Resampling.NEAREST,
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
}


@pytest.mark.parametrize("filter", PILLOW)
@pytest.mark.parametrize("size", [(224, 224), (40, 61), (96, 50), (7, 200)])
def test_agrees_with_pillow(filter: Filter, size: tuple[int, int]) -> None:
    """Enlarged, shrunk and stretched: but for the rounding to grey levels that Pillow does in each of two passes."""
    image = np.random.default_rng(0).integers(60, 200, (95, 61, 3), dtype=np.uint8)
    expected = np.asarray(Image.fromarray(image).resize(size[::-1], PILLOW[filter])).astype(float)
    found = resize(torch.tensor(image).permute(2, 0, 1)[None] / 255, size, filter)[0].permute(1, 2, 0)
    difference = np.abs(found.numpy() * 255 - expected)
    assert difference.max() <= (1e-3 if filter == "nearest" else 1.25)
    assert difference.mean() < 0.5


def test_the_same_size_is_the_same_tensor() -> None:
    """Nothing is computed and nothing blurred."""
    images = torch.rand(2, 3, 20, 30)
    for filter in PILLOW:
        assert resize(images, (20, 30), filter) is images


def test_lanczos_overshoots_as_pillow_does() -> None:
    """At hard edges, where values beyond black and white are cut off after each pass."""
    image = np.zeros((32, 32, 3), np.uint8)
    image[10:20, 7:23] = 255
    expected = np.asarray(Image.fromarray(image).resize((128, 128), Image.Resampling.LANCZOS)).astype(float)
    found = resize(torch.tensor(image).permute(2, 0, 1)[None] / 255, (128, 128), "lanczos")[0].permute(1, 2, 0)
    assert np.abs(found.numpy() * 255 - expected).max() <= 1.25
