"""Near-copies: found whatever their position, light and compression; different pictures are not taken for one."""

from __future__ import annotations

import io
from collections.abc import Callable

import numpy as np
import pytest
from PIL import Image
from scipy.ndimage import gaussian_filter

from tumortrace.cohorts.copies import components, near_copies
from tumortrace.cohorts.looks import look_at

TRANSPOSITIONS = [None, *Image.Transpose]


def pictures(number: int, seed: int = 0, side: int = 96) -> list[Image.Image]:
    rng = np.random.default_rng(seed)
    drawn = []
    for _ in range(number):
        shade = sum(gaussian_filter(rng.normal(size=(side, side)), width) * width for width in (0.7, 1.5, 3, 8))
        grey = 140 + 35 * shade / np.std(shade)
        drawn.append(Image.fromarray(np.repeat(grey[..., None], 3, axis=2).clip(0, 255).astype(np.uint8)))
    return drawn


def small(images: list[Image.Image]) -> np.ndarray:
    return np.stack([look_at(np.asarray(image))[1] for image in images])


def compressed(image: Image.Image, quality: int) -> Image.Image:
    content = io.BytesIO()
    image.save(content, "JPEG", quality=quality)
    return Image.open(content)


@pytest.mark.parametrize("position", TRANSPOSITIONS)
@pytest.mark.parametrize(
    "change",
    [
        lambda image: compressed(image, 75),
        lambda image: compressed(image, 50),
        lambda image: image.point(lambda value: value * 1.08 + 4),
        lambda image: image.point(lambda value: value * 0.9),
        lambda image: image.resize((64, 64), Image.Resampling.BICUBIC),
    ],
)
def test_copies_are_found_in_every_position(
    position: Image.Transpose | None, change: Callable[[Image.Image], Image.Image]
) -> None:
    """Each of ten pictures with its changed copy and no other; turned is told from upright."""
    originals = pictures(10)
    copies = [change(image if position is None else image.transpose(position)) for image in originals]
    pairs = near_copies(small(originals + copies), np.full(20, 64))
    assert sorted(zip(pairs.first.tolist(), pairs.second.tolist(), strict=True)) == [(n, n + 10) for n in range(10)]
    assert (pairs.turned == (position is not None)).all()


def test_different_pictures_are_no_copies() -> None:
    """Among 300 there is no pair; nor among pictures of one straight edge in slightly different places."""
    assert len(near_copies(small(pictures(300, seed=1)), np.full(300, 96)).first) == 0
    rng = np.random.default_rng(2)
    edges = []
    for row in range(40, 44):
        edge = rng.normal(220, 2, (96, 96, 3))
        edge[row:] -= 150
        edges.append(Image.fromarray(edge.clip(0, 255).astype(np.uint8)))
    assert len(near_copies(small(edges), np.full(4, 96)).first) == 0


def test_shifted_pictures_are_no_copies() -> None:
    """Overlapping patches of one slide share tissue, but are not what is looked for."""
    (large,) = pictures(1, side=192)
    shifted = [large.crop((0, 0, 96, 96)), large.crop((24, 0, 120, 96))]
    assert len(near_copies(small(shifted), np.full(2, 96)).first) == 0


def test_blank_and_single_pictures_pass() -> None:
    """Nothing to compare is no pair."""
    assert len(near_copies(np.full((5, 32, 32), 240, np.uint8), np.full(5, 96)).first) == 0
    assert len(near_copies(np.zeros((0, 32, 32), np.uint8), np.zeros(0, int)).first) == 0


def test_a_hundred_copies_of_one_picture_are_one_set() -> None:
    """Although each looks at its nearest neighbours only."""
    (picture,) = pictures(1, seed=3)
    copies = [compressed(picture, 60 + number % 30) for number in range(100)]
    pairs = near_copies(small([*copies, *pictures(5, seed=4)]), np.full(105, 96))
    sets = components(pairs, 105)
    assert len(set(sets[:100])) == 1
    assert (sets[100:] == -1).all()
    assert len(pairs.first) <= 800
