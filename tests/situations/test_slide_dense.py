"""Dense scanning: the probabilities of tile by tile from one pass over a slide, or one line that says why not."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import tifffile

from tests.models.test_dense import SIDE, model_of, picture
from tests.situations.situation import situation
from tumortrace.cli.main import run
from tumortrace.models.bundle import Model
from tumortrace.records.scans import ScanRecord
from tumortrace.records.tables import TILES
from tumortrace.slides.scan import scan
from tumortrace.slides.shares import ShareKept
from tumortrace.slides.slide import Slide
from tumortrace.slides.tiling import read_tiles


@pytest.fixture(autouse=True)
def model(monkeypatch: pytest.MonkeyPatch) -> Model:
    """Random weights, stride 4, patches of 48 px at 1 um per px."""
    made = model_of(resolution=1.0, symmetries=True)
    monkeypatch.setattr("tumortrace.models.bundle.load_model", lambda *_, **__: made)
    monkeypatch.setattr("tumortrace.slides.scan.draw_heatmap", lambda target, *_, **__: target.write_bytes(b"picture"))
    monkeypatch.setattr("tumortrace.reports.report.renew_report", lambda *_: None)
    return made


def slide_of(file: Path, width: int = 1000, height: int = 420, um: float = 1.0) -> Path:
    """Tissue of every kind, with glass in the middle; neither side is a whole number of steps."""
    pixels = picture(height, width)
    pixels[..., 1] //= 2
    pixels[100:300, 400:560] = 245
    dots = (1e4 / um, 1e4 / um)
    options: dict[str, Any] = {"tile": (128, 128), "photometric": "rgb", "metadata": None}
    tifffile.imwrite(file, pixels, resolution=dots, resolutionunit="CENTIMETER", **options)
    return file


def scanned(folder: Path, slide: Path, *words: object) -> pd.DataFrame:
    out = folder / "-".join(map(str, words))
    assert run(["scan", "run", str(slide), "-o", str(out), *map(str, words)]) == 0
    return TILES.read(out / slide.stem)


@situation(
    "slides",
    there="a model whose convolutions pad nothing, and a slide",
    typed="tumortrace scan RUN SLIDE --overlap 0.667 --dense",
    right="one pass: the tiles and probabilities of tile by tile, to 1e-4",
)
@pytest.mark.parametrize("um", [1.0, 0.5, 0.37])
def test_a_dense_scan_says_what_tile_by_tile_says(um: float, tmp_path: Path, model: Model) -> None:
    """Blocks, borders and focus too. At .37 um tiles have 129 px in place of 130, so that a third of them is whole."""
    slide = slide_of(tmp_path / "a.tif", int(900 / um**0.5), int(400 / um**0.5), um)
    overlap = 1 - 16 / SIDE
    dense = scanned(tmp_path, slide, "--overlap", overlap, "--dense")
    assert set(dense["width"]) == {{1.0: 48, 0.5: 96, 0.37: 129}[um]}
    with Slide(slide) as opened:
        level = opened.level_for(1 / um)
        pictures = np.stack(list(read_tiles(opened, dense, (SIDE, SIDE), ahead=9, level=level)))
    one = model.assess(pictures).probability
    assert (dense["x"] + dense["width"]).max() > 900 / um**0.5
    assert np.abs(one - dense["probability"]).max() < 1e-4
    assert np.ptp(one) > 0.005
    if um == 0.5:
        by_tile = scanned(tmp_path, slide, "--overlap", overlap)
        pd.testing.assert_frame_equal(by_tile, dense, atol=1e-4, rtol=0)
    assert ScanRecord.read(tmp_path / f"--overlap-{overlap}---dense" / "a").overlap == overlap


@situation(
    "slides",
    there="a dense scan on a computer with little memory",
    typed="tumortrace scan RUN SLIDE --overlap 0.667 --dense --max-memory 1GB",
    right="smaller blocks, the same probabilities; refused for a slide whose overview and map do not fit",
)
def test_blocks_keep_within_the_memory(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What does not fit is known before anything is written."""
    slide = slide_of(tmp_path / "a.tif")
    usual = scanned(tmp_path, slide, "--overlap", 0.667, "--dense")
    capsys.readouterr()
    small = scanned(tmp_path, slide, "--overlap", 0.667, "--dense", "--max-memory", "1020MB")
    assert "note: blocks of 384 px in place of 768, to keep within 1020MB" in capsys.readouterr().err
    pd.testing.assert_frame_equal(small, usual, atol=1e-4, rtol=0)
    words = ["scan", "run", str(slide), "-o", str(tmp_path / "no"), "--dense", "--max-memory", "905MB"]
    assert run(words) == 1
    line = capsys.readouterr().err.splitlines()[-1]
    assert "a.tif: --max-memory 905MB; expected at least 0.89GB for this slide and model. What to do: raise it" in line
    assert not (tmp_path / "no" / "a").exists()


