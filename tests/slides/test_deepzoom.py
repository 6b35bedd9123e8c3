"""Deep Zoom tiles show the slide: the same as OpenSlide's own generator, and as a direct reading."""

import io
import threading
import xml.etree.ElementTree
from pathlib import Path
from typing import Any

import numpy as np
import openslide
import openslide.deepzoom
import pytest
import tifffile
from PIL import Image

from tests.slides.test_reading import picture, write_pyramid
from tumortrace.errors import SlideError
from tumortrace.slides.deepzoom import OVERLAP, TILE, DeepZoom
from tumortrace.slides.slide import Slide


def decoded(content: bytes) -> np.ndarray:
    with Image.open(io.BytesIO(content)) as image:
        assert image.format == "JPEG"
        return np.asarray(image.convert("RGB")).astype(int)


def smooth(height: int, width: int) -> np.ndarray:
    """Large soft blobs: JPEG and the kinds of resizing agree on them."""
    y, x = np.mgrid[:height, :width]
    waves = [128 + 100 * np.sin(x / 70 + phase) * np.cos(y / 55 - phase) for phase in (0, 1, 2)]
    return np.stack(waves, -1).astype(np.uint8)


@pytest.mark.parametrize("height", [704, 701])
def test_every_level_has_the_tiles_that_openslide_makes(height: int, tmp_path: Path) -> None:
    """Number of levels, tiles per level, size of each tile and its pixels are those of OpenSlide's generator."""
    pixels = smooth(height, 1152)
    write_pyramid(tmp_path / "a.tiff", [pixels, pixels[::2, ::2], pixels[::4, ::4]])
    reference = openslide.deepzoom.DeepZoomGenerator(openslide.OpenSlide(tmp_path / "a.tiff"), TILE, OVERLAP)
    with Slide(tmp_path / "a.tiff") as slide:
        zoom = DeepZoom(slide)
        assert zoom.levels == reference.level_count
        for level in range(zoom.levels):
            assert zoom.size(level) == reference.level_dimensions[level]
            assert zoom.grid(level) == reference.level_tiles[level]
            for column in range(zoom.grid(level)[0]):
                for row in range(zoom.grid(level)[1]):
                    tile = decoded(zoom.tile(level, column, row))
                    expected = np.asarray(reference.get_tile(level, (column, row))).astype(int)
                    assert tile.shape[1::-1] == reference.get_tile_dimensions(level, (column, row))
                    height, width = np.minimum(tile.shape[:2], expected.shape[:2])  # theirs may lack a px at the edge
                    tile, expected = tile[:height, :width], expected[:height, :width]
                    if min(zoom.size(level)) > 80:
                        assert np.abs(tile - expected)[2:-2, 2:-2].mean() < 3
        ours, theirs = (
            xml.etree.ElementTree.fromstring(text) for text in (zoom.descriptor(), reference.get_dzi("jpeg"))
        )
    assert [(part.tag, part.attrib) for part in ours.iter()] == [(part.tag, part.attrib) for part in theirs.iter()]


@pytest.mark.parametrize("name", ["a.png", "flat.tiff"])
def test_plain_images_have_tiles_too(name: str, tmp_path: Path) -> None:
    """At full resolution a tile is the image's own pixels to JPEG's tolerance, with a px of overlap on inner sides."""
    pixels = smooth(600, 800)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    tifffile.imwrite(tmp_path / "flat.tiff", pixels, metadata=None)
    with Slide(tmp_path / name) as slide:
        zoom = DeepZoom(slide)
        tile = decoded(zoom.tile(zoom.levels - 1, 1, 2))
        half = decoded(zoom.tile(zoom.levels - 2, 1, 0))
    assert np.abs(tile - pixels[507:600, 253:509]).max() < 12
    reference = pixels[: 2 * 255, 2 * 253 : 800].reshape(255, 2, -1, 2, 3).mean((1, 3))
    assert np.abs(half - reference).mean() < 3


