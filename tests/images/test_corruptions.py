"""Corruptions against Pillow, SciPy and hand-worked cases; their order, determinism and identities."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.ndimage import convolve, gaussian_filter, rotate
from skimage.morphology import disk as skimage_disk

from tumortrace.errors import DataError
from tumortrace.images.corruptions import CORRUPTIONS, corrupt, disk, fits

SIDE = 48
ORDERED = [name for name, corruption in CORRUPTIONS.items() if corruption.ordered]


@pytest.fixture(scope="module")
def images() -> np.ndarray:
    """Six tissue-like patches: dark blobs on a pink ground, with white gaps."""
    random = np.random.default_rng(0)
    blobs = gaussian_filter(random.standard_normal((6, SIDE, SIDE)), (0, 4, 4))
    blobs /= blobs.std(axis=(1, 2), keepdims=True)
    nuclei, gaps = (blobs > 0.6)[..., None], (blobs < -1.5)[..., None]
    ground = np.where(nuclei, (95, 55, 130), np.where(gaps, (236, 232, 238), (205, 130, 175)))
    noisy = gaussian_filter(ground + random.normal(0, 12, ground.shape), (0, 0.7, 0.7, 0))
    return np.clip(noisy, 0, 255).astype(np.uint8)


IDS = list("abcdef")


def distance(one: np.ndarray, other: np.ndarray) -> float:
    return float(np.abs(one.astype(int) - other.astype(int)).mean())


def test_every_corruption_has_strengths_that_grow() -> None:
    """Three amounts or more that go one way; the symmetries are the seven that are not the identity."""
    for name in ORDERED:
        amounts = CORRUPTIONS[name].amounts
        assert len(amounts) >= 3
        assert list(amounts) in (sorted(set(amounts)), sorted(set(amounts), reverse=True))
    assert CORRUPTIONS["symmetry"].amounts == tuple(range(1, 8))


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_strength_0_changes_no_byte(name: str, images: np.ndarray) -> None:
    """Strength 0 is the image as it is."""
    assert corrupt(images, IDS, name, 0).tobytes() == images.tobytes()


@pytest.mark.parametrize("name", ORDERED)
def test_a_higher_strength_goes_further_from_the_original(name: str, images: np.ndarray) -> None:
    """Mean distance in grey levels grows strictly from strength to strength."""
    distances = [
        distance(corrupt(images, IDS, name, strength), images) for strength in (0, *CORRUPTIONS[name].strengths)
    ]
    assert distances[0] == 0
    assert (np.diff(distances) > 0).all(), distances


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_an_image_is_corrupted_alike_in_any_company_and_order(name: str, images: np.ndarray) -> None:
    """Alone, reversed or in a batch: the same bytes; another seed or id draws anew where there is something to draw."""
    together = corrupt(images, IDS, name, 3, seed=5)
    backwards = corrupt(images[::-1], IDS[::-1], name, 3, seed=5)
    assert (backwards[::-1] == together).all()
    for k in range(2):
        assert (corrupt(images[k : k + 1], [IDS[k]], name, 3, seed=5)[0] == together[k]).all()
    drawn = {
        "stain-balance",
        "stain-hue",
        "scanner",
        "read-level",
        "noise",
        "jpeg",
        "rotation",
        "shift",
        "fold",
        "bubble",
    }
    assert (not (corrupt(images, IDS, name, 3, seed=6) == together).all()) == (name in drawn)


@pytest.mark.parametrize("strength", [1, 2, 3])
def test_a_level_is_block_means_of_finer_pixels_on_a_drawn_grid(strength: int) -> None:
    """The mean over a px of the level keeps sinc(px / length) of a wave and moves it nowhere."""
    size = CORRUPTIONS["read-level"].amounts[strength - 1]
    wave = np.repeat(100 * np.sin(2 * np.pi * np.arange(SIDE) / 10)[None, :, None], SIDE, 0).repeat(3, 2)
    changed = corrupt(np.rint(127 + wave).astype(np.uint8)[None], ["a"], "read-level", strength)[0].astype(float)
    off = changed - 127 - wave * np.sinc(size / 10)
    assert np.abs(off[12:-12, 12:-12]).max() < 3
    assert strength < 3 or np.abs(changed - 127 - wave)[12:-12, 12:-12].max() > 5


def test_jpeg_is_pillows_on_a_drawn_grid(images: np.ndarray) -> None:
    """The bytes that Pillow decodes from its own file of that quality, of the image with its rim repeated around it
    so that the blocks of 16 begin elsewhere; where is drawn for each image, and the same at every strength."""
    places = []
    for row, image in enumerate(images):
        at = {strength: corrupt(images, IDS, "jpeg", strength)[row] for strength in (2, 5)}
        (place,) = (place for place in np.ndindex(16, 16) if (compressed(image, 60, *place) == at[2]).all())
        np.testing.assert_array_equal(compressed(image, 10, *place), at[5])
        places.append(place)
    assert len(set(places)) > 1


def compressed(image: np.ndarray, quality: int, top: int = 0, left: int = 0) -> np.ndarray:
    """What Pillow makes of it where the grid begins `top` and `left` pixels outside."""
    height, width = image.shape[:2]
    around = ((top, -(top + height) % 16), (left, -(left + width) % 16), (0, 0))
    buffer = BytesIO()
    Image.fromarray(np.pad(image, around, mode="edge")).save(buffer, "JPEG", quality=quality)
    return np.asarray(Image.open(buffer))[top : top + height, left : left + width]


def test_what_was_a_jpeg_before_is_not_sharpened(images: np.ndarray) -> None:
    """On the grid of its first compression at 75, quality 60 enlarges the steps from pixel to pixel; elsewhere not."""

    def edges(pixels: np.ndarray) -> float:
        return float(np.abs(np.diff(pixels.astype(float), axis=2)).mean())

    before = np.stack([compressed(image, 75) for image in images])
    again = np.stack([compressed(image, 60) for image in before])
    ids = [f"{number}" for number in range(8 * len(before))]
    many = np.concatenate([before] * 8)
    found = edges(corrupt(many, ids, "jpeg", 2)) / edges(before)
    assert edges(again) / edges(before) > 1.08
    assert abs(found - 1) < 0.05


def test_blur_is_scipys(images: np.ndarray) -> None:
    """A Gaussian of the stated sigma, within a grey level's rounding."""
    for strength, sigma in enumerate((0.5, 1.0, 1.5, 2.5, 4.0), start=1):
        expected = gaussian_filter(images.astype(float), (0, sigma, sigma, 0), mode="nearest")
        assert np.abs(corrupt(images, IDS, "blur", strength) - expected).max() <= 0.51


