"""Augmentation changes images one by one, within range, reproducibly."""

from __future__ import annotations

import numpy as np
import torch
from skimage.color import hed2rgb, rgb2hed

from tumortrace.imaging.augmentation import STAINS, Augmentation, symmetry


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


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
    np.testing.assert_allclose(density / density[0], np.array(STAINS[0]) / STAINS[0][0], rtol=1e-3)
