"""Augmentation changes images one by one, within range, reproducibly."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from scipy.stats import beta, kstest
from skimage.color import hed2rgb, rgb2hed

from tumortrace.images.augmentation import Augmentation
from tumortrace.images.geometry import symmetry
from tumortrace.images.stain import RUIFROK


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


#: Each augmentation by itself, at full strength; then all of them.
SINGLE: list[dict] = [
    {"symmetries": True},
    {"horizontal_flip": 0.5},
    {"vertical_flip": 0.5},
    {"rotation": 20},
    {"shift": 0.1},
    {"shear": 20},
    {"zoom": (0.8, 1.2)},
    {"crop": (0.5, 0.9)},
    {"rotation": 20, "zoom": (0.8, 1.2), "fill": "reflect"},
    {"rotation": 20, "zoom": (0.8, 1.2), "fill": 200},
    {"rotation": 20, "shift": 0.1, "fill": "surroundings", "affine_probability": 0.8},
    {"stain": 0.1},
    {"channel_shift": 40},
    {"brightness": (0.5, 1.5)},
    {"contrast": (0.5, 1.5)},
    {"saturation": (0.5, 1.5)},
    {"hue": 0.2},
    {"blur": (0.1, 2), "blur_probability": 1},
    {"jpeg": (10, 90), "jpeg_probability": 1},
    {"cutout": 0.5, "cutout_probability": 1},
]
ALL = {name: value for fields in SINGLE for name, value in fields.items()}


@pytest.mark.parametrize("fields", [*SINGLE, ALL], ids=lambda fields: ",".join(fields) if len(fields) < 4 else "all")
@pytest.mark.parametrize(("shape", "dtype"), [((16, 16), torch.float32), ((12, 17), torch.float64)])
def test_every_augmentation_keeps_the_contract(fields: dict, shape: tuple[int, int], dtype: torch.dtype) -> None:
    """Own draws within a batch, repeatable, torch's global generator by default; shape, type and range are kept."""
    images = torch.rand(1, 3, *shape, generator=generator(), dtype=dtype).repeat(8, 1, 1, 1)
    before, augment = images.clone(), Augmentation(**fields)
    assert not augment.identity
    first, again = augment(images, generator(5)), augment(images, generator(5))
    assert torch.equal(first, again)
    torch.manual_seed(5)
    assert torch.equal(first, augment(images))
    assert not torch.equal(first, augment(images, generator(6)))
    assert torch.equal(images, before)
    views = len({image.numpy().tobytes() for image in first})
    assert views >= 2 if {"horizontal_flip", "vertical_flip", "symmetries"} >= set(fields) else views > 4
    assert (first.shape, first.dtype) == (images.shape, dtype)
    assert 0 <= float(first.min()) <= float(first.max()) <= 1


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"rotation": 0, "shift": 0, "shear": 0, "zoom": [1, 1], "crop": [1, 1], "fill": 200},
        {"stain": 0, "channel_shift": 0, "hue": 0, "brightness": [1, 1], "contrast": [1, 1], "saturation": [1, 1]},
        {"blur": [0, 0], "jpeg": None, "cutout": 0, "mixup": 0},
        {"rotation": 20, "zoom": [0.8, 1.2], "affine_probability": 0},
        {"blur": [1, 2], "blur_probability": 0, "jpeg": [50, 90], "jpeg_probability": 0, "cutout_probability": 0},
    ],
)
def test_ranges_of_no_width_change_nothing(fields: dict) -> None:
    """Bit for bit, and `identity` says so."""
    images, labels = torch.rand(4, 3, 16, 16, generator=generator()), torch.tensor([0.0, 1.0, 1.0, 0.0])
    augment = Augmentation(**fields)
    assert augment.identity
    assert torch.equal(augment(images), images)
    assert all(map(torch.equal, augment.mix(images, labels), (images, labels)))


@pytest.mark.parametrize(
    "fields",
    [
        {"zoom": (1.2, 0.8)},
        {"zoom": 0.2},
        {"jpeg": (90, 50)},
        {"jpeg": (50, 101)},
        {"fill": "wrap"},
        {"fill": 256},
        {"rotation": float("nan")},
        {"horizontal_flip": 1.5},
        {"flip": 0.5},
    ],
)
def test_impossible_ranges_are_refused(fields: dict) -> None:
    """Reversed, out of bounds, not a number, of the wrong kind, or of no such field."""
    with pytest.raises(ValidationError):
        Augmentation(**fields)