def test_tiles_of_a_real_slide_equal_a_direct_reading(real_data: Path) -> None:
    """Each tile agrees with the region read straight from the file, at full size and at a quarter."""
    with Slide(real_data / "slides" / "cmu-1-small-region.svs") as slide:
        zoom = DeepZoom(slide)
        for level, factor in ((zoom.levels - 1, 1), (zoom.levels - 2, 2)):
            left, top = 254 - 1, 2 * 254 - 1
            side = (min(256, zoom.size(level)[0] - left), min(256, zoom.size(level)[1] - top))
            region = [left * factor, top * factor, side[0] * factor, side[1] * factor]
            with io.BytesIO() as file:
                direct = Image.fromarray(slide.read_region(*region, size=side))
                direct.save(file, "JPEG", quality=85, subsampling=0)
                expected = decoded(file.getvalue())
            assert np.abs(decoded(zoom.tile(level, 1, 2)) - expected).max() <= 1


def test_tiles_that_are_not_there_are_refused(tmp_path: Path) -> None:
    """Levels, columns and rows beyond the grid give one line."""
    Image.fromarray(picture(300, 400)).save(tmp_path / "a.png")
    with Slide(tmp_path / "a.png") as slide:
        zoom = DeepZoom(slide)
        for wrong in ((zoom.levels, 0, 0), (-1, 0, 0), (0, 1, 0), (zoom.levels - 1, 2, 0), (3, 0, -1), (10**6, 0, 0)):
            with pytest.raises(SlideError, match="no tile"):
                zoom.tile(*wrong)


def test_a_slide_without_levels_is_read_once_for_all_small_levels(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All levels of up to 1024 px come from one reading, also when many threads ask at once."""
    Image.fromarray(smooth(1100, 1200)).save(tmp_path / "a.png")
    calls = []
    with Slide(tmp_path / "a.png") as slide:
        read = slide.read_region
        monkeypatch.setattr(slide, "read_region", lambda *args, **more: calls.append(args) or read(*args, **more))
        zoom = DeepZoom(slide)
        found: dict[int, bytes] = {}
        work = [threading.Thread(target=lambda n=n: found.update({n: zoom.tile(7 + n % 3, 0, 0)})) for n in range(6)]
        for thread in work:
            thread.start()
        for thread in work:
            thread.join()
        assert len(calls) == 1
        assert all(found[n] == found[n + 3] for n in range(3))


def test_a_large_slide_without_levels_has_an_overview_that_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Written once, it spares every later viewer the reading of the whole slide, and the tiles look the same."""
    pixels = smooth(300, 5000)
    options: dict[str, Any] = {"tile": (256, 256), "metadata": None, "compression": "jpeg", "photometric": "rgb"}
    tifffile.imwrite(tmp_path / "a.tiff", pixels, **options)
    read: list[Any] = []
    with Slide(tmp_path / "a.tiff") as slide:
        assert (slide.in_memory, slide.coarsest) == (False, 1.0)
        zoom = DeepZoom(slide)
        assert zoom.lacks_levels
        direct = [decoded(zoom.tile(level, 1, 0)) for level in (11, 12)]
        zoom.write_overview(tmp_path / "overview.jpg")
        region = slide.read_region
        monkeypatch.setattr(slide, "read_region", lambda *args, **more: read.append(args) or region(*args, **more))
        kept = DeepZoom(slide, tmp_path / "overview.jpg")
        for level, tile in zip((11, 12), direct, strict=True):
            assert np.abs(decoded(kept.tile(level, 1, 0)) - tile).mean() < 1
        assert not read
        assert np.abs(decoded(kept.tile(13, 1, 0)) - pixels[:255, 253:509]).mean() < 3  # full resolution is the file's
        assert len(read) == 1
        (tmp_path / "overview.jpg").write_bytes(b"no picture")
        assert np.abs(decoded(DeepZoom(slide, tmp_path / "overview.jpg").tile(11, 1, 0)) - direct[0]).max() == 0


def test_small_slides_and_those_with_levels_need_no_overview(tmp_path: Path) -> None:
    """Their levels are read as quickly as a picture kept would be."""
    pixels = smooth(300, 5000)
    write_pyramid(tmp_path / "levels.tiff", [pixels, pixels[::2, ::2]])
    Image.fromarray(pixels).save(tmp_path / "plain.png")
    for name in ("levels.tiff", "plain.png"):
        with Slide(tmp_path / name) as slide:
            assert not DeepZoom(slide).lacks_levels
