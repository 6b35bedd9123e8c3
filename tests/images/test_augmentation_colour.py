"""Colour, blur and JPEG against torchvision, SciPy and Pillow."""

from __future__ import annotations

from collections.abc import Callable
from io import BytesIO

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.ndimage import gaussian_filter
from torchvision.transforms import functional as reference

from tumortrace.images import colour
from tumortrace.images.augmentation import Augmentation
from tumortrace.images.resampling import blur, jpeg


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.fixture(scope="module")
def images() -> torch.Tensor:
    """Noise, greys, pure colours, black and white."""
    noise = torch.rand(3, 3, 16, 16, generator=generator())
    noise[0, :, :4] = noise[0, :1, :4]
    noise[1, :, :8] = noise[1, :, :8].round()
    return noise


@pytest.mark.parametrize(
    ("ours", "theirs", "amounts"),
    [
        (colour.change_brightness, reference.adjust_brightness, [0.0, 0.7, 1.8]),
        (colour.change_contrast, reference.adjust_contrast, [0.0, 0.7, 1.8]),
        (colour.change_saturation, reference.adjust_saturation, [0.0, 0.7, 1.8]),
        (colour.turn_hue, reference.adjust_hue, [-0.5, 0.1, 0.33]),
    ],
)
def test_colour_changes_are_torchvisions(
    ours: Callable, theirs: Callable, amounts: list[float], images: torch.Tensor
) -> None:
    """Each image of a batch, with an amount of its own, is what torchvision makes of it."""
    expected = torch.stack([theirs(image, amount) for image, amount in zip(images, amounts, strict=True)])
    torch.testing.assert_close(ours(images, torch.tensor(amounts)), expected, atol=2e-6, rtol=0)


def test_hue_stays_where_it_is_without_a_turn(images: torch.Tensor) -> None:
    """To the hue and back gives the colours that went in, greys and black included."""
    torch.testing.assert_close(colour.turn_hue(images, torch.zeros(3)), images, atol=1e-6, rtol=0)


def test_channel_shift_is_one_amount_within_the_images_range(images: torch.Tensor) -> None:
    """All channels of an image move alike, by at most the stated amount, and never leave its range."""
    inner = 0.3 + 0.4 * images
    shifted = Augmentation(channel_shift=20)(inner, generator())
    for old, new in zip(inner.numpy(), shifted.numpy(), strict=True):
        step = float(np.median(new - old))
        assert 0 < abs(step) <= 20 / 255
        np.testing.assert_allclose(new, np.clip(old + step, old.min(), old.max()), atol=1e-6)


@pytest.mark.parametrize("shape", [(24, 24), (9, 15)])
def test_blur_is_scipys_gaussian(shape: tuple[int, int]) -> None:
    """Each image with a width of its own, zero included, the border repeated outwards."""
    images, sigmas = torch.rand(3, 3, *shape, generator=generator(), dtype=torch.float64), [0.0, 0.8, 2.0]
    blurred = blur(images, torch.tensor(sigmas, dtype=torch.float64))
    torch.testing.assert_close(blurred[0], images[0])
    for old, new, sigma in zip(images[1:], blurred[1:], sigmas[1:], strict=True):
        expected = gaussian_filter(old.numpy(), (0, sigma, sigma), mode="nearest", radius=8)
        np.testing.assert_allclose(new.numpy(), expected, atol=1e-9)


@pytest.mark.parametrize("side", [64, 63])
def test_jpeg_is_pillows(side: int) -> None:
    """At the same quality Pillow's encoder and decoder give the same pixels."""
    noise = np.random.default_rng(0).uniform(-800, 1000, (3, side, side, 3))
    pixels = gaussian_filter(noise, (0, 2, 2, 0)).clip(0, 255).astype(np.uint8)
    decoded = jpeg(torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 255, torch.tensor([10, 60, 95]))
    for image, new, quality in zip(pixels, decoded, (10, 60, 95), strict=True):
        file = BytesIO()
        Image.fromarray(image).save(file, "JPEG", quality=quality)
        expected = np.asarray(Image.open(file)).astype(int)
        assert np.abs(new.permute(1, 2, 0).numpy() * 255 - expected).max() <= 1.001


@pytest.mark.parametrize(
    "field", [{"blur": (0.5, 1.5), "blur_probability": 0.25}, {"jpeg": (50, 90), "jpeg_probability": 0.25}]
)
def test_blur_and_jpeg_touch_the_drawn_share_alone(field: dict) -> None:
    """A quarter of the images changes, the rest is bit for bit as it was."""
    images = torch.rand(400, 3, 16, 16, generator=generator())
    touched = (Augmentation(**field)(images, generator()) != images).any(3).any(2).any(1)
    assert 0.17 < float(touched.float().mean()) < 0.33
