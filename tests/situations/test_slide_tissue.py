"""What of a slide is tissue, and what is said of the rest."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from PIL import Image

from tests.situations.situation import situation
from tests.slides.test_scan import fake_model
from tumortrace.cli.main import run
from tumortrace.errors import SlideError
from tumortrace.records.scans import ScanRecord
from tumortrace.slides.scan import scan
from tumortrace.slides.slide import Slide
from tumortrace.slides.tissue import find_tissue, tell_tissue
from tumortrace.slides.tissue_mask import read_tissue_mask

DATA = os.environ.get("TUMORTRACE_DATA")
STRONG, PALE = (150, 60, 150), (226, 206, 222)  # saturations .6 and .09


pytestmark = pytest.mark.usefixtures("use")


def glass(height: int = 400, width: int = 400) -> np.ndarray:
    noise = np.random.default_rng(0).normal(0, 2, (height, width, 3))
    return np.clip(np.array([243, 242, 244]) + noise, 0, 255).astype(np.uint8)


def write(file: Path, pixels: np.ndarray, **more: Any) -> Path:
    options: dict[str, Any] = {"tile": (64, 64), "photometric": "rgb", "metadata": None, "resolution": (2e4, 2e4)}
    tifffile.imwrite(file, pixels, **(options | {"resolutionunit": "CENTIMETER"} | more))
    return file


def test_pale_tissue_beside_strong_stain_is_kept() -> None:
    """Much of it, more than a window of it, and a small island on glass whose tint changes across the slide."""
    picture = glass()
    picture[40:200, 40:200], picture[250:350, 100:300] = STRONG, PALE
    mask = find_tissue(picture, 8.0)
    assert mask[255:345, 105:295].mean() > 0.99
    assert mask.mean() < 1.1 * (160 * 160 + 100 * 200) / 160_000
    large = glass(1200, 1200)
    large[..., 2] -= np.linspace(0, 12, 1200).astype(np.uint8)
    large[40:600, 40:1100], large[700:1000, 40:340], large[1000:1025, 1000:1060] = STRONG, PALE, PALE
    mask = find_tissue(large, 8.0)
    assert mask[705:995, 45:335].mean() > 0.99
    assert mask[1003:1022, 1003:1057].mean() > 0.95
    assert mask.mean() < 1.05 * (560 * 1060 + 300 * 300 + 25 * 60) / 1200**2


@pytest.mark.parametrize("tint", [18, 26])
def test_tinted_glass_is_not_taken_for_pale_tissue(tint: int) -> None:
    """As coloured as pale tissue, but of one kind: it is told how much was left out."""
    random = np.random.default_rng(0)
    picture = np.clip(np.array([240, 236, 240 - tint]) + random.normal(0, 3, (400, 400, 3)), 0, 255).astype(np.uint8)
    picture[100:250, 100:300] = STRONG
    tissue = tell_tissue(picture, 8.0)
    assert tissue.mask.mean() == pytest.approx(150 * 200 / 160_000, rel=0.1)
    assert tissue.pale is not None
    assert tissue.pale > 0.7
    assert "left out as too pale" in tissue.notes[0]


@pytest.mark.skipif(not DATA, reason="TUMORTRACE_DATA is not set")
def test_no_tumour_patch_of_a_stitched_slide_is_lost() -> None:
    """Of 1,200 real tumour patches side by side, pale ones among strong ones, all keep a quarter of tissue but one."""
    files = sorted((Path(str(DATA)) / "pcam" / "train" / "1").iterdir())[:1200]
    small = [np.asarray(Image.open(file).resize((12, 12), Image.Resampling.LANCZOS)) for file in files]
    rows = [np.concatenate(small[start : start + 40], axis=1) for start in range(0, 1200, 40)]
    mask = find_tissue(np.concatenate(rows), 8 * 0.972)
    shares = mask.reshape(30, 12, 40, 12).mean((1, 3))
    assert (shares < 0.25).sum() <= 1


@situation(
    "slides",
    there="strong and very pale tissue on one slide",
    typed="tumortrace scan RUN SLIDE",
    right="`scan.json` says how much was left out as too pale; the line says it from 5 %",
)
def test_what_was_left_out_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Tinted glass, which may be tissue."""
    pixels = np.full((512, 512, 3), (240, 236, 218), np.uint8)
    pixels[100:300, 100:300] = STRONG
    assert run(["scan", "run", str(write(tmp_path / "a.tiff", pixels)), "-o", str(tmp_path / "out")]) == 0
    record = ScanRecord.read(tmp_path / "out" / "a")
    assert record.left_out == pytest.approx(1 - 200**2 / 512**2, abs=0.03)
    assert sum(record.no_tissue.values()) == pytest.approx(1 - 200**2 / 512**2, abs=0.03)
    assert "may be tissue left out as too pale" in capsys.readouterr().err


