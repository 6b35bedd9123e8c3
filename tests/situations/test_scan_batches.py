"""Several slides in one call, and what their resolution is taken to be."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import imagecodecs
import numpy as np
import pytest
import tifffile
from PIL import Image

from tests.images.test_dicom import dicom
from tests.situations.situation import situation
from tests.slides.test_scan import fake_model
from tumortrace.cli.main import run
from tumortrace.errors import SlideError
from tumortrace.records.scans import ScanRecord
from tumortrace.slides.listing import find_slides
from tumortrace.slides.scan import scan
from tumortrace.slides.slide import Slide

pytestmark = pytest.mark.usefixtures("use")


def write_slide(file: Path, um: float | None = 0.5, side: int = 256) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.full((side, side, 3), (200, 110, 170), np.uint8)
    stated: dict[str, Any] = {} if um is None else {"resolution": (1e4 / um,) * 2, "resolutionunit": "CENTIMETER"}
    tifffile.imwrite(file, pixels, tile=(64, 64), photometric="rgb", metadata=None, **stated)
    return file


def record(folder: Path) -> ScanRecord:
    return ScanRecord.read(folder)


@situation(
    "resolution",
    there="a batch in which one slide states no resolution",
    typed="tumortrace scan RUN SLIDES --resolution 0.25",
    right="it is taken where none is stated; `--override-resolution` replaces, on record",
)
def test_resolution_is_for_slides_that_state_none(tmp_path: Path) -> None:
    """In a batch with one slide that lacks it, the others keep theirs; replacing takes another word and is told."""
    stated, silent = write_slide(tmp_path / "a.tiff"), write_slide(tmp_path / "b.tiff", None)
    assert run(["scan", "run", str(stated), str(silent), "-o", str(tmp_path / "out"), "--resolution", "0.25"]) == 0
    assert record(tmp_path / "out" / "a").resolution == pytest.approx(0.5)
    assert any("states 0.5 um/px, which was taken" in note for note in record(tmp_path / "out" / "a").notes)
    assert record(tmp_path / "out" / "b").resolution == 0.25
    assert run(["scan", "run", str(stated), "-o", str(tmp_path / "new"), "--override-resolution", "0.25"]) == 0
    assert record(tmp_path / "new" / "a").resolution == 0.25
    assert any("as was asked" in note for note in record(tmp_path / "new" / "a").notes)


@situation(
    "slides",
    there="a folder in which several slides have one bit per pixel, or show another matter alike",
    typed="tumortrace scan RUN FOLDER",
    right="each matter is one line, with the number of slides and examples; scan.json has it by slide",
)
def test_what_several_slides_show_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """In the words of `check`; numbers that differ from slide to slide are no other matter."""
    write_slide(tmp_path / "s" / "sound.tiff")
    for number in range(4):
        black = np.random.default_rng(number).random((256, 256)) > 0.5
        Image.fromarray(black).save(tmp_path / "s" / f"bit{number}.png", dpi=(50800, 50800))
    for name, um in (("x", 0.5), ("y", 0.4)):
        write_slide(tmp_path / "s" / f"{name}.tiff", um)
    words = ["scan", "run", str(tmp_path / "s"), "-o", str(tmp_path / "out"), "--resolution", "0.25"]
    assert run(words) == 0
    said = [line for line in capsys.readouterr().err.splitlines() if line.startswith("note: ")]
    assert "note: 4 slides: one bit per pixel (bit0, bit1, bit2, ...)" in said
    stated = [line for line in said if "which was taken" in line]
    assert len(stated) == 1
    assert stated[0].startswith("note: 7 slides: for example the slide states 0.5 um/px, which was taken")
    assert "one bit per pixel" in record(tmp_path / "out" / "bit2").notes
    assert "one bit per pixel" not in record(tmp_path / "out" / "x").notes
    assert run(["scan", "run", str(tmp_path / "s" / "bit0.png"), "-o", str(tmp_path / "out")]) == 0
    assert "note: one bit per pixel\n" in capsys.readouterr().err


def test_another_plane_is_another_scan(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """On record, and part of what is compared before a scan counts as complete."""
    stack = np.stack([np.full((256, 256, 3), (200, 110, 170 + 9 * n), np.uint8) for n in range(3)])
    tifffile.imwrite(tmp_path / "a.tif", stack, imagej=True, resolution=(2, 2), metadata={"unit": "um", "axes": "ZYXS"})
    for plane, again in ((None, False), (1, False), (1, True), (3, False)):
        chosen = [] if plane is None else ["--plane", str(plane)]
        assert run(["scan", "run", str(tmp_path / "a.tif"), "-o", str(tmp_path / "out"), *chosen]) == 0
        assert ("complete already" in capsys.readouterr().err) == again
        assert record(tmp_path / "out" / "a").plane == plane


@situation(
    "resolution",
    there="a TIFF of 2,400 dpi, which would be 10.6 um/px",
    typed="tumortrace scan RUN SLIDE",
    right="refused until `--resolution` confirms it; so from 2 um/px on",
)
def test_a_coarse_resolution_is_to_be_confirmed(tmp_path: Path) -> None:
    """2,400 dpi in a TIFF's tags are not 10.58 um of tissue until somebody says so."""
    file = tmp_path / "a.tiff"
    options: dict[str, Any] = {"tile": (64, 64), "photometric": "rgb", "metadata": None, "resolutionunit": "INCH"}
    tifffile.imwrite(file, np.full((128, 128, 3), 180, np.uint8), resolution=(2400, 2400), **options)
    with Slide(file) as slide:
        assert slide.resolution is None
    with pytest.raises(SlideError, match=r"10\.58.*--resolution confirms it"):
        scan("run", file, out=tmp_path / "out", model=fake_model())