def test_mixup_mixes_images_and_labels_in_one_proportion() -> None:
    """Images that hold their own number: both parts and the share are read off each image, and give its label."""
    n = 64
    images = torch.zeros(n, 3, 8, 8, dtype=torch.float64)
    images[torch.arange(n), 0, torch.arange(n) // 8, torch.arange(n) % 8] = 1
    labels = torch.rand(n, generator=generator(), dtype=torch.float64)
    augment = Augmentation(mixup=0.4)
    mixed, soft = augment.mix(images, labels, generator(1))
    parts = mixed[:, 0].flatten(1).numpy()
    np.testing.assert_allclose(parts.sum(1), 1)
    np.testing.assert_allclose(soft.numpy(), parts @ labels.numpy())
    assert ((parts > 0).sum(1) <= 2).all()
    assert len(np.unique(parts.diagonal())) > n / 2
    assert parts.diagonal().min() >= 0.5
    again = augment.mix(images, labels, generator(1))
    assert torch.equal(again[0], mixed)
    assert torch.equal(augment(images), images)


@pytest.mark.parametrize("alpha", [0.2, 1.0, 4.0])
def test_mixup_shares_are_beta_distributed(alpha: float) -> None:
    """Kolmogorov and Smirnov find no difference to SciPy's Beta(alpha, alpha)."""
    images, labels = torch.eye(2).repeat(1000, 1).view(-1, 1, 1, 2), torch.arange(2.0).repeat(1000)
    mixed, soft = Augmentation(mixup=alpha).mix(images, labels, generator())
    shares = mixed[:, 0, 0, 1].numpy()
    np.testing.assert_allclose(soft.numpy(), shares, atol=1e-6)
    shares = shares[(shares > 0) & (shares < 1)]
    assert kstest(shares, beta(alpha, alpha).cdf).pvalue > 0.01


def test_symmetries_are_the_eight_of_the_square() -> None:
    """Rotations by numpy, then mirrored: all eight, each drawn for some image of a large batch."""
    image = np.arange(16.0).reshape(4, 4)
    expected = {m.tobytes() for k in range(4) for r in [np.rot90(image, k)] for m in (r.copy(), r[:, ::-1].copy())}
    tensor = torch.from_numpy(image)[None, None]
    assert {symmetry(tensor, i).numpy().tobytes() for i in range(8)} == expected
    batch = Augmentation(symmetries=True)(tensor.repeat(200, 1, 1, 1), generator())
    assert {view.numpy().tobytes() for view in batch} == expected


def test_each_image_has_its_own_draw_and_seeds_repeat() -> None:
    """Equal images come out different within a batch; the same generator state gives the same batch."""
    images = torch.rand(1, 3, 16, 16, generator=generator()).repeat(8, 1, 1, 1)
    augment = Augmentation(symmetries=True, stain=0.1)
    first, again = augment(images, generator(5)), augment(images, generator(5))
    torch.testing.assert_close(first, again, rtol=0, atol=0)
    assert len({image.numpy().tobytes() for image in first}) == 8
    assert 0 <= first.min() <= first.max() <= 1
    assert first.shape == images.shape


def test_rectangles_keep_their_shape() -> None:
    """Images that are not square are only turned by half and mirrored."""
    images = torch.rand(32, 3, 8, 12)
    assert Augmentation(symmetries=True)(images, generator()).shape == images.shape


def test_stain_jitter_is_linear_in_stain_densities() -> None:
    """In scikit-image's stain space every image is moved along each stain by one factor and one shift."""
    images = 0.25 + 0.6 * torch.rand(1, 3, 12, 12, generator=generator())
    changed = Augmentation(stain=0.02)(images, generator(1))
    before = rgb2hed(images[0].permute(1, 2, 0).double().numpy()).reshape(-1, 3)
    after = rgb2hed(changed[0].permute(1, 2, 0).double().numpy()).reshape(-1, 3)
    assert np.abs(after - before).max() > 1e-4
    for stain in (0, 1):
        fit = np.polyfit(before[:, stain], after[:, stain], 1)
        assert abs(fit[0] - 1) <= 4 * 0.02 + 0.02
        assert np.abs(np.polyval(fit, before[:, stain]) - after[:, stain]).max() < 0.01


def test_stain_vectors_are_the_published_ones() -> None:
    """A pure unit of hematoxylin has the colour that scikit-image gives it (Ruifrok and Johnston 2001)."""
    expected = hed2rgb(np.array([[[0.05, 0.0, 0.0]]]))[0, 0]
    density = -np.log(expected) / -np.log(1e-6)
    np.testing.assert_allclose(density / density[0], np.array(RUIFROK[0]) / RUIFROK[0][0], rtol=1e-3)
