"""Slides without small levels: where the tissue is, from the means that JPEG keeps, as from all pixels."""

from __future__ import annotations

import io
import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from PIL import Image

from tests.situations.situation import situation
from tests.situations.test_slide_tissue import glass
from tumortrace.cli.main import run
from tumortrace.errors import SlideError
from tumortrace.images.shrunk import shrunk
from tumortrace.records.scans import ScanRecord
from tumortrace.slides.slide import Slide

pytestmark = pytest.mark.usefixtures("use")
WIDE, HIGH, TILE = 4500, 700, 256


@pytest.fixture(scope="module")
def picture() -> np.ndarray:
    """Glass with tissue of some texture, whose edges lie across tiles."""
    pixels, rng = glass(HIGH, WIDE), np.random.default_rng(0)
    for top, left, side in ((40, 100, 500), (300, 2000, 390), (5, 4000, 300)):
        spots = rng.integers(-25, 25, (side // 5, side // 5, 1)).repeat(5, 0).repeat(5, 1)
        pixels[top : top + side, left : left + side] = np.array([170, 80, 150]) + spots
    return pixels


def streams(pixels: np.ndarray, tables: bool, keep_rgb: bool) -> Iterator[bytes]:
    """The tiles as JPEG; without their quantisation and Huffman tables where these are kept apart."""
    padded = np.pad(pixels, ((0, -HIGH % TILE), (0, -WIDE % TILE), (0, 0)), mode="edge")
    for top, left in itertools.product(range(0, HIGH, TILE), range(0, WIDE, TILE)):
        stream = io.BytesIO()
        tile = Image.fromarray(padded[top : top + TILE, left : left + TILE])
        tile.save(stream, "JPEG", quality=90, streamtype=2 if tables else 0, keep_rgb=keep_rgb)
        yield stream.getvalue()


def slide(file: Path, pixels: np.ndarray, *, tables: bool = False, rgb: bool = False) -> Path:
    """A tiled TIFF of one level, as scanners and converters write it."""
    shared = io.BytesIO()
    Image.new("RGB", (16, 16)).save(shared, "JPEG", quality=90, streamtype=1, keep_rgb=rgb)
    more: dict[str, Any] = {"jpegtables": shared.getvalue()} if tables else {}
    tifffile.imwrite(
        file,
        streams(pixels, tables, rgb),
        shape=pixels.shape,
        dtype=np.uint8,
        tile=(TILE, TILE),
        compression="jpeg",
        metadata=None,
        resolution=(2e4, 2e4),
        resolutionunit="CENTIMETER",
        photometric="ycbcr",
        subsampling=(1, 1) if rgb else (2, 2),
        **more,
    )
    if rgb:  # tifffile writes no other tag for JPEG
        with tifffile.TiffFile(file, mode="r+b") as tiff:
            tiff.pages.first.tags["PhotometricInterpretation"].overwrite(2)
    return file


@pytest.mark.parametrize("tables", [False, True])
@pytest.mark.parametrize("rgb", [False, True])
def test_means_of_jpeg_are_means_of_its_pixels(tmp_path: Path, picture: np.ndarray, tables: bool, rgb: bool) -> None:
    file = slide(tmp_path / "a.tif", picture, tables=tables, rgb=rgb)
    with Slide(file) as opened:
        whole = opened.reader.read_region(0, 0, 0, WIDE, HIGH)
        reader = shrunk(file, opened.reader, 0, 16.0)
        assert reader is not None
        high, wide = HIGH // 8, WIDE // 8
        assert reader.levels[0] == (wide, high, 8, 8)
        means = whole[: high * 8, : wide * 8].reshape(high, 8, wide, 8, 3).mean((1, 3))
        apart = np.abs(reader.read_region(0, 0, 0, wide, high) - means)
        assert apart.mean() < 0.6
        assert apart.max() < 8  # at edges of the colours, which are kept at half the size
        part = reader.read_region(0, -3, high - 20, 50, 40)  # reaches beyond the slide
        assert (part[20:] == 255).all()
        assert (part[:, :3] == 255).all()
        assert (part[:20, 3:] == reader.read_region(0, 0, high - 20, 47, 20)).all()
        reader.close()


def test_where_a_file_says_two_things_of_its_colours_its_reader_decides(tmp_path: Path, picture: np.ndarray) -> None:
    file = slide(tmp_path / "a.tif", picture, rgb=True)
    with tifffile.TiffFile(file, mode="r+b") as tiff:
        tiff.pages.first.tags["PhotometricInterpretation"].overwrite(6)  # the streams go on saying RGB
    with Slide(file) as opened:
        assert shrunk(file, opened.reader, 0, 16.0) is None
        exact = opened.read_region(0, 0, WIDE, HIGH, size=(500, round(HIGH / 9)))
        assert np.abs(opened.thumbnail(500) - exact.astype(int)).max() <= 6


@situation(
    "slides",
    there="a large slide of JPEG tiles without small levels",
    typed="tumortrace scan RUN a.tif",
    right="its tissue from the means that JPEG keeps, as from all pixels, in a fraction of the time",
)
def test_tissue_is_where_all_pixels_say(
    tmp_path: Path, picture: np.ndarray, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    file = slide(tmp_path / "a.tif", picture)
    asked = ["scan", str(tmp_path), str(file), "--resolution", "0.5"]
    assert run([*asked, "-o", str(tmp_path / "quick")]) == 0
    assert "no small levels" in capsys.readouterr().err
    monkeypatch.setattr("tumortrace.slides.slide.shrunk", lambda *_: None)
    monkeypatch.setattr("tumortrace.slides.slide._GAP", None)
    assert run([*asked, "-o", str(tmp_path / "slow")]) == 0
    quick, slow = (ScanRecord.read(next((tmp_path / name).rglob(ScanRecord.FILE)).parent) for name in ("quick", "slow"))
    assert quick.tiles == pytest.approx(slow.tiles, abs=2)
    assert slow.tiles > 100
    assert quick.tissue_mm2 == pytest.approx(slow.tissue_mm2, rel=0.01)


def test_what_is_not_tiles_of_jpeg_is_read_as_it_is(tmp_path: Path, picture: np.ndarray) -> None:
    file = tmp_path / "a.tif"
    tifffile.imwrite(file, picture, tile=(TILE, TILE), photometric="rgb", compression="zlib", metadata=None)
    with Slide(file) as opened:
        assert shrunk(file, opened.reader, 0, 16.0) is None
        size = (500, round(HIGH / 9))
        exact = opened.read_region(0, 0, WIDE, HIGH, size=size)
        assert np.abs(opened.thumbnail(500) - exact.astype(int)).max() <= 6


def test_a_damaged_tile_is_named(tmp_path: Path, picture: np.ndarray) -> None:
    file = slide(tmp_path / "a.tif", picture)
    with tifffile.TiffFile(file) as tiff:
        offset = tiff.pages.first.dataoffsets[20]
    raw = bytearray(file.read_bytes())
    raw[offset : offset + 200] = bytes(200)
    file.write_bytes(raw)
    with Slide(file) as opened, pytest.raises(SlideError, match="damaged in tile 20"):
        opened.thumbnail(400)