@situation(
    "slides",
    there="a mask of the tissue, drawn elsewhere",
    typed="tumortrace scan RUN SLIDE --tissue-mask MASK.png",
    right="what is not zero is tissue; a mask of another shape is refused",
)
def test_a_tissue_mask_says_where_tissue_is(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Of any size; labels, bits and colours; one that does not fit, is empty or no picture is one line."""
    pixels = np.full((512, 1024, 3), 243, np.uint8)
    pixels[:256, :256] = STRONG
    slide, marked = write(tmp_path / "a.tiff", pixels), np.zeros((64, 128), np.uint8)
    marked[32:48, 64:96] = 3
    Image.fromarray(marked).save(tmp_path / "m.png")
    command = ["scan", "run", str(slide), "-o", str(tmp_path / "out"), "--tissue-mask"]
    assert run([*command, str(tmp_path / "m.png")]) == 0
    result = ScanRecord.read(tmp_path / "out" / "a")
    assert (result.tissue_by, result.left_out) == ("mask", None)
    assert result.tissue_mm2 == pytest.approx(128 * 256 * 0.25e-6, abs=5e-5)
    tiles = np.loadtxt(tmp_path / "out" / "a" / "tiles.csv", delimiter=",", skiprows=1, usecols=(0, 1))
    assert (tiles.min(0).tolist(), tiles.max(0).tolist()) == ([512, 256], [704, 320])
    Image.fromarray(marked.T).save(tmp_path / "turned.png")
    Image.fromarray(marked * 0).save(tmp_path / "empty.png")
    (tmp_path / "text.png").write_text("none")
    for name in ("turned.png", "empty.png", "text.png", "missing.png"):
        capsys.readouterr()
        assert run([*command, str(tmp_path / name)]) == 1
        lines = capsys.readouterr().err.splitlines()
        assert len(lines) == 1
        assert name in lines[0]


def test_masks_of_every_kind_are_read_alike(tmp_path: Path) -> None:
    """8 and 16 bits, floats, one bit, a palette, colours, transparency, a pyramid."""
    marked = np.zeros((40, 80), bool)
    marked[10:30, 20:50] = True
    Image.fromarray(marked).save(tmp_path / "bit.png")
    palette = Image.fromarray(marked.astype(np.uint8), "P")
    palette.putpalette([255, 255, 255, 0, 0, 0])
    palette.save(tmp_path / "palette.png")
    Image.fromarray(np.dstack([marked * 9, marked * 0, marked * 0]).astype(np.uint8)).save(tmp_path / "colour.png")
    Image.fromarray(np.full((40, 80, 4), 255, np.uint8) * marked[..., None]).save(tmp_path / "clear.png")
    opaque = np.dstack([marked * 255] * 3 + [np.full(marked.shape, 255)]).astype(np.uint8)
    Image.fromarray(opaque).save(tmp_path / "opaque.png")
    tifffile.imwrite(tmp_path / "opaque.tif", opaque, photometric="rgb", extrasamples=["unassalpha"])
    for name, kind in (("a", np.uint8), ("b", np.uint16), ("c", np.float32), ("d", bool), ("e", np.int32)):
        tifffile.imwrite(tmp_path / f"{name}.tif", marked.astype(kind), photometric="minisblack")
    slide = write(tmp_path / "slide.tiff", np.full((256, 512, 3), 243, np.uint8))
    with Slide(slide) as opened:
        for file in sorted({*tmp_path.glob("*.png"), *tmp_path.glob("*.tif")}):
            assert np.array_equal(read_tissue_mask(file, opened), marked), file.name


def test_one_mask_is_of_one_slide(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """For several slides it is refused before the work."""
    slides = [str(write(tmp_path / f"{name}.tiff", glass(128, 128))) for name in "ab"]
    assert run(["scan", "run", *slides, "--tissue-mask", str(tmp_path / "m.png")]) == 1
    assert "one mask for 2 slides" in capsys.readouterr().err


@situation(
    "slides",
    there="a slide of one channel, or of three that are alike",
    typed="tumortrace scan RUN SLIDE",
    right="tissue is told by its darkness, and that is said",
)
@pytest.mark.parametrize("kind", ["minisblack", "miniswhite", "jpeg", "rgb", "flat", "16 bit"])
def test_grey_slides_are_scanned(kind: str, tmp_path: Path) -> None:
    """However they are stored, with the same tiles."""
    grey = np.full((512, 640), 240, np.uint8)
    grey[128:384, 128:384] = 90
    stored: dict[str, Any] = {"photometric": "minisblack"}
    if kind == "miniswhite":
        grey, stored = 255 - grey, {"photometric": "miniswhite"}
    stored |= {"compression": "jpeg"} if kind == "jpeg" else {"tile": None} if kind == "flat" else {}
    pixels = grey.astype(np.uint16) * 257 if kind == "16 bit" else grey
    if kind == "rgb":
        pixels, stored = np.repeat(grey[..., None], 3, 2), {}
    result = scan("run", write(tmp_path / "a.tiff", pixels, **stored), out=tmp_path / "out", model=fake_model())
    assert result.record.tissue_by == "darkness"
    assert "the slide is grey" in " ".join(result.record.notes)
    whole = result.tiles[result.tiles["tissue"] > 0.5]
    assert {(x, y) for x, y in whole[["x", "y"]].to_numpy()} == {
        (x, y) for x in range(128, 384, 64) for y in range(128, 384, 64)
    }


def test_no_tissue_says_why(tmp_path: Path) -> None:
    """A dark ground, pure colours, bare glass: the shares are in the note."""
    dark = np.zeros((256, 256), np.uint8)
    dark[64:128, 64:128] = 200
    for name, pixels, why in (
        ("dark.png", dark, "% black"),
        ("blue.png", np.full((256, 256, 3), (0, 0, 255), np.uint8), "100 % pen marks"),
        ("glass.png", glass(), "100 % bare glass"),
    ):
        Image.fromarray(pixels).save(tmp_path / name)
        result = scan("run", tmp_path / name, out=tmp_path / f"{name}-scan", model=fake_model(), resolution=0.5)
        assert result.record.tiles == 0
        assert why in result.record.notes[-1]


def test_a_mask_that_does_not_fit_is_refused_before_the_folder_is_made(tmp_path: Path) -> None:
    """From Python, too."""
    Image.fromarray(np.ones((50, 50), np.uint8)).save(tmp_path / "m.png")
    slide = write(tmp_path / "a.tiff", glass(128, 256))
    with pytest.raises(SlideError, match=r"50 x 50 px for a slide of 256 x 128 px"):
        scan("run", slide, out=tmp_path / "out", model=fake_model(), tissue_mask=tmp_path / "m.png")
    assert not (tmp_path / "out").exists()
