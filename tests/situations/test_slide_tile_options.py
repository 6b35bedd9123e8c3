"""`tile` reads slides as `scan` does: a mask of the tissue, planes, levels; and slides of which nothing is known."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image

from tests.situations.situation import situation
from tests.situations.test_slide_tiles import SIDE, stitched, table_of_slides, tiled
from tumortrace.cli.main import run
from tumortrace.cohorts.layouts import open_cohort
from tumortrace.images.decoding import read_image
from tumortrace.records.tiles import TilingRecord

CENTIMETRE = {"photometric": "rgb", "resolution": (2e4, 2e4), "resolutionunit": "CENTIMETER"}


@situation(
    "slides",
    there="a slide, and a mask of its tissue that was drawn elsewhere",
    typed="tumortrace tile SLIDE --tissue-mask MASK.png -o TILES",
    right="tiles where the mask is not zero, as in `scan`; refused for several slides",
)
def test_a_mask_says_where_tiles_are(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The mask marks columns 2 and 3 of 8; another mask is another tiling."""
    slide, _ = stitched(tmp_path / "slides")
    stitched(tmp_path / "slides", "b")
    marked = np.zeros((60, 80), np.uint8)
    marked[:, 20:40] = 7
    Image.fromarray(marked).save(tmp_path / "m.png")
    words = ["--unlabelled", "tile", "--tissue-mask", tmp_path / "m.png"]
    table = tiled(tmp_path, slide, *words)
    assert sorted(table["x"].unique()) == [2 * SIDE, 3 * SIDE]
    assert (table["tissue"] == 1).all()
    assert run(["tile", str(slide.parent), *map(str, words), "-o", str(tmp_path / "several")]) == 1
    assert "one mask for 2 slides" in capsys.readouterr().err
    assert run(["tile", str(slide), "--tissue-mask", str(tmp_path / "none.png"), "-o", str(tmp_path / "none")]) == 1
    assert "--tissue-mask" in capsys.readouterr().err
    Image.fromarray(marked[:, ::-1]).save(tmp_path / "m.png")
    again = ["tile", str(slide), *map(str, words), "-o", str(tmp_path / "out"), "--size", "48", "--resolution", "0.5"]
    assert run(again) == 1
    assert "cut otherwise: tissue_mask" in capsys.readouterr().err


@situation(
    "slides",
    there="an OME-TIFF of three planes of focus with levels",
    typed="tumortrace tile SLIDE --plane 1 --read-level 0 -o TILES",
    right="tiles of that plane and that level; unknown ones are refused with those there are",
)
def test_planes_and_levels_are_chosen_as_in_scan(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    planes = np.stack([np.full((192, 192, 3), (180 - 20 * plane, 90, 150), np.uint8) for plane in range(3)])
    stated = {"axes": "ZYXS", "PhysicalSizeX": 0.5, "PhysicalSizeY": 0.5}
    file = tmp_path / "z.ome.tif"
    tifffile.imwrite(file, planes, ome=True, tile=(64, 64), photometric="rgb", metadata=stated)
    Image.new("L", (8, 8), 1).save(tmp_path / "m.png")
    mask = ["--unlabelled", "tile", "--tissue-mask", tmp_path / "m.png"]
    for words, red in ((["--plane", 1], 180), ([], 160), (["--plane", 3], 140)):
        table = tiled(tmp_path / str(red), file, *mask, *words)
        assert len(table) == 16
        assert {int(read_image(path)[0, 0, 0]) for path in table["path"]} == {red}
    with tifffile.TiffWriter(tmp_path / "levels.tif") as target:
        for level, red in enumerate((200, 120)):
            side = 384 >> level
            options = CENTIMETRE | {"resolution": (2e4 / 2**level, 2e4 / 2**level), "tile": (64, 64)}
            target.write(
                np.full((side, side, 3), (red, 90, 150), np.uint8), subfiletype=level, metadata=None, **options
            )
    words = ["tile", str(tmp_path / "levels.tif"), *map(str, mask), "--size", "48", "--resolution", "1"]
    for level, red in (("auto", 120), ("0", 200), ("1", 120)):
        out = tmp_path / f"level-{level}"
        assert run([*words, "--read-level", level, "-o", str(out)]) == 0
        assert int(read_image(open_cohort(out).table["path"][0])[9, 9, 0]) == red
        assert TilingRecord.read(out).slides[0].level == (1 if level == "auto" else int(level))
    capsys.readouterr()
    assert run([*words, "--read-level", "2", "-o", str(tmp_path / "x")]) == 1
    assert "0 (full resolution), 1 (2 times smaller)" in capsys.readouterr().err
    assert run([*words, "--plane", "4", "-o", str(tmp_path / "y")]) == 1
    assert "--plane" in capsys.readouterr().err


@situation(
    "slides",
    there="slides without annotations, of which nothing says what is tumour",
    typed="tumortrace tile SLIDES --unlabelled tile -o TILES",
    right="tiles without label, to predict; without the option one line that names it",
)
def test_slides_of_which_nothing_is_known(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Those with annotations or a negative label have labels all the same; --per-slide draws of each kind."""
    table = table_of_slides(tmp_path, ["tumour", "normal", "tumour", ""])
    (tmp_path / "slides" / "s2.geojson").unlink()
    tiles = tiled(tmp_path, table, "--unlabelled", "tile")
    kinds = tiles.groupby("slide")["label"].agg(lambda labels: set(labels.dropna()))
    assert kinds.to_dict() == {"s0": {0, 1}, "s1": {0}, "s2": set(), "s3": set()}
    assert tiles.groupby("slide").size()[["s2", "s3"]].tolist() == [48, 48]
    assert TilingRecord.read(tmp_path / "out").slides[3].tiles == {"0": 0, "1": 0, "-1": 48}
    said = capsys.readouterr().err
    assert "96 without label" in said
    assert "s3: no annotations: its tiles have no label" in said
    drawn = tiled(tmp_path / "drawn", table, "--unlabelled", "tile", "--per-slide", 5, "--balanced")
    assert drawn.groupby("slide").size().to_dict() == {"s0": 8, "s1": 2, "s2": 5, "s3": 5}
    capsys.readouterr()
    alone = ["tile", str(tmp_path / "slides" / "s3.tif"), "--size", "48", "--resolution", "0.5"]
    assert run([*alone, "-o", str(tmp_path / "a")]) == 1
    said = capsys.readouterr().err
    assert "no annotations: left out" in said
    assert "--unlabelled tile" in said
    assert run([*alone, "-o", str(tmp_path / "b"), "--unlabelled", "tile"]) == 0
    assert open_cohort(tmp_path / "b").table["label"].isna().all()
