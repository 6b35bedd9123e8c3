"""tifffile and OpenSlide give the same pixels where both read; where one is blind, the other gives what was written."""

from __future__ import annotations

from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from scipy.ndimage import gaussian_filter

from tumortrace.images.readers import open_reader
from tumortrace.images.readers.openslide import open_reader as open_by_openslide
from tumortrace.images.readers.tiff import TiffReader

WIDE, HIGH = 640, 480
TILES: dict[str, Any] = {"tile": (128, 112), "metadata": None}
RGB, YCBCR = {"photometric": "rgb"}, {"photometric": "ycbcr", "subsampling": (2, 2)}
FORMS: dict[str, dict[str, Any]] = {
    "raw": RGB,
    "deflate": RGB | {"compression": "zlib", "predictor": True},
    "lzw": RGB | {"compression": "lzw"},
    "jpeg-rgb": RGB | {"compression": "jpeg"},
    "jpeg-ycbcr": YCBCR | {"compression": "jpeg"},
    "grey": {"photometric": "minisblack", "compression": "zlib"},
}


def picture(wide: int = WIDE, high: int = HIGH) -> np.ndarray:
    noise = gaussian_filter(np.random.default_rng(0).normal(size=(high, wide, 3)), (2, 2, 0))
    return np.clip(140 + noise / noise.std() * 40, 0, 255).astype(np.uint8)


def pyramid(file: Path, pixels: np.ndarray, options: dict[str, Any], *, subifds: bool = False) -> list[np.ndarray]:
    """Write three levels, each the every-second px of the one before; returns them."""
    levels = [np.ascontiguousarray(pixels[::step, ::step]) for step in (1, 2, 4)]
    with tifffile.TiffWriter(file, ome=False) as target:
        for number, level in enumerate(levels):
            inside = {"subifds": 2 if subifds else None} if number == 0 else {"subfiletype": 1}
            target.write(level, **inside, **(TILES | options))
    return levels


def regions(wide: int, high: int) -> list[tuple[int, int, int, int]]:
    """Within, at each border, sticking out of it, and beyond."""
    across, down = (-30, 0, 37, wide - 50, wide - 20, wide + 9), (-30, 0, 41, high - 60, high - 20, high + 9)
    return [(x, y, 50, 60) for x, y in product(across, down)] + [(-5, -6, wide + 11, high + 12)]


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("size", [(640, 480), (656, 496)])
def test_both_libraries_give_the_same_pixels(form: str, size: tuple[int, int], tmp_path: Path) -> None:
    """At all levels, within, at the borders and beyond; JPEG may differ by one grey level, and does not."""
    pixels = picture(*size)
    pyramid(tmp_path / "a.tif", pixels[..., 0] if form == "grey" else pixels, FORMS[form])
    ours, theirs = open_reader(tmp_path / "a.tif"), open_by_openslide(tmp_path / "a.tif")
    assert isinstance(ours, TiffReader)
    assert theirs is not None
    assert ours.levels == theirs.levels
    assert (ours.part, ours.resolution) == (theirs.part, theirs.resolution)
    most = 1 if "jpeg" in form else 0
    for number, level in enumerate(ours.levels):
        for region in regions(level.width, level.height):
            one, other = (reader.read_region(number, *region).astype(int) for reader in (ours, theirs))
            assert np.abs(one - other).max() <= most, (number, region)
    for reader in (ours, theirs):
        reader.close()


def test_levels_whose_factor_is_not_whole_are_exact(tmp_path: Path) -> None:
    """641 px over 321: OpenSlide interpolates between px there, which `OpenSlideReader` undoes to some grey levels."""
    levels = pyramid(tmp_path / "a.tif", picture(641, 479), RGB)
    reader = open_reader(tmp_path / "a.tif")
    assert [tuple(level) for level in reader.levels] == [(641, 479, 1, 1), (321, 240, 2, 2), (161, 120, 4, 4)]
    for number, pixels in enumerate(levels):
        high, wide = pixels.shape[:2]
        assert np.array_equal(reader.read_region(number, 0, 0, wide, high), pixels)
        assert np.array_equal(reader.read_region(number, 33, 21, 77, 65), pixels[21:86, 33:110])
    reader.close()


@pytest.mark.parametrize("compression", ["webp", "jpegxl", "lerc", "zstd", "lzma"])
@pytest.mark.parametrize("subifds", [False, True])
def test_what_openslide_is_blind_to_is_read_as_written(compression: str, subifds: bool, tmp_path: Path) -> None:
    """Compressions without loss give what was written, at all levels, also where these stand in SubIFDs."""
    arguments = {"webp": {"lossless": True}, "jpegxl": {"lossless": True}}.get(compression)
    options = RGB | {"compression": compression} | ({"compressionargs": arguments} if arguments else {})
    levels = pyramid(tmp_path / "a.tif", picture(), options, subifds=subifds)
    reader = open_reader(tmp_path / "a.tif")
    assert [(level.width, level.height) for level in reader.levels] == [(640, 480), (320, 240), (160, 120)]
    for number, pixels in enumerate(levels):
        assert np.array_equal(reader.read_region(number, 7, 9, 140, 100), pixels[9:109, 7:147])
    reader.close()


def test_what_the_libraries_take_differently_is_left_to_openslide(tmp_path: Path) -> None:
    """A later page of half the size that is no level, and YCbCr without JPEG, which tifffile does not convert."""
    with tifffile.TiffWriter(tmp_path / "label.tif") as target:
        target.write(picture(), **RGB, **TILES)
        target.write(picture()[::2, ::2] // 2, **RGB, **TILES)
    tifffile.imwrite(tmp_path / "ycbcr.tif", picture(), photometric="ycbcr", subsampling=(1, 1), **TILES)
    for name in ("label", "ycbcr"):
        reader = open_reader(tmp_path / f"{name}.tif")
        assert not isinstance(reader, TiffReader), name
        assert len(reader.levels) == 1
        reader.close()


def test_decoded_tiles_are_kept_within_bounds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As many as fit, the last used ones; a region read again needs no tile anew, and others give no other pixels."""
    monkeypatch.setattr("tumortrace.images.readers.tiff._KEPT", 4 * 128 * 112 * 3)
    pixels = picture()
    pyramid(tmp_path / "a.tif", pixels, RGB | {"compression": "zlib"})
    reader = open_reader(tmp_path / "a.tif")
    assert isinstance(reader, TiffReader)
    for x, y in product(range(0, 500, 90), range(0, 400, 90)):
        assert np.array_equal(reader.read_region(0, x, y, 96, 80), pixels[y : y + 80, x : x + 96])
        assert len(reader._kept) <= 4
    reader._tiff.filehandle.close()
    assert np.array_equal(reader.read_region(0, x, y, 96, 80), pixels[y : y + 80, x : x + 96])
