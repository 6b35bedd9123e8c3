"""Slides of which a part is out of focus: told by tile, by slide and over slides, whatever the resolution."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image, ImageDraw
from scipy.ndimage import gaussian_filter

from tests.situations.situation import situation
from tumortrace.cli.main import run
from tumortrace.cohorts.looks import look_at
from tumortrace.records.scans import ScanRecord
from tumortrace.records.tables import SCANNED, TILES
from tumortrace.slides.focus import focus_of

pytestmark = pytest.mark.usefixtures("use")


def tissue(side: int, resolution: float, blurred: int = 0, um: float = 4.0) -> np.ndarray:
    """Stain with detail of 1 um and of cells; the first `blurred` columns are out of focus by a Gaussian of `um`."""
    noise = np.random.default_rng(0).normal(0, 1, (2, side, side))
    scales = [gaussian_filter(part, size / resolution, mode="wrap") for part, size in zip(noise, (0.5, 8), strict=True)]
    grains = sum(part / part.std() for part in scales)
    if blurred:
        grains[:, :blurred] = gaussian_filter(grains[:, :blurred], um / resolution)
    picture = np.array([190, 110, 160]) + 22 * grains[..., None]
    return picture.clip(0, 255).astype(np.uint8)


def write(file: Path, picture: np.ndarray, resolution: float) -> Path:
    Image.fromarray(picture).save(file, dpi=(25400 / resolution, 25400 / resolution))
    return file


@situation(
    "slides",
    there="a slide of which a quarter is out of focus",
    typed="tumortrace scan RUN SLIDES",
    right="`sharpness`, `in_focus` by tile; 25 % in the note, both reports and slides.csv",
)
def test_what_is_out_of_focus_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Tiles are 64 px, two columns of 8 are blurred; the sharp slide beside it has no note."""
    write(tmp_path / "part.png", tissue(512, 0.5, blurred=128), 0.5)
    write(tmp_path / "sharp.png", tissue(256, 0.5), 0.5)
    out = tmp_path / "out"
    assert run(["scan", "run", str(tmp_path / "part.png"), str(tmp_path / "sharp.png"), "-o", str(out)]) == 0
    tiles, record = TILES.read(out / "part"), ScanRecord.read(out / "part")
    assert len(tiles) == 64
    assert (tiles["in_focus"] == (tiles["x"] >= 128)).all()
    assert (record.blurred_tiles, record.blurred_share) == (16, 0.25)
    said = capsys.readouterr().err
    assert "25% of the tissue is out of focus" in said
    assert "25% of the tissue out of focus" in said
    assert "called positive) are less reliable" in record.notes[0]
    page = (out / "part" / "report.html").read_text()
    assert "25.0 % of the tissue is out of focus" in page.replace("25.0%", "25.0 %")
    assert page.count("<figure><img") == 2 + 12 + 12
    calm = ScanRecord.read(out / "sharp")
    assert (calm.blurred_tiles, calm.blurred_share, calm.notes) == (0, 0, [])
    assert SCANNED.read(out).set_index("id")["blurred_share"].to_dict() == {"part": 0.25, "sharp": 0}
    assert "Out of focus" in (out / "report.html").read_text()


@pytest.mark.parametrize("resolution", [0.25, 0.5, 1.0, 2.0])
def test_focus_means_the_same_at_every_resolution(resolution: float) -> None:
    """At .25 um per px sharp tissue is smooth from px to px; blurred tissue lies 2 octaves below it everywhere."""
    side = 128
    images = np.stack([tissue(side, resolution), tissue(side, resolution, blurred=side, um=4 * max(1, resolution))])
    tiles = pd.DataFrame({"x": [0, 128], "y": 0, "width": side, "height": side})
    focus = focus_of(images, tiles, (256, 128), resolution)
    assert focus["in_focus"].tolist() == [True, False]
    assert focus["sharpness"][0] - focus["sharpness"][1] > 2
    if resolution == 1:
        assert focus["sharpness"].tolist() == [round(look_at(image)[0].sharpness, 3) for image in images]


def test_edges_of_the_slide_glass_and_pens_are_not_out_of_focus() -> None:
    """White beyond the slide, flat areas, and a pen's stroke on sharp tissue: each would pass for a blurred edge."""
    sharp = (tissue(96, 1.0) // 16 + np.array([179, 104, 150])).astype(np.uint8)
    beyond, pen = sharp.copy(), Image.fromarray(sharp)
    beyond[:, 62:] = 255
    ImageDraw.Draw(pen).rectangle((0, 0, 61, 95), fill=(20, 60, 200))
    blank = np.full_like(sharp, 240)
    blank[:, 48:] = 237
    images = np.stack([beyond, np.asarray(pen), blank])
    tiles = pd.DataFrame({"x": [102, 0, 0], "y": 0, "width": 96, "height": 96})
    focus = focus_of(images, tiles, (164, 96), 1.0)
    assert focus["in_focus"].all()
    assert focus["sharpness"][0] == pytest.approx(look_at(sharp[:, :59])[0].sharpness, abs=1e-3)
    assert focus["sharpness"][1] < -1.5
    assert not focus_of(images, tiles.assign(x=0), (164, 96), 1.0)["in_focus"][0]
    assert np.isnan(focus_of(images[:1], tiles[:1].assign(x=160), (164, 96), 1.0)["sharpness"][0])
