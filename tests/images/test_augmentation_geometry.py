"""Affine maps, crops, flips and cutout against SciPy, NumPy and sums by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.ndimage import affine_transform
from scipy.stats import ks_2samp
from torchvision.transforms import RandomResizedCrop

from tumortrace.images.augmentation import Augmentation
from tumortrace.images.geometry import Fill, affine, affine_matrix, crop_matrix, hide_squares, symmetry
from tumortrace.images.preprocessing import Preprocessing


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def matrix(size: tuple[int, int], rotation: float, shift: tuple, shear: float, zoom: tuple) -> torch.Tensor:
    values = ([rotation], [shift], [shear], [zoom])
    return affine_matrix(size, *(torch.tensor(value, dtype=torch.float64) for value in values))


@pytest.mark.parametrize("shape", [(24, 24), (20, 33)])
@pytest.mark.parametrize(
    ("fill", "mode", "level"),
    [("nearest", "nearest", 0), ("reflect", "reflect", 0), (200.0, "grid-constant", 200 / 255)],
)
def test_affine_is_scipys(shape: tuple[int, int], fill: Fill, mode: str, level: float) -> None:
    """Rotation, shift, shear and zoom together, in Keras' order, in pixels and by scipy.ndimage, for each fill."""
    images = torch.rand(1, 3, *shape, generator=generator(), dtype=torch.float64)
    rotation, (right, down), shear, (zoom_x, zoom_y) = 17.0, (0.1, -0.2), 9.0, (0.8, 1.25)
    angle, (height, width) = np.deg2rad(rotation), shape
    # rows and columns, from new to old
    turn = np.array([[np.cos(angle), np.sin(angle), 0], [-np.sin(angle), np.cos(angle), 0], [0, 0, 1]])
    move = np.array([[1, 0, -down * height], [0, 1, -right * width], [0, 0, 1]])
    lean = np.array([[1, 0, 0], [np.tan(np.deg2rad(shear)), 1, 0], [0, 0, 1]])
    centre = np.array([[1, 0, (height - 1) / 2], [0, 1, (width - 1) / 2], [0, 0, 1]])
    whole = centre @ turn @ move @ lean @ np.diag([zoom_y, zoom_x, 1]) @ np.linalg.inv(centre)
    mapped = affine(images, matrix(shape, rotation, (right, down), shear, (zoom_x, zoom_y)), fill)
    for old, new in zip(images[0], mapped[0], strict=True):
        expected = affine_transform(old.numpy(), whole, order=1, mode=mode, cval=level)
        np.testing.assert_allclose(new.numpy(), expected, atol=1e-9)


