"""Tiles look alike whatever their place on the slide and the level that they come from."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image
from scipy.ndimage import gaussian_filter

from tests.situations.conftest import Use
from tests.situations.situation import situation
from tests.slides.test_scan import fake_model
from tumortrace.cli.main import run
from tumortrace.errors import SlideError
from tumortrace.records.scans import ScanRecord
from tumortrace.slides.result import JOURNAL
from tumortrace.slides.scan import scan
from tumortrace.slides.slide import Slide

TILED = {"tile": (256, 256), "photometric": "rgb", "metadata": None}


def area_mean(pixels: np.ndarray, factor: int) -> np.ndarray:
    """Each block of factor x factor px as one, rounded."""
    height, width = (side // factor for side in pixels.shape[:2])
    blocks = pixels[: height * factor, : width * factor].reshape(height, factor, width, factor, 3)
    return blocks.mean((1, 3)).round().astype(np.uint8)


def tissue(height: int, width: int, grain: int) -> np.ndarray:
    """Smooth noise whose grains have about `grain` px, as a lens shows it: nothing is finer than its blur."""
    random = np.random.default_rng(0).normal(size=(height, width, 3))
    smooth = gaussian_filter(random, (grain / 2, grain / 2, 0))
    return np.clip(127 + smooth / smooth.std() * 40, 0, 255).astype(np.uint8)


def detail(tile: np.ndarray) -> float:
    """Mean step between neighbours."""
    grey = tile.astype(float).mean(2)
    return float(np.abs(np.diff(grey, axis=0)).mean() + np.abs(np.diff(grey, axis=1)).mean()) / 2


@pytest.fixture(params=["tiff", "openslide"])
def library(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """The reader that takes the file: OpenSlide interpolates, which has to be undone."""
    module = import_module(f"tumortrace.images.readers.{request.param}")
    monkeypatch.setattr("tumortrace.images.readers._readers", lambda: (module,))


def kept_detail(pixels: np.ndarray, slide: Slide, corners: list[tuple[int, int]], side: int, size: int) -> np.ndarray:
    """Detail of each tile, as a share of what is there: area means of full resolution, resized by Pillow."""
    shares = []
    for x, y in corners:
        box = (x, y, x + side, y + side)
        there = Image.fromarray(pixels).resize((size, size), Image.Resampling.LANCZOS, box)
        shares.append(detail(slide.read_region(x, y, side, side, size=(size, size))) / detail(np.asarray(there)))
    return np.array(shares)


@situation(
    "slides",
    there="a level whose factor does not divide the slide's sides",
    typed="tumortrace scan RUN SLIDE",
    right="tiles equally sharp, wherever they lie",
)
@pytest.mark.usefixtures("library")
@pytest.mark.parametrize(("size", "factor"), [((2401, 2003), 4), ((2400, 2002), 3), ((2047, 2045), 2)])
def test_tiles_are_as_sharp_here_as_there(size: tuple[int, int], factor: int, tmp_path: Path) -> None:
    """Corners at every place between a level's pixels, on a slide whose sides its factor does not divide."""
    pixels = tissue(*size, 2 * factor)
    with tifffile.TiffWriter(tmp_path / "a.tiff") as file:
        file.write(pixels, **TILED)
        file.write(area_mean(pixels, factor), subfiletype=1, **TILED)
    corners = [(0, 0), (301, 402), (703, 1101), (1206, 603), (1502, 905), (1701, 1303), (1202, 1205)]
    with Slide(tmp_path / "a.tiff") as slide:
        shares = kept_detail(pixels, slide, corners, 64 * factor, 64)
    assert np.ptp(shares) < 0.05, shares


@situation(
    "resolution",
    there="a slide of .2265 um/px with levels 1 and 4, patches of .97 um",
    typed="tumortrace scan RUN SLIDE",
    right="all tiles are equally sharp, whatever their place",
)
@pytest.mark.usefixtures("library")
def test_neighbours_of_a_model_of_coarser_patches_are_equally_sharp(tmp_path: Path) -> None:
    """A slide of .2265 um/px with levels 1 and 4, patches of .97 um: detail fell by half from tile to tile."""
    pixels = tissue(2400, 3200, 8)
    with tifffile.TiffWriter(tmp_path / "a.tiff") as file:
        file.write(pixels, **TILED)
        file.write(area_mean(pixels, 4), subfiletype=1, **TILED)
    side = round(96 * 0.97 / 0.2265)
    corners = [(x, y) for x in range(0, 3200 - side, side) for y in range(0, 2400 - side, side)]
    with Slide(tmp_path / "a.tiff") as slide:
        shares = kept_detail(pixels, slide, corners, side, 96)
    assert np.ptp(shares) < 0.05, shares


