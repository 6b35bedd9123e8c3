"""Scans that were ended or are called again: what is complete stays, what is not goes on, nothing is overwritten."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from tests.images.test_dicom import dicom
from tests.situations.conftest import Use
from tests.situations.situation import situation
from tests.situations.test_scan_batches import record, write_slide
from tests.slides.test_scan import dark_share, fake_model
from tumortrace.cli.main import run
from tumortrace.errors import SlideError
from tumortrace.slides.batch import folders_for
from tumortrace.slides.listing import find_slides
from tumortrace.slides.scan import scan
from tumortrace.slides.slide import Slide

pytestmark = pytest.mark.usefixtures("use")


@situation(
    "slides",
    there="a batch of slides that was killed",
    typed="the same `tumortrace scan` again",
    right="it goes on at its slide; finished slides are told as complete and not scanned again",
)
def test_a_killed_batch_goes_on_at_its_slide(tmp_path: Path, use: Use, capsys: pytest.CaptureFixture[str]) -> None:
    """Complete are those of the same content, model and settings, wherever the slide's file has been copied from."""
    slides = [write_slide(tmp_path / "s" / f"{name}.tiff") for name in "abc"]
    command = ["scan", "run", *map(str, slides), "-o", str(tmp_path / "out")]
    calls: list[int] = []

    def killed(images: np.ndarray) -> np.ndarray:
        calls.append(len(images))
        if len(calls) == 2:
            raise KeyboardInterrupt
        return dark_share(images)

    use(killed)
    assert run(command) == 1
    assert (tmp_path / "out" / "a" / "scan.json").exists()
    before = (tmp_path / "out" / "a" / "scan.json").read_bytes()
    calls.clear()

    def counted(images: np.ndarray) -> np.ndarray:
        calls.append(len(images))
        return dark_share(images)

    use(counted)
    os.utime(slides[0])
    capsys.readouterr()
    assert run(command) == 0
    assert len(calls) == 2
    assert (tmp_path / "out" / "a" / "scan.json").read_bytes() == before
    told = capsys.readouterr()
    assert [line.split(":")[1] for line in told.err.splitlines() if "complete already" in line] == [" a.tiff"]
    assert len(told.out.splitlines()) == 3
    calls.clear()
    for more, scanned in (([], 0), (["--overlap", "0.5"], 3), (["--overlap", "0.5"], 0), (["--read-level", "0"], 3)):
        assert run([*command, *more]) == 0
        assert len(calls) == scanned, more
        calls.clear()
    use(counted, threshold=0.6)
    assert run([*command, "--read-level", "0"]) == 0
    assert len(calls) == 3


@situation(
    "slides",
    there="a run folder that was renamed or moved, its slides killed midway in it or complete",
    typed="the same `tumortrace scan` of the folder as it is called now",
    right="goes on with the next batch, and complete slides are told so, as before",
)
def test_scans_move_with_their_run(tmp_path: Path) -> None:
    """One slide is complete, of the other one batch of two is kept."""
    slides = [write_slide(tmp_path / f"{name}.tiff") for name in "ab"]
    (tmp_path / "run" / "model").mkdir(parents=True)
    calls: list[int] = []

    def killed(images: np.ndarray) -> np.ndarray:
        calls.append(len(images))
        if len(calls) == 3:
            raise KeyboardInterrupt
        return dark_share(images)

    scan(tmp_path / "run", slides[0], model=fake_model(killed), batch_size=10**6, renew=False)
    with pytest.raises(KeyboardInterrupt):
        scan(tmp_path / "run", slides[1], model=fake_model(killed), batch_size=2, renew=False)
    moved = (tmp_path / "run").rename(tmp_path / "named anew")
    calls.clear()
    kept = scan(moved, slides[0], model=fake_model(), batch_size=10**6, renew=False)
    assert kept.kept
    assert kept.folder == moved / "scans" / "a"
    whole = scan(tmp_path / "other", slides[1], out=tmp_path / "whole", model=fake_model(), batch_size=2)

    def counted(images: np.ndarray) -> np.ndarray:
        calls.append(len(images))
        return dark_share(images)

    rest = scan(moved, slides[1], model=fake_model(counted), batch_size=2, renew=False)
    assert sum(calls) == len(whole.tiles) - 2
    pd.testing.assert_frame_equal(rest.tiles, whole.tiles)