@pytest.mark.parametrize(("size", "shape"), [((16, 16), (32, 32)), ((15, 12), (32, 37))])
def test_surroundings_are_seen_where_the_centre_is_turned(size: tuple[int, int], shape: tuple[int, int]) -> None:
    """As scipy turns, zooms and shifts the whole about the middle of its centre, of which that is then cut out."""
    images = torch.rand(1, 3, *shape, generator=generator(), dtype=torch.float64)
    rotation, (right, down), zoom = 30.0, (2 / size[1], -1 / size[0]), 1.1
    mapped = affine(images, matrix(size, rotation, (right, down), 0, (zoom, zoom)), "surroundings", size)
    assert mapped.shape[2:] == size
    angle, starts = np.deg2rad(rotation), [(length - side) // 2 for length, side in zip(shape, size, strict=True)]
    turn = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
    middle = np.array([start + (side - 1) / 2 for start, side in zip(starts, size, strict=True)])
    offset = middle - zoom * turn @ ((np.array(size) - 1) / 2) - turn @ [down * size[0], right * size[1]]
    for old, new in zip(images[0], mapped[0], strict=True):
        expected = affine_transform(old.numpy(), zoom * turn, offset, output_shape=size, order=1, mode="reflect")
        np.testing.assert_allclose(new.numpy(), expected, atol=1e-9)


def test_some_are_turned_and_the_others_are_the_centre_as_it_is() -> None:
    """By `affine_probability`; without surroundings the corners of a turned centre are filled."""
    steps, images = Preprocessing(crop=16), torch.randint(0, 256, (400, 3, 32, 32), dtype=torch.uint8)
    augment = Augmentation(rotation=45, fill="surroundings", affine_probability=0.25)
    pixels = augment.of(steps, images, generator())
    plain = steps.pixels(images)
    same = (pixels == plain).flatten(1).all(1)
    assert pixels.shape == plain.shape
    assert 0.65 < float(same.double().mean()) < 0.85
    white = images.clone()
    white[:, :, 8:24, 8:24] = 0
    white[:, :, :8], white[:, :, 24:], white[..., :8], white[..., 24:] = 255, 255, 255, 255
    assert float(augment.of(steps, white, generator())[~same].amax((1, 2, 3)).min()) > 0
    filled = augment.model_copy(update={"fill": "nearest"})
    assert float(filled.of(steps, white, generator()).max()) == 0


def test_of_few_images_none_may_be_turned() -> None:
    """Then they stay the centres that they are, as in small batches happens."""
    steps, images = Preprocessing(crop=16), torch.randint(0, 256, (4, 3, 32, 32), dtype=torch.uint8)
    augment = Augmentation(rotation=45, fill="surroundings", affine_probability=1e-9)
    assert torch.equal(augment.of(steps, images, generator()), steps.pixels(images))


def test_positive_angles_turn_counter_clockwise_and_positive_shifts_go_right_and_down() -> None:
    """A quarter turn is that of the symmetries; a shift by whole pixels is a roll."""
    images = torch.rand(1, 3, 16, 16, generator=generator(), dtype=torch.float64)
    turned = affine(images, matrix((16, 16), 90, (0, 0), 0, (1, 1)), "nearest")
    torch.testing.assert_close(turned, symmetry(images, 1))
    moved = affine(images, matrix((16, 16), 0, (2 / 16, 3 / 16), 0, (1, 1)), "nearest")
    torch.testing.assert_close(moved[..., 3:, 2:], images[..., :-3, :-2])


def test_a_crop_is_the_cropped_image_enlarged() -> None:
    """The lower right quarter, resized bilinearly (inside, where the crop's border plays no part)."""
    images = torch.rand(1, 3, 16, 16, generator=generator(), dtype=torch.float64)
    sized, placed = torch.tensor([[0.5, 0.5]]).double(), torch.tensor([[0.25, 0.25]]).double()
    whole = matrix((16, 16), 0, (0, 0), 0, (1, 1))
    cropped = affine(images, crop_matrix(whole, sized, placed), "nearest")
    expected = torch.nn.functional.interpolate(images[..., 8:, 8:], (16, 16), mode="bilinear")
    torch.testing.assert_close(cropped[..., 1:, 1:], expected[..., 1:, 1:])


@pytest.mark.parametrize("area", [(0.3, 0.5), (0.8, 1.0)])
def test_random_crops_are_drawn_as_torchvision_draws_them(area: tuple[float, float]) -> None:
    """Width, height and place, read off images that hold their own coordinates, are distributed as torchvision's."""
    n, side = 1000, 32
    ramp = (torch.arange(side, dtype=torch.float64) + 0.5) / side
    place = torch.stack([ramp.expand(side, side), ramp[:, None].expand(side, side), torch.zeros(side, side)])
    seen = Augmentation(crop=area)(place.expand(n, 3, side, side), generator())
    across, down = seen[:, 0, 0, 8:24], seen[:, 1, 8:24, 0]  # away from the border, which is repeated outwards
    width, height = across.diff(dim=1).mean(1) * side, down.diff(dim=1).mean(1) * side
    ours = torch.stack([across.mean(1) - width / 2, down.mean(1) - height / 2, width, height])
    torch.manual_seed(0)
    picture = torch.zeros(1, 1000, 1000)
    drawn = [RandomResizedCrop.get_params(picture, list(area), [3 / 4, 4 / 3]) for _ in range(n)]
    top, left, tall, wide = np.array(drawn).T / 1000
    assert float(ours[:2].min()) > -1e-6
    assert float((ours[:2] + ours[2:]).max()) < 1 + 1e-6
    for mine, theirs in zip(ours.numpy(), (left, top, wide, tall), strict=True):
        assert ks_2samp(mine.round(3), theirs).pvalue > 0.01


def test_flips_mirror_the_drawn_share() -> None:
    """A quarter of the images for .25, and nothing but exact mirror images."""
    image = torch.rand(1, 3, 8, 8, generator=generator())
    for field, axis in (("horizontal_flip", -1), ("vertical_flip", -2)):
        flipped = Augmentation(**{field: 0.25})(image.expand(2000, 3, 8, 8), generator())
        mirrored = (flipped == image.flip(axis)).all(3).all(2).all(1)
        same = (flipped == image).all(3).all(2).all(1)
        assert bool((mirrored ^ same).all())
        assert 0.2 < float(mirrored.float().mean()) < 0.3
    assert torch.equal(Augmentation(horizontal_flip=1)(image), torch.from_numpy(image.numpy()[..., ::-1].copy()))


def test_cutout_hides_a_square_by_the_images_mean() -> None:
    """A square of the stated side, cut off at the border, in the mean colour; all else as it was."""
    images = torch.rand(2, 3, 6, 8, generator=generator(), dtype=torch.float64)
    expected = images.numpy().copy()
    for image, rows, columns in ((0, slice(0, 2), slice(2, 5)), (1, slice(4, 6), slice(6, 8))):
        expected[image, :, rows, columns] = expected[image].mean((1, 2))[:, None, None]
    hidden = hide_squares(images, torch.tensor([[0, 3], [5, 7]]), 3)
    np.testing.assert_allclose(hidden.numpy(), expected)


def test_cutout_happens_as_often_as_stated() -> None:
    """With probability .25 a quarter of the images has a square, at most 6 of 12 px wide, and they differ in place."""
    images = torch.rand(400, 3, 12, 12, generator=generator())
    changed = (Augmentation(cutout=0.5, cutout_probability=0.25)(images, generator()) != images).any(1)
    touched = changed.any(2).any(1)
    assert 0.17 < float(touched.float().mean()) < 0.33
    assert changed.any(2).sum(1).max() == changed.any(1).sum(1).max() == 6
    assert len({square.numpy().tobytes() for square in changed[touched]}) > 50