def test_defocus_is_the_mean_over_a_disk(images: np.ndarray) -> None:
    """SciPy's convolution with the disk; and the disk is scikit-image's, but for pixels on its rim."""
    kernel = disk(3.2)
    expected = convolve(images.astype(float), kernel[None, :, :, None], mode="nearest")
    assert np.abs(corrupt(images, IDS, "defocus", 4) - expected).max() <= 0.51
    whole = skimage_disk(3)
    assert kernel.shape == whole.shape
    inner = skimage_disk(2)
    assert (np.pad(inner, 1) * (kernel - kernel.max()) == 0).all()  # covered wholly
    assert kernel.sum() == pytest.approx(1)
    assert 1 / kernel.max() == pytest.approx(np.pi * 3.2**2, rel=0.01)  # the disk's area in pixels


def test_resolution_is_pillows_reduction_and_enlargement(images: np.ndarray) -> None:
    """Down and up with Pillow's bilinear filter, whose intermediate is rounded to 8 bits."""
    small = [Image.fromarray(image).resize((SIDE // 2, SIDE // 2), Image.Resampling.BILINEAR) for image in images]
    expected = np.stack([np.asarray(one.resize((SIDE, SIDE), Image.Resampling.BILINEAR)) for one in small])
    assert np.abs(corrupt(images, IDS, "resolution", 2).astype(int) - expected.astype(int)).max() <= 2


def test_brightness_and_stain_by_hand() -> None:
    """Half the light is half the pixel; double the density is the square of what passes."""
    image = np.full((1, 16, 16, 3), (200, 100, 150), np.uint8)
    assert corrupt(image, ["a"], "darker", 5)[0, 0, 0].tolist() == [100, 50, 75]
    passes = (np.array([200, 100, 150]) + 1) / 256
    np.testing.assert_allclose(corrupt(image, ["a"], "stain-dark", 4)[0, 0, 0], passes**2 * 256 - 1, atol=0.51)


def test_stain_hue_keeps_total_density_and_grey(images: np.ndarray) -> None:
    """The sum of the three optical densities stays, and a grey has no hue to turn."""
    inner = np.clip(images, 60, 200)  # far from black and white, where pixels are cut off
    density = -np.log((np.array([inner, corrupt(inner, IDS, "stain-hue", 2)], float) + 1) / 256).sum(-1)
    np.testing.assert_allclose(density[1], density[0], atol=0.02)
    grey = np.full((1, 16, 16, 3), 120, np.uint8)
    assert (corrupt(grey, ["a"], "stain-hue", 5) == grey).all()


def test_scanner_colours_keep_white_black_and_greys_grey() -> None:
    """A white balance survives: greys stay grey, whatever the gamma; black and white stay what they are."""
    ramp = np.repeat(np.arange(256, dtype=np.uint8)[None, None, :, None], 3, axis=3)
    changed = corrupt(ramp, ["a"], "scanner", 5)[0, 0]
    assert (changed == changed[:, :1]).all()
    assert changed[0].tolist() == [0, 0, 0]
    assert changed[255].tolist() == [255, 255, 255]


def test_noise_has_the_stated_deviation() -> None:
    """On a mid grey, where nothing is cut off."""
    grey = np.full((1, 96, 96, 3), 128, np.uint8)
    assert corrupt(grey, ["a"], "noise", 3).std() == pytest.approx(14, rel=0.03)


def test_rotation_is_scipys_in_the_middle(images: np.ndarray) -> None:
    """By the stated angle to one side or the other, bilinear."""
    turned = corrupt(images, IDS, "rotation", 3).astype(float)
    middle = slice(SIDE // 4, -SIDE // 4)
    for image, ours in zip(images.astype(float), turned, strict=True):
        both = [rotate(image, angle, axes=(0, 1), reshape=False, order=1, mode="mirror") for angle in (10, -10)]
        assert min(np.abs(ours - one)[middle, middle].max() for one in both) <= 0.6


def test_symmetries_are_numpys(images: np.ndarray) -> None:
    """Quarter turns, then mirrorings: no pixel is resampled."""
    for index in range(1, 8):
        expected = np.rot90(images, index % 4, (1, 2))
        expected = expected[:, :, ::-1] if index >= 4 else expected
        np.testing.assert_array_equal(corrupt(images, IDS, "symmetry", index), expected)


def test_shift_moves_whole_pixels(images: np.ndarray) -> None:
    """Each image is found again, byte for byte, moved by 8 % of the side in one of eight directions."""
    step = round(0.08 * SIDE)
    for image, moved in zip(images, corrupt(images, IDS, "shift", 3), strict=True):
        padded = np.pad(image, ((step, step), (step, step), (0, 0)), mode="reflect")
        places = [(y, x) for y in (0, step, 2 * step) for x in (0, step, 2 * step) if (y, x) != (step, step)]
        assert any((moved == padded[y : y + SIDE, x : x + SIDE]).all() for y, x in places)


def test_a_fold_adds_densities_within_its_band() -> None:
    """On one even colour the band's middle has twice the density, the band its width, and the rest is untouched."""
    even = np.full((1, 96, 96, 3), 180, np.uint8)
    folded = corrupt(even, ["a"], "fold", 4)[0]
    double = ((180 + 1) / 256) ** 2 * 256 - 1
    counts = np.unique(folded[..., 0], return_counts=True)
    share = dict(zip(*counts, strict=True))
    assert share[180] / 96**2 > 0.5
    assert share[round(double)] > share.get(round(double) + 1, 0)
    assert (folded < 180).any(2).sum() / 96 == pytest.approx(0.25 * 96, rel=0.45)  # the band is cut off at corners


def test_a_bubble_is_round_and_bright_with_a_dark_rim() -> None:
    """Within the stated radius only; its middle is lighter than tissue, its rim darker."""
    even = np.full((1, 96, 96, 3), 150, np.uint8)
    bubbled = corrupt(even, ["a"], "bubble", 3)[0, ..., 0].astype(int)
    ys, xs = np.nonzero(bubbled != 150)
    for extent in (np.ptp(ys) + 1, np.ptp(xs) + 1):
        assert extent == pytest.approx(2 * 0.2 * 96, abs=3)
    middle = bubbled[round(ys.mean()), round(xs.mean())]
    assert middle > 170
    assert bubbled.min() < 80


def test_oblong_images_have_no_quarter_turns() -> None:
    """They are refused with a line, half turns are not."""
    oblong = np.zeros((1, 24, 16, 3), np.uint8)
    assert not fits("symmetry", 1, (24, 16))
    assert corrupt(oblong, ["a"], "symmetry", 2).shape == oblong.shape
    with pytest.raises(DataError, match="square"):
        corrupt(oblong, ["a"], "symmetry", 1)


def test_unknown_names_and_strengths_are_refused() -> None:
    """With what there is."""
    image = np.zeros((1, 16, 16, 3), np.uint8)
    with pytest.raises(DataError, match=r"no corruption 'rain'.*stain-hue"):
        corrupt(image, ["a"], "rain", 1)
    with pytest.raises(DataError, match="strength 6 of blur; expected 0 to 5"):
        corrupt(image, ["a"], "blur", 6)


def test_torchs_random_state_is_left_alone(images: np.ndarray) -> None:
    """Corrupting draws from no global generator."""
    torch.manual_seed(1)
    expected = torch.rand(3)
    torch.manual_seed(1)
    corrupt(images, IDS, "noise", 3)
    assert torch.equal(torch.rand(3), expected)


def test_the_documents_table_is_the_programs() -> None:
    """docs/robustness.md names every corruption with its unit and its amounts."""
    text = (Path(__file__).parents[2] / "docs" / "robustness.md").read_text("utf-8")
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in text.splitlines() if line.startswith("| `")]
    documented = {name.strip("`"): (unit, tuple(map(float, amounts.split()))) for name, _, unit, amounts in rows}
    assert documented == {name: (one.unit, one.amounts) for name, one in CORRUPTIONS.items()}