def test_a_scan_whose_files_are_gone_is_not_complete(tmp_path: Path) -> None:
    """A record without its table is made anew."""
    slide = write_slide(tmp_path / "a.tiff")
    assert not scan("run", slide, out=tmp_path / "out", model=fake_model()).kept
    assert scan("run", slide, out=tmp_path / "out", model=fake_model()).kept
    (tmp_path / "out" / "tiles.csv").unlink()
    assert not scan("run", slide, out=tmp_path / "out", model=fake_model()).kept
    assert (tmp_path / "out" / "tiles.csv").exists()


def test_a_kept_scan_is_what_was_scanned(tmp_path: Path) -> None:
    """Tiles and record come back as they were returned."""
    slide = write_slide(tmp_path / "a.tiff")
    first, second = (scan("run", slide, out=tmp_path / "out", model=fake_model()) for _ in range(2))
    pd.testing.assert_frame_equal(first.tiles, second.tiles, check_dtype=False)
    assert first.record.as_json() == second.record.as_json()
    assert "complete already" in second.summary


def test_seconds_count_all_sittings(tmp_path: Path) -> None:
    """The batches of a sitting that was ended, and the sitting that ends it."""
    slide, calls = write_slide(tmp_path / "a.tiff"), list[int]()

    def slow(images: np.ndarray) -> np.ndarray:
        calls.append(len(images))
        if len(calls) == 3:
            raise SlideError("stop")
        time.sleep(0.3)
        return dark_share(images)

    with pytest.raises(SlideError, match="stop"):
        scan("run", slide, out=tmp_path / "out", model=fake_model(slow), batch_size=4)
    result = scan("run", slide, out=tmp_path / "out", model=fake_model(), batch_size=4)
    assert result.record.seconds >= 0.6