def test_the_overlap_is_that_of_the_stride(
    tmp_path: Path, model: Model, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """.667 is a step of 16 px to half a hundredth; .7 is 14.4 px, and is refused with overlaps that fit."""
    slide = slide_of(tmp_path / "a.tif", 200, 150)
    scanned(tmp_path, slide, "--overlap", 0.667, "--dense")
    assert "overlap by 0.666667" in capsys.readouterr().err
    assert len(scanned(tmp_path, slide, "--dense")) == len(scanned(tmp_path, slide))
    for words in (["--overlap", "0.7"], ["--overlap", "0.8"]):
        capsys.readouterr()
        assert run(["scan", "run", str(slide), "-o", str(tmp_path / "no"), "--dense", *words]) == 1
        said = capsys.readouterr().err
        assert "a multiple of the network's stride of 4 px, such as" in said
        assert "Traceback" not in said
    padded = model_of("centre-resnet", {}, resolution=1.0)
    monkeypatch.setattr("tumortrace.models.bundle.load_model", lambda *_, **__: padded)
    assert run(["scan", "run", str(slide), "-o", str(tmp_path / "no"), "--dense"]) == 1
    assert "pads a patch at its border" in capsys.readouterr().err
    assert not (tmp_path / "no").exists()


@situation(
    "slides",
    there="a dense scan that was killed",
    typed="tumortrace scan RUN SLIDE --overlap 0.667 --dense, again",
    right="goes on with the next block; the same tiles.csv",
)
def test_killed_and_called_again_it_ends_with_the_same_bytes(tmp_path: Path) -> None:
    slide = slide_of(tmp_path / "a.tif", 1600, 300)
    whole = scanned(tmp_path, slide, "--overlap", 0.5, "--dense")
    words = ["scan", "run", str(slide), "-o", str(tmp_path / "killed"), "--overlap", "0.5", "--dense"]
    script = f"""
import os, signal
import tumortrace.models.bundle, tumortrace.models.dense as dense
from tests.models.test_dense import model_of
made, assess, calls = model_of(resolution=1.0, symmetries=True), dense.assess_places, []
tumortrace.models.bundle.load_model = lambda *_, **__: made
def dying(*given):
    calls.append(1)
    if len(calls) == 3:
        os.kill(os.getpid(), signal.SIGKILL)
    return assess(*given)
dense.assess_places = dying
from tumortrace.cli.main import run
run({words!r})
"""
    killed = subprocess.run([sys.executable, "-c", script], capture_output=True, check=False)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert not (tmp_path / "killed" / "a" / "tiles.csv").exists()
    assert run(words) == 0
    pd.testing.assert_frame_equal(TILES.read(tmp_path / "killed" / "a"), whole)
    files = [tmp_path / name / "a" / "tiles.csv" for name in ("--overlap-0.5---dense", "killed")]
    assert files[0].read_bytes() == files[1].read_bytes()


def test_shares_of_a_dense_scan_are_whole_blocks(tmp_path: Path, model: Model) -> None:
    """Kept by two workers, they are the blocks of one process, byte for byte."""
    slide = slide_of(tmp_path / "a.tif", 1600, 300)
    scanned(tmp_path, slide, "--overlap", 0.5, "--dense")
    out = tmp_path / "shares" / "a"
    for number in (1, 0):
        with pytest.raises(ShareKept):
            scan("run", slide, out=out, model=model, overlap=0.5, dense=True, share=(number, 2))
    assert all(len(file.read_bytes().splitlines()) > 1 for file in out.iterdir()), "each has a block"
    assert len(list(out.iterdir())) == 2
    assert run(["scan", "run", str(slide), "-o", str(out.parent), "--overlap", "0.5", "--dense"]) == 0
    files = [tmp_path / name / "a" / "tiles.csv" for name in ("--overlap-0.5---dense", "shares")]
    assert files[0].read_bytes() == files[1].read_bytes()
