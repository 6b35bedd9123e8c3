"""Disks that are full and folders that take nothing, in the verbs that read slides."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import h5py
import numpy as np
import pytest
import tifffile

from tests.situations.situation import situation
from tumortrace.cli.main import run
from tumortrace.records.files import write_bytes
from tumortrace.records.hdf5 import replacing_hdf5

resource = pytest.importorskip("resource")  # not on Windows
ROOM = "What to do: make room, then give the same command again."


@contextmanager
def room(size: int) -> Iterator[None]:
    """No file of this process may grow beyond so many bytes: the system refuses it as it does on a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.fixture
def slides(tmp_path: Path) -> Path:
    """Two slides of tissue that PNG cannot make small, of normal tissue both; and a table of them."""
    pixels = np.random.default_rng(0).integers(0, 60, (256, 256, 3)) + np.array([150, 60, 130])
    (tmp_path / "slides").mkdir()
    for name in ("a", "b"):
        tifffile.imwrite(tmp_path / "slides" / f"{name}.tiff", pixels.astype(np.uint8), tile=(64, 64))
    (tmp_path / "slides" / "slides.csv").write_text("slide,label\na.tiff,normal\nb.tiff,normal\n")
    return tmp_path / "slides" / "slides.csv"


@situation(
    "slides",
    there="a disk that is full in the middle",
    typed="tumortrace tile slides.csv -o TILES",
    right="one line with the file; with room, the same command ends with the same bytes",
)
def test_tiling_on_a_full_disk(slides: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """It is no fault of a slide: the others are not tried in vain."""
    words = ["tile", str(slides), "--slide-resolution", "0.5", "--size", "32", "--resolution", "0.5", "-o"]
    with room(20_000):
        assert run([*words, str(tmp_path / "out")]) == 1
    told = capsys.readouterr().err.splitlines()
    assert told[-1].endswith(f"/tiles/0001-a.parquet: File too large. {ROOM}")
    assert not any("could not be tiled" in line for line in told)
    assert not list((tmp_path / "out").rglob("*.tmp"))
    for name in ("out", "whole"):
        assert run([*words, str(tmp_path / name)]) == 0
    for file in (path for path in (tmp_path / "whole").rglob("*") if path.is_file()):
        assert file.read_bytes() == (tmp_path / "out" / file.relative_to(tmp_path / "whole")).read_bytes()


@situation(
    "slides",
    there="a disk that is full in the middle",
    typed="tumortrace scan RUN FOLDER",
    right="one line with the file; with room, the same command goes on",
)
@pytest.mark.usefixtures("use")
def test_scanning_on_a_full_disk(
    slides: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The last line is the cause, and no table or report that could not be written hides it."""
    monkeypatch.setattr(
        "tumortrace.slides.scan.draw_heatmap", lambda target, *_, **__: write_bytes(target, bytes(9999))
    )
    words = ["scan", "run", str(slides), "--resolution", "0.5", "-o", str(tmp_path / "out")]
    with room(600):
        assert run(words) == 1
    told = capsys.readouterr().err.splitlines()
    assert told[-1].endswith(f"/out/a/unfinished.jsonl: No space left on device. {ROOM}")
    with room(4_000):
        assert run(words) == 1
    assert capsys.readouterr().err.splitlines()[-1].endswith(f"/out/a/heatmap.png: File too large. {ROOM}")
    assert run(words) == 0


def test_hdf5_on_a_full_disk(tmp_path: Path) -> None:
    """HDF5 cannot close what it cannot write, and ends the process; whatever the disk takes, it is an error here."""

    def write() -> None:
        with replacing_hdf5(tmp_path / "a.h5") as file:
            stored = file.create_dataset("features", (400, 256), np.float32)
            for start in range(0, 400, 50):
                stored[start : start + 50] = 1.0

    for size in (0, 100, 5_000, 200_000):
        with pytest.raises(OSError, match=r"File too large: .*a\.h5"), room(size):
            write()
        assert not list(tmp_path.iterdir())
    with replacing_hdf5(tmp_path / "a.h5") as file:
        file["numbers"] = [1, 2]
    with h5py.File(tmp_path / "a.h5") as opened:
        assert opened["numbers"][:].tolist() == [1, 2]


@situation(
    "slides",
    there="an output folder that takes no files",
    typed="tumortrace tile, tumortrace scan",
    right="refused in a line before any slide is read",
)
@pytest.mark.parametrize("verb", ["tile", "scan"])
def test_a_place_that_takes_no_files(
    verb: str, slides: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A file stands where the folder should be, which no right of any user gets around."""
    (tmp_path / "file").write_text("")
    words = [verb, *(["run"] if verb == "scan" else []), str(slides), "-o", str(tmp_path / "file" / "out")]
    assert run(words) == 1
    assert "file/out: cannot be written (Not a directory" in capsys.readouterr().err