@situation(
    "slides",
    there="`p1/slide.svs`, and in a later call `p2/slide.svs`",
    typed="tumortrace scan RUN p2/slide.svs -o out",
    right="the scan of the first stays; the second gets a folder named by its own",
)
def test_another_slide_of_the_name_does_not_overwrite(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Told by content: a copy of the first in another folder is complete already."""
    first = write_slide(tmp_path / "p1" / "slide.tiff")
    other = write_slide(tmp_path / "p2" / "slide.tiff", um=0.25)
    copy = tmp_path / "p3" / "slide.tiff"
    copy.parent.mkdir()
    copy.write_bytes(first.read_bytes())
    for slide in (first, other, copy, other):
        assert run(["scan", "run", str(slide), "-o", str(tmp_path / "out")]) == 0
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["p2-slide", "slide"]
    assert record(tmp_path / "out" / "slide").resolution == pytest.approx(0.5)
    assert record(tmp_path / "out" / "p2-slide").resolution == pytest.approx(0.25)
    told = capsys.readouterr().err
    assert told.count("complete already") == 2
    assert "slide holds the scan of another slide, slide.tiff, and is left as it is" in told


def test_a_changed_slide_does_not_overwrite_its_earlier_scan(tmp_path: Path) -> None:
    """The same path with other content, of the same size and without: from Python it is refused, with the remedy."""
    slide = write_slide(tmp_path / "a.tiff")
    scan("run", slide, out=tmp_path / "out", model=fake_model())
    before = (tmp_path / "out" / "scan.json").read_bytes()
    write_slide(tmp_path / "a.tiff", um=0.25)
    with pytest.raises(Exception, match=r"holds the scan of another a\.tiff.*-o"):
        scan("run", slide, out=tmp_path / "out", model=fake_model())
    assert (tmp_path / "out" / "scan.json").read_bytes() == before


def test_names_that_differ_in_ending_or_capitals_are_kept_apart(tmp_path: Path) -> None:
    """Decided before the work, also for disks that do not tell capitals apart."""
    files = [write_slide(tmp_path / "p" / name) for name in ("a.tiff", "a.tif", "A.TIFF", "b.tiff")]
    names = [folder.name for folder in folders_for(tmp_path / "run", files, tmp_path / "out")]
    assert len({name.casefold() for name in names}) == 4
    assert names[1] == "a-tif"
    assert names[3] == "b"
    assert names == [folder.name for folder in folders_for(tmp_path / "run", files, tmp_path / "out")]
    assert run(["scan", "run", str(tmp_path / "p"), "-o", str(tmp_path / "out")]) == 0
    assert len(list((tmp_path / "out").glob("*/scan.json"))) == 4


@situation(
    "slides",
    there="a folder with folders of slides, one of them broken",
    typed="tumortrace scan RUN FOLDER -o FOLDER/out",
    right="all slides at any depth but earlier results; the broken one is listed last, exit code 1",
)
def test_folders_within_folders_are_scanned(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The output may lie in it; hidden files and thumbnails of a NAS are passed over."""
    top = tmp_path / "slides"
    write_slide(top / "a.tiff")
    broken = write_slide(top / "case" / "deep" / "b.tiff")
    broken.write_bytes(broken.read_bytes()[:300])
    write_slide(top / "case" / "@eaDir" / "b.tiff")
    write_slide(top / ".hidden" / "c.tiff")
    command = ["scan", "run", str(top), "-o", str(top / "out")]
    for _ in range(2):
        assert run(command) == 1
        assert sorted(path.name for path in (top / "out").iterdir()) == ["a", "report.html", "slides.csv"]
        assert "1 of 2 slides could not be scanned" in capsys.readouterr().err


def test_a_series_named_by_folder_and_by_file_is_one_slide(tmp_path: Path) -> None:
    """In one call; files without an ending too."""
    (tmp_path / "series").mkdir()
    for number in range(3):
        dicom(tmp_path / "series" / f"I{number}", np.zeros((8, 8, 3), np.uint8), 8, SeriesInstanceUID="1.2.3.4")
    folder, file = tmp_path / "series", tmp_path / "series" / "I2"
    assert find_slides([folder, file]) == [folder / "I0"]
    assert find_slides([file, folder]) == [file]


def test_a_file_that_cannot_be_read_is_one_failure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without permission: it is listed, and the others are scanned."""
    slides = [write_slide(tmp_path / f"{name}.tiff") for name in "ab"]
    opened = open

    def refusing(file: Any, *rest: Any, **more: Any) -> Any:
        if str(file).endswith("a.tiff"):
            raise PermissionError(13, "Permission denied", str(file))
        return opened(file, *rest, **more)

    monkeypatch.setattr("builtins.open", refusing)
    assert run(["scan", "run", *map(str, slides), "-o", str(tmp_path / "out")]) == 1
    assert record(tmp_path / "out" / "b").tiles > 0


def test_an_overview_without_small_levels_shows_its_progress(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """All of the slide is read for it, block by block."""
    monkeypatch.setattr("tumortrace.slides.slide._BLOCK", 128)
    monkeypatch.setattr("tumortrace.slides.slide._SMALL", 200)
    steps: list[tuple[int, int]] = []
    with Slide(write_slide(tmp_path / "a.tiff", side=600)) as slide:
        slide.thumbnail(100, lambda *where: steps.append(where))
    assert steps == [(number, 25) for number in range(1, 26)]
    scan("run", tmp_path / "a.tiff", out=tmp_path / "out", model=fake_model())
    assert "a.tiff has no small levels" in capsys.readouterr().err