@situation(
    "slides",
    there="a slide to be read between its levels",
    typed="tumortrace scan RUN SLIDE",
    right="within 2 grey levels of area resampling of full resolution",
)
def test_tiles_are_what_area_resampling_of_full_resolution_gives(tmp_path: Path) -> None:
    """On smooth tissue within 2 grey levels (3 where roundings add up), at the far corner too."""
    y, x = np.mgrid[:2003, :2401]
    waves = [127 + 90 * np.sin(x / 47 + number) * np.cos(y / 41 - number) for number in range(3)]
    pixels = np.stack(waves, -1).round().astype(np.uint8)
    with tifffile.TiffWriter(tmp_path / "a.tiff") as file:
        file.write(pixels, **TILED)
        file.write(area_mean(pixels, 4), subfiletype=1, **TILED)
    with Slide(tmp_path / "a.tiff") as slide:
        for left, top in ((0, 0), (801, 603), (2006, 1609)):
            tile = slide.read_region(left, top, 384, 384, size=(96, 96))
            wanted = area_mean(pixels[top : top + 384, left : left + 384], 4)
            off = np.abs(tile.astype(int) - wanted)
            assert np.quantile(off, 0.999) <= 2, (left, top)
            assert off.max() <= 3, (left, top)


def pyramid(file: Path) -> Path:
    """Tissue at .25 um, whose levels of factor 2 and 4 are much darker, so that one sees which was read."""
    with tifffile.TiffWriter(file) as tiff:
        for number, side in enumerate((512, 256, 128)):
            level = np.full((side, side, 3), (200 - 60 * number, 110 - 40 * number, 170 - 40 * number), np.uint8)
            tiff.write(
                level,
                subfiletype=int(number > 0),
                resolution=(4e4, 4e4),
                resolutionunit=3,
                **{**TILED, "tile": (64, 64)},
            )
    return file


@situation(
    "resolution",
    there="a slide with levels",
    typed="tumortrace scan RUN SLIDE --read-level 0",
    right="tiles come from that level, which `scan.json` names; a missing level is refused",
)
def test_the_level_that_is_read_can_be_chosen(tmp_path: Path, use: Use, capsys: pytest.CaptureFixture[str]) -> None:
    """On the command line; the note tells of another than the usual one, and of tiles that were enlarged."""
    seen: list[int] = []

    def predict(images: np.ndarray) -> np.ndarray:
        seen.append(int(np.median(images[..., 0])))
        return np.zeros(len(images))

    use(predict, resolution=0.5)
    slide = str(pyramid(tmp_path / "a.tiff"))
    told = []
    for asked in ("auto", "0", "2"):
        assert run(["scan", "run", slide, "-o", str(tmp_path / asked), "--read-level", asked]) == 0
        told.append(ScanRecord.read(tmp_path / asked / "a"))
    assert seen == [140, 200, 80]
    assert [(record.read_level, record.level, record.level_factor) for record in told] == [
        ("auto", 1, 2.0),
        ("0", 0, 1.0),
        ("2", 2, 4.0),
    ]
    assert told[0].notes == []
    assert "level 0 was read, as was asked" in told[1].notes[0]
    assert "2 times coarser than tiles" in told[2].notes[0]
    capsys.readouterr()
    for wrong in ("3", "-1", "fine", "1.5"):
        assert run(["scan", "run", slide, "-o", str(tmp_path / "no"), f"--read-level={wrong}"]) == 1
        assert "levels: 0 (full resolution), 1 (2 times" in capsys.readouterr().err


def test_another_level_is_not_resumed(tmp_path: Path) -> None:
    """Tiles that were predicted from one level are not continued from another."""
    calls: list[int] = []

    def stopping(images: np.ndarray) -> np.ndarray:
        calls.append(len(images))
        if len(calls) == 3:
            raise SlideError("stop")
        return np.zeros(len(images))

    model, slide = fake_model(stopping, resolution=0.5), pyramid(tmp_path / "a.tiff")
    with pytest.raises(SlideError, match="stop"):
        scan("run", slide, out=tmp_path / "out", model=model, batch_size=8)
    assert (tmp_path / "out" / JOURNAL).exists()
    first: list[int] = []
    options = {"out": tmp_path / "out", "model": model, "batch_size": 8, "progress": lambda done, _: first.append(done)}
    scan("run", slide, read_level=0, **options)  # type: ignore[arg-type]
    assert first[0] == 0


@situation(
    "resolution",
    there="a model whose training data stated no resolution",
    typed="tumortrace scan RUN SLIDE",
    right="refused until `--patch-resolution` states it",
)
def test_a_model_without_resolution_is_asked_for_it(
    tmp_path: Path, use: Use, capsys: pytest.CaptureFixture[str]
) -> None:
    """Also where --resolution is given, which is the slide's; nothing is written."""
    use(resolution=None)
    command = ["scan", "run", str(pyramid(tmp_path / "a.tiff")), "-o", str(tmp_path / "out")]
    for more in ([], ["--resolution", "0.25"]):
        assert run([*command, *more]) == 1
        lines = capsys.readouterr().err.splitlines()
        assert len(lines) == 1
        assert "states no resolution" in lines[0]
        assert "--patch-resolution" in lines[0]
    assert run([*command, "--patch-resolution", "0.5"]) == 0
    assert "taken to have 0.5 um/px, as was asked" in capsys.readouterr().err
