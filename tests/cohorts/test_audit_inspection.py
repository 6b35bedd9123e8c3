"""What is measured of one image, against cases worked by hand and independent code."""

from __future__ import annotations

import hashlib
import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageFilter
from scipy.ndimage import gaussian_filter
from skimage.measure import block_reduce

from tumortrace.cohorts.looks import inspect, look_at, sharpness
from tumortrace.images.decoding import read_with_facts


def noise(side: int = 64, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (side, side, 3), np.uint8)


def test_sharpness_is_a_ratio_of_variances_of_block_means() -> None:
    """Against scikit-image's block means and the definition."""
    grey = gaussian_filter(np.random.default_rng(1).normal(128, 200, (50, 70)), 1)
    cropped = grey[:48, :64]
    variance = [block_reduce(cropped, (size, size), np.mean).var() for size in (1, 2, 4, 8)]
    expected = np.log2((variance[0] - variance[1] + 0.5) / (variance[2] - variance[3] + 0.5))
    assert sharpness(grey) == pytest.approx(expected, abs=1e-3)


def test_sharpness_falls_with_blur_and_not_with_contrast() -> None:
    """Five octaves from noise to noise blurred by two pixels; half the contrast changes little."""
    grey = noise()[..., 0].astype(float)
    assert sharpness(grey) == pytest.approx(4, abs=0.2)
    assert sharpness(gaussian_filter(grey, 2)) < -1
    assert sharpness(grey / 2 + 60) == pytest.approx(sharpness(grey), abs=0.1)
    assert np.isnan(sharpness(grey[:7]))


def test_shares_of_ink_and_black() -> None:
    """A quarter green, a quarter blue, an eighth black on pink tissue; pink, purple and red are no ink."""
    image = np.empty((64, 64, 3), np.uint8)
    image[:] = 200, 120, 170
    image[:32, :32], image[:32, 32:], image[56:] = (20, 120, 60), (20, 80, 160), (20, 20, 22)
    look, _ = look_at(image)
    assert (look.ink, look.black) == (pytest.approx(0.5, abs=0.05), pytest.approx(0.125, abs=0.03))
    for colour in ((90, 40, 140), (220, 60, 90), (180, 20, 30), (245, 240, 245), (70, 60, 130)):
        look, _ = look_at(np.full((64, 64, 3), colour, np.uint8))
        assert (look.ink, look.black) == (0, 0)


def test_spread_and_colour_are_those_of_numpy() -> None:
    """For an image of 32 px every pixel counts."""
    image = noise(32)
    look, _ = look_at(image)
    assert look.spread == pytest.approx(image.reshape(-1, 3).std(axis=0).max(), rel=1e-4)
    assert look.colour == pytest.approx((image.max(axis=2).astype(int) - image.min(axis=2)).mean(), rel=1e-4)


def test_the_digest_is_of_pixels() -> None:
    """Equal for equal pixels only, and that by which runs of before know what they have seen."""
    image = noise(16)
    digests = {look_at(each)[0].digest for each in (image, image.copy(), image[::-1])}
    assert len(digests) == 2
    expected = hashlib.blake2b(image.tobytes(), digest_size=16).hexdigest()
    assert expected in digests


@pytest.mark.parametrize("position", list(Image.Transpose))
def test_small_pictures_turn_with_the_large_ones(position: Image.Transpose) -> None:
    """To within rounding, for sides that 32 does not divide as well."""
    image = Image.fromarray(noise(50)).filter(ImageFilter.GaussianBlur(1))
    turned = look_at(np.asarray(image.transpose(position)))[1]
    expected = np.asarray(Image.fromarray(look_at(np.asarray(image))[1]).transpose(position))
    assert np.abs(turned.astype(int) - expected).max() <= 2


def encoded(kind: str) -> bytes:
    content = io.BytesIO()
    picture = Image.fromarray(noise())
    picture.save(content, kind, **({"quality": 90} if kind == "JPEG" else {}))
    return content.getvalue()


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "TIFF", "BMP"])
@pytest.mark.parametrize("share", [0.3, 0.9])
def test_files_that_were_cut_off_are_called_truncated(tmp_path: Path, kind: str, share: float) -> None:
    """Of each common format, early and late."""
    content = encoded(kind)
    file = tmp_path / "a.img"
    file.write_bytes(content[: int(len(content) * share)])
    table, _ = inspect([str(file)])
    assert table["problem"].tolist() == ["truncated"]


def test_every_flipped_byte_in_a_png_is_noticed(tmp_path: Path) -> None:
    """Wherever it lies: decoders pass over some and make up pixels."""
    content = bytearray(encoded("PNG"))
    files = []
    for number, place in enumerate(np.linspace(10, len(content) - 10, 40).astype(int)):
        damaged = bytearray(content)
        damaged[place] ^= 0x55
        files.append(tmp_path / f"{number}.png")
        files[-1].write_bytes(damaged)
    table, _ = inspect([str(file) for file in files])
    assert table["problem"].notna().all()


def test_what_a_file_says_of_itself(tmp_path: Path) -> None:
    """Format by content, kind of pixels, orientation, frames, maker, JPEG quality; damaged tags say nothing."""
    exif = Image.Exif()
    exif[274], exif[271] = 8, "Maker"
    picture = Image.fromarray(noise(16))
    picture.save(tmp_path / "a.png", "JPEG", quality=83, exif=exif)
    picture.convert("P").save(tmp_path / "b.gif", save_all=True, append_images=[picture.convert("P").rotate(90)])
    assert read_with_facts(tmp_path / "a.png")[1][:7] == ("JPEG", "RGB", 8, 1, "Maker", 83, "")
    assert read_with_facts(tmp_path / "b.gif")[1][:4] == ("GIF", "palette", 1, 2)
    picture.save(tmp_path / "c.jpg", exif=b"Exif\0\0MM\0*\0\0\xff\xff")
    assert read_with_facts(tmp_path / "c.jpg")[1].orientation == 1


def test_processes_see_what_threads_see(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same table and pictures, in the same order."""
    paths = []
    for number in range(10):
        Image.fromarray(noise(16, number)).save(tmp_path / f"{number}.png")
        paths.append(str(tmp_path / f"{number}.png"))
    by_threads = inspect(paths, workers=2)
    monkeypatch.setattr("tumortrace.cohorts.looks._MANY", 1)
    monkeypatch.setattr("tumortrace.cohorts.looks._BATCH", 3)
    by_processes = inspect(paths, workers=2)
    assert by_threads[0].equals(by_processes[0])
    assert (by_threads[1] == by_processes[1]).all()
