"""Nuclei on drawn tissue, where their number and size are known."""

from __future__ import annotations

import numpy as np
import pytest
from skimage.draw import disk

from tumortrace.texture.nuclei import nuclei, segment

PLACES = ((16, 18), (20, 60), (48, 40), (70, 20), (75, 76), (44, 78))


def tissue(radius: float, places: tuple[tuple[int, int], ...] = PLACES) -> np.ndarray:
    """Dark violet discs on pink, with a little noise."""
    image = np.full((96, 96, 3), (232, 180, 210), np.float64)
    for place in places:
        image[disk(place, radius)] = (85, 55, 135)
    image += np.random.default_rng(3).normal(0, 4, image.shape)
    return np.clip(image, 0, 255).astype(np.uint8)


def described(images: np.ndarray) -> list[dict[str, float]]:
    names, values = nuclei(images)
    return [dict(zip((name.removeprefix("nuclei_") for name in names), row, strict=True)) for row in values]


def test_count_and_size_of_separate_nuclei() -> None:
    """Six discs are six nuclei, whose area is the disc's within a rim of half a pixel; in each image of a batch."""
    for found, radius in zip(described(np.stack([tissue(4), tissue(7)])), (4, 7), strict=True):
        area = len(disk((50, 50), radius)[0])
        assert found["count"] == 6
        assert found["area_mean"] == pytest.approx(area, abs=np.pi * (radius + 0.6) ** 2 - np.pi * radius**2)
        assert found["area_std"] < 0.1 * area
        assert found["share"] == pytest.approx(6 * found["area_mean"] / 96**2)


def test_touching_nuclei_are_parted() -> None:
    """Two discs that overlap a little are two nuclei of about the same size."""
    labels = segment(tissue(7, ((40, 40), (40, 52)))[None])[0]
    sizes = np.bincount(labels.ravel())[1:]
    assert len(sizes) == 2
    assert sizes.min() > 0.8 * sizes.max()
    assert labels[40, 38] != labels[40, 54]


def test_empty_images_have_no_nuclei() -> None:
    """White with the noise of compression, and stroma alone, have none; all columns are 0."""
    white = np.random.default_rng(0).integers(251, 256, (1, 96, 96, 3), dtype=np.uint8)
    assert not nuclei(white)[1].any()
    assert not nuclei(np.full((1, 96, 96, 3), (235, 170, 205), np.uint8))[1].any()


def test_specks_are_not_nuclei() -> None:
    """Spots of less than twelve pixels do not count, next to a nucleus that does."""
    image = tissue(6, ((30, 30),))
    for row, column in ((70, 70), (60, 20), (15, 80)):
        image[row : row + 3, column : column + 3] = (85, 55, 135)
    assert described(image[None])[0]["count"] == 1