@situation(
    "slides",
    there="a damaged slide among others",
    typed="tumortrace scan RUN SLIDES",
    right="all are attempted, failures are listed last, exit code 1",
)
def test_one_damaged_slide_does_not_end_a_batch(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """All are attempted, failures are listed last, and the exit code is 1."""
    slides = [write_slide(tmp_path / "a.tiff"), tmp_path / "b.tiff", write_slide(tmp_path / "c.tiff")]
    slides[1].write_bytes(slides[0].read_bytes()[:300])
    assert run(["scan", "run", *map(str, slides), "-o", str(tmp_path / "out")]) == 1
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["a", "c", "report.html", "slides.csv"]
    last = capsys.readouterr().err.splitlines()[-2:]
    assert "1 of 3 slides could not be scanned" in last[0]
    assert "b.tiff" in last[1]


def test_a_folder_of_slides_is_scanned(tmp_path: Path) -> None:
    """Its slides, each once, also where one is named too; what is no slide is passed over."""
    for name in ("b.tiff", "a.tiff"):
        write_slide(tmp_path / "slides" / name)
    (tmp_path / "slides" / "notes.txt").write_text("none")
    folder, out = str(tmp_path / "slides"), tmp_path / "out"
    assert run(["scan", "run", folder, f"{folder}/a.tiff", "-o", str(out)]) == 0
    assert sorted(path.name for path in out.iterdir()) == ["a", "b", "report.html", "slides.csv"]
    (tmp_path / "none").mkdir()
    assert run(["scan", "run", str(tmp_path / "none"), "-o", str(out)]) == 1


@situation(
    "slides",
    there="`p1/slide.tiff` and `p2/slide.tiff`",
    typed="tumortrace scan RUN p1/slide.tiff p2/slide.tiff",
    right="folders `p1-slide` and `p2-slide`, decided before the work",
)
def test_slides_of_one_name_are_kept_apart(tmp_path: Path) -> None:
    """Decided before the work: by their folders."""
    slides = [write_slide(tmp_path / case / "slide.tiff", side=side) for case, side in (("p1", 256), ("p2", 320))]
    assert run(["scan", "run", *map(str, slides), "-o", str(tmp_path / "out")]) == 0
    assert record(tmp_path / "out" / "p1-slide").width == 256
    assert record(tmp_path / "out" / "p2-slide").width == 320


@situation(
    "slides",
    there="the files of a DICOM series, or their folder",
    typed="tumortrace scan RUN SERIES/*.dcm",
    right="one slide, scanned once",
)
def test_the_files_of_a_dicom_series_are_one_slide(tmp_path: Path) -> None:
    """Whichever way it is named: file by file, or its folder."""
    (tmp_path / "series").mkdir()
    for number in range(6):
        uid = "1.2.3.4" if number < 4 else "1.2.3.5"
        dicom(tmp_path / "series" / f"{number}.dcm", np.zeros((8, 8, 3), np.uint8), 8, SeriesInstanceUID=uid)
    files = sorted((tmp_path / "series").iterdir())
    assert find_slides([tmp_path / "series"]) == find_slides(files) == [files[0], files[4]]


@situation(
    "slides",
    there="a pyramid",
    typed="tumortrace scan RUN SLIDE",
    right="`scan.json` says which level was read and how it was resampled",
)
def test_the_record_says_from_which_level_tiles_came(tmp_path: Path) -> None:
    """Level and resampling stand in scan.json, and a scan that was begun otherwise begins anew."""
    pixels = np.full((512, 512, 3), (200, 110, 170), np.uint8)
    options: dict[str, Any] = {"tile": (64, 64), "photometric": "rgb", "metadata": None}
    with tifffile.TiffWriter(tmp_path / "a.tiff") as file:
        file.write(pixels, resolution=(4e4, 4e4), resolutionunit="CENTIMETER", **options)
        file.write(pixels[::4, ::4], subfiletype=1, **options)
    told = json.loads(
        (scan("run", tmp_path / "a.tiff", out=tmp_path / "o", model=fake_model()).folder / "scan.json").read_text()
    )
    assert (told["level"], told["level_factor"]) == (1, 4.0)
    assert "lanczos" in told["resampling"]


@situation(
    "slides",
    there="tissue unlike the training images",
    typed="tumortrace scan RUN SLIDE",
    right="the line says of how many tiles",
)
def test_tiles_unlike_the_training_images_stand_in_the_line(tmp_path: Path) -> None:
    """Not in scan.json alone."""
    model = fake_model()
    said = model.assess

    def assess(images: np.ndarray) -> Any:
        parts = vars(said(images)) if hasattr(said(images), "__dict__") else said(images)._asdict()
        strange = {"ood_score": np.ones(len(images)), "in_distribution": np.zeros(len(images), bool)}
        return SimpleNamespace(**{**parts, **strange})

    model.assess = assess
    result = scan("run", write_slide(tmp_path / "a.tiff"), out=tmp_path / "out", model=model)
    assert f"{result.record.tiles} unlike the training images" in result.summary


def test_a_plain_image_with_a_resolution_scans(tmp_path: Path) -> None:
    """What states none is scanned with the one that is given."""
    Image.new("RGB", (256, 256), (200, 110, 170)).save(tmp_path / "a.png")
    assert run(["scan", "run", str(tmp_path / "a.png"), "-o", str(tmp_path / "out"), "--resolution", "0.5"]) == 0


@situation(
    "slides",
    there="a slide of 12 bits in 16 that does not say so",
    typed="tumortrace scan RUN SLIDE [--bits 12]",
    right="refused as patches are; with `--bits` scanned as its 8-bit copy",
)
@pytest.mark.parametrize("kind", ["tiled", "planar", "flat", "png"])
def test_bits_of_a_slide_that_nothing_states_are_asked_for(
    kind: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """By the range of its type it would be nearly black and end as a slide without tissue."""
    shallow = np.random.default_rng(0).integers((180, 90, 150), (220, 130, 190), (256, 256, 3)).astype(np.uint8)
    deep = np.rint(shallow * (4095 / 255)).astype(np.uint16)
    file = write_deep(tmp_path, deep, kind)
    command = ["scan", "run", str(file), "-o", str(tmp_path / "out"), "--resolution", "0.5"]
    assert run(command) == 1
    told = capsys.readouterr().err
    assert "if they hold 12 bits" in told
    assert "say --bits 12" in told
    assert not (tmp_path / "out").exists()
    assert run([*command, "--bits", "12"]) == 0
    with Slide(file, bits=12) as slide:
        assert np.array_equal(slide.read_region(0, 0, 256, 256, size=(256, 256)), shallow)
    Image.fromarray(shallow).save(tmp_path / "b.png")
    assert run(["scan", "run", str(tmp_path / "b.png"), *command[3:], "--bits", "12"]) == 0
    a, b = (np.genfromtxt(tmp_path / "out" / name / "tiles.csv", delimiter=",", names=True) for name in "ab")
    assert len(a) > 0
    assert np.array_equal(a["probability"], b["probability"])


def write_deep(folder: Path, deep: np.ndarray, kind: str) -> Path:
    if kind == "png":
        (folder / "a.png").write_bytes(imagecodecs.png_encode(deep))
        return folder / "a.png"
    planar = kind == "planar"
    how: dict[str, Any] = {"tile": (64, 64)} if kind != "flat" else {}
    how |= {"planarconfig": "separate"} if planar else {}
    pixels = np.ascontiguousarray(np.moveaxis(deep, 2, 0)) if planar else deep
    tifffile.imwrite(folder / "a.tiff", pixels, photometric="rgb", metadata=None, **how)
    return folder / "a.tiff"
