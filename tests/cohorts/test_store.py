"""The patch store: decoded once, rows in the cohort's order, safe against interruption, damage and company."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections import namedtuple
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from filelock import FileLock
from PIL import Image

from tumortrace.cohorts import looks as looks_module
from tumortrace.cohorts import store as store_module
from tumortrace.cohorts.cache import cache_folder
from tumortrace.cohorts.cohort import Cohort
from tumortrace.cohorts.looks import Looks, inspect
from tumortrace.cohorts.seen import digests
from tumortrace.cohorts.statistics.measure import measure
from tumortrace.cohorts.store import open_store, usual_size
from tumortrace.errors import DataError
from tumortrace.images.decoding import Facts, read_with_facts

SIDE = 8


def folder_cohort(folder: Path) -> Cohort:
    """The images of a folder in an order that is not that of their names."""
    paths = pd.Series(sorted(str(path) for path in folder.glob("*.png"))).sample(frac=1, random_state=0)
    table = pd.DataFrame({"id": [Path(path).stem for path in paths], "path": paths})
    return Cohort("mine", "unlabelled", table.assign(label=None, group=None, split=None))


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """Forty random pictures, written without Pillow's compression so that pixels are known."""
    folder = tmp_path / "images"
    folder.mkdir()
    rng = np.random.default_rng(0)
    for number in range(40):
        Image.fromarray(rng.integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8)).save(folder / f"image{number:02d}.png")
    return folder


def directly_read(cohort: Cohort) -> np.ndarray:
    return np.stack([np.asarray(Image.open(path).convert("RGB")) for path in cohort.table["path"]])


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The paths decoded so far; chunks are ten images long."""
    seen: list[str] = []

    def counted(path: str, bits: int | None = None) -> tuple[np.ndarray, Facts]:
        seen.append(path)
        return read_with_facts(path, bits=bits)

    monkeypatch.setattr(store_module, "read_with_facts", counted)
    monkeypatch.setattr(store_module, "read_image", lambda path, bits=None: counted(path)[0])
    monkeypatch.setattr(store_module, "CHUNK_BYTES", 10 * SIDE * SIDE * 3)
    return seen


def test_rows_are_the_images_in_the_order_of_the_table(images: Path, tmp_path: Path) -> None:
    """Every pixel as Pillow reads it, row by row, read-only."""
    cohort = folder_cohort(images)
    store = open_store(cohort, cache=tmp_path / "cache")
    assert np.array_equal(store.images, directly_read(cohort))
    assert (store.ids, store.size, store.notes) == (tuple(cohort.table["id"]), (SIDE, SIDE), ())
    assert isinstance(store.images, np.memmap)
    with pytest.raises(ValueError, match="read-only"):
        store.images[0] = 0


def test_second_opening_decodes_nothing(images: Path, tmp_path: Path, reads: list[str]) -> None:
    """Neither for the pixels nor to learn the size."""
    cohort = folder_cohort(images)
    first = open_store(cohort, cache=tmp_path / "cache")
    reads.clear()
    again = open_store(folder_cohort(images), cache=tmp_path / "cache")
    assert reads == []
    assert np.array_equal(first.images, again.images)


def test_an_edited_image_is_decoded_anew(images: Path, tmp_path: Path) -> None:
    """Another fingerprint, another store."""
    open_store(folder_cohort(images), cache=tmp_path / "cache")
    Image.new("RGB", (SIDE, SIDE), "red").save(images / "image07.png")
    cohort = folder_cohort(images)
    assert np.array_equal(open_store(cohort, cache=tmp_path / "cache").images, directly_read(cohort))


def test_odd_sizes_are_resized_and_named(images: Path, tmp_path: Path) -> None:
    """The usual size wins; the note counts the others, also when the store is opened again."""
    Image.new("RGB", (5, 3), "red").save(images / "image07.png")
    cohort = folder_cohort(images)
    for _ in range(2):
        store = open_store(cohort, cache=tmp_path / "cache")
        assert store.notes == ("1 of 40 images are not 8x8 pixels and are resized: image07",)
        assert (store.images[store.ids.index("image07")] == (255, 0, 0)).all()


def test_a_size_can_be_asked_for(images: Path, tmp_path: Path) -> None:
    """Height first; stores of several sizes live side by side."""
    cohort = folder_cohort(images)
    assert open_store(cohort, size=(4, 6), cache=tmp_path / "cache").images.shape == (40, 4, 6, 3)
    assert open_store(cohort, cache=tmp_path / "cache").images.shape == (40, 8, 8, 3)


def test_undecodable_images_are_all_counted_before_refusing(images: Path, tmp_path: Path) -> None:
    """One line: how many, the first three, and `tumortrace check`; again at a second call."""
    for number in (3, 9, 21, 33):
        (images / f"image{number:02d}.png").write_bytes(b"no image")
    for _ in range(2):
        with pytest.raises(
            DataError, match=r"4 of 40 images cannot be decoded: image\d\d.png, .*\.\.\..*tumortrace check"
        ):
            open_store(folder_cohort(images), cache=tmp_path / "cache")
    for number in (3, 9, 21, 33):
        (images / f"image{number:02d}.png").unlink()
    assert len(open_store(folder_cohort(images), cache=tmp_path / "cache").images) == 36


def test_an_interrupted_call_is_taken_up_where_it_stopped(
    images: Path, tmp_path: Path, reads: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Chunks that are on disk are not decoded again, and the end is the same."""
    cohort = folder_cohort(images)
    counted = store_module.read_with_facts

    def interrupted(path: str, bits: int | None = None) -> tuple[np.ndarray, Facts]:
        if path == cohort.table["path"][25]:
            raise KeyboardInterrupt
        return counted(path)

    monkeypatch.setattr(store_module, "read_with_facts", interrupted)
    with pytest.raises(KeyboardInterrupt):
        open_store(cohort, size=(SIDE, SIDE), cache=tmp_path / "cache", workers=1)
    monkeypatch.setattr(store_module, "read_with_facts", counted)
    reads.clear()
    store = open_store(cohort, size=(SIDE, SIDE), cache=tmp_path / "cache")
    assert sorted(reads) == sorted(cohort.table["path"][20:])
    assert np.array_equal(store.images, directly_read(cohort))


@pytest.mark.parametrize("damage", ["truncated", "emptied", "longer", "missing", "record"])
def test_a_damaged_store_is_made_again(damage: str, images: Path, tmp_path: Path) -> None:
    """A file of the wrong length, or none, or an unreadable record is not trusted."""
    cohort = folder_cohort(images)
    open_store(cohort, cache=tmp_path / "cache")
    (file,) = tmp_path.glob("cache/**/images.npy")
    content = file.read_bytes()
    match damage:
        case "missing":
            file.unlink()
        case "record":
            (file.parent / "store.json").write_text("{")
        case _:
            file.write_bytes({"truncated": content[:-1], "emptied": b"", "longer": content + b"x"}[damage])
    assert np.array_equal(open_store(cohort, cache=tmp_path / "cache").images, directly_read(cohort))
    assert file.read_bytes() == content


def test_a_damaged_unfinished_store_is_begun_again(
    images: Path, tmp_path: Path, reads: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A record that promises more rows than the file holds is not trusted."""
    cohort = folder_cohort(images)
    open_store(cohort, cache=tmp_path / "cache")
    (file,) = tmp_path.glob("cache/**/images.npy")
    file.write_bytes(file.read_bytes()[:2000])
    (file.parent / "store.json").write_text('{"rows": 30, "resized": [], "failed": []}')
    assert np.array_equal(open_store(cohort, cache=tmp_path / "cache").images, directly_read(cohort))


def test_a_process_ended_before_it_could_refuse_leaves_no_store_with_holes(
    images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The next call refuses in its place."""
    (images / "image07.png").write_bytes(b"no image")
    decoding = store_module._decoding

    def ended(*arguments: object) -> Iterator[None]:
        yield from decoding(*arguments)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(store_module, "_decoding", ended)
        with pytest.raises(KeyboardInterrupt):
            open_store(folder_cohort(images), cache=tmp_path / "cache")
    with pytest.raises(DataError, match="1 of 40 images cannot be decoded"):
        open_store(folder_cohort(images), cache=tmp_path / "cache")


def test_a_second_process_waits_for_the_first(images: Path, tmp_path: Path, reads: list[str]) -> None:
    """While another holds the lock nothing is decoded; afterwards the store is filled."""
    cohort = folder_cohort(images)
    folder = tmp_path / "stores" / cohort.fingerprint[:32] / f"{SIDE}x{SIDE}"
    folder.mkdir(parents=True)
    with ThreadPoolExecutor(1) as pool:
        with FileLock(folder / "lock"):
            opening = pool.submit(open_store, cohort, size=(SIDE, SIDE), cache=tmp_path)
            with pytest.raises(TimeoutError):
                opening.result(timeout=0.5)
            assert reads == []
        assert np.array_equal(opening.result().images, directly_read(cohort))


def test_a_full_disk_is_told_beforehand(images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One line that names the folder and the remedy, before anything is decoded."""
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(100, 100, 0))
    with pytest.raises(DataError, match=r"no room for .* GB of decoded images.*TUMORTRACE_CACHE"):
        open_store(folder_cohort(images), cache=tmp_path / "cache")


def test_a_cache_that_cannot_be_made_is_told_in_one_line(images: Path, tmp_path: Path) -> None:
    """Here the cache is a file."""
    (tmp_path / "cache").write_text("")
    with pytest.raises(DataError, match=r"cannot be written .*TUMORTRACE_CACHE"):
        open_store(folder_cohort(images), cache=tmp_path / "cache")


def test_an_empty_cohort_is_refused(tmp_path: Path) -> None:
    """There is nothing to decode."""
    (tmp_path / "none").mkdir()
    with pytest.raises(DataError, match="no image to decode"):
        open_store(folder_cohort(tmp_path / "none"), cache=tmp_path / "cache")


def test_the_cache_is_where_the_environment_says(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """TUMORTRACE_CACHE, else the user's cache folder."""
    monkeypatch.setenv("TUMORTRACE_CACHE", str(tmp_path))
    assert cache_folder() == tmp_path
    monkeypatch.delenv("TUMORTRACE_CACHE")
    assert cache_folder().name == "tumortrace"


SLOW = """
import sys, time, pathlib
sys.path.insert(0, sys.argv[3])
from tumortrace.cohorts import store
from test_store import SIDE, folder_cohort
read = store.read_with_facts
seen = []
def read_and_wait(path, bits=None):
    seen.append(path)
    if len(seen) > int(sys.argv[4]):
        time.sleep(600)
    return read(path)
store.read_with_facts = read_and_wait
store.CHUNK_BYTES = 10 * SIDE * SIDE * 3
store.open_store(folder_cohort(pathlib.Path(sys.argv[1])), cache=pathlib.Path(sys.argv[2]), workers=1)
"""


def test_two_processes_and_a_killed_one_end_in_one_sound_store(images: Path, tmp_path: Path) -> None:
    """A process is killed in the middle; two others then fill the same store at once; every pixel is right."""
    command = [sys.executable, "-c", SLOW, str(images), str(tmp_path / "cache"), str(Path(__file__).parent)]
    killed = subprocess.Popen([*command, "25"])  # it waits for the kill
    while not list(tmp_path.glob("cache/**/store.json")) and killed.poll() is None:
        time.sleep(0.01)
    killed.kill()
    assert killed.wait() != 0
    both = [subprocess.Popen([*command, "999"], stderr=subprocess.PIPE, text=True) for _ in range(2)]
    said = [process.communicate()[1] for process in both]
    assert [process.returncode for process in both] == [0, 0], said
    cohort = folder_cohort(images)
    assert np.array_equal(open_store(cohort, cache=tmp_path / "cache").images, directly_read(cohort))


@pytest.mark.skipif("TUMORTRACE_DATA" not in os.environ, reason="TUMORTRACE_DATA is not set")
def test_real_patches_keep_the_usual_size(tmp_path: Path) -> None:
    """IDC patches are 50x50 but for some at slide edges, which are resized and counted."""
    paths = sorted(str(path) for path in Path(os.environ["TUMORTRACE_DATA"], "idc").glob("0/*.png"))
    table = pd.DataFrame({"id": [Path(path).stem for path in paths], "path": paths, "label": 1})
    store = open_store(Cohort("idc", "table", table.assign(group=None, split=None)), cache=tmp_path)
    sizes = [Image.open(path).size for path in paths]
    assert store.size == (50, 50)
    assert [int(note.split()[0]) for note in store.notes] == [sum(size != (50, 50) for size in sizes)]


def test_looks_are_taken_while_decoding_and_kept(images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The audit of a cohort whose store is there opens no file; what is seen is what a reading of its own sees."""
    cohort = folder_cohort(images)
    alone, small = inspect(cohort.table["path"].tolist())
    store = open_store(cohort, cache=tmp_path / "cache")
    monkeypatch.setattr(looks_module, "read_with_facts", lambda path, bits=None: pytest.fail("a file was opened"))
    pd.testing.assert_frame_equal(open_store(cohort, cache=tmp_path / "cache").looks, alone)
    assert np.array_equal(Looks(cohort, tmp_path / "cache").small, small)
    assert store.digests == alone["digest"].tolist() == digests(store.images, np.arange(40))


def test_an_interrupted_call_keeps_its_looks(
    images: Path, tmp_path: Path, reads: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each image is looked at once, also where sizes differ; a damaged part is looked at anew."""
    cohort = folder_cohort(images)
    open_store(cohort, size=(SIDE, SIDE), cache=tmp_path / "cache")
    (part, *_) = sorted(tmp_path.glob("cache/**/*.parquet"))
    part.write_bytes(b"no table")
    seen: list[str] = []
    read = looks_module.read_with_facts
    monkeypatch.setattr(looks_module, "read_with_facts", lambda path, bits=None: (seen.append(path), read(path))[1])
    open_store(cohort, size=(4, 4), cache=tmp_path / "cache")
    alone, _ = inspect(cohort.table["path"].tolist())
    seen.clear()
    pd.testing.assert_frame_equal(Looks(cohort, tmp_path / "cache").table, alone)
    assert seen == cohort.table["path"].tolist()[:10]
    seen.clear()
    assert len(Looks(cohort, tmp_path / "cache").table) == 40
    assert seen == []


def test_damaged_images_are_looked_at_each_time(images: Path, tmp_path: Path) -> None:
    """The store refuses them; looks tell what is wrong, and keep those of the sound images."""
    (images / "image07.png").write_bytes(b"no image")
    cohort = folder_cohort(images)
    for _ in range(2):
        looks = Looks(cohort, tmp_path / "cache")
        assert looks.table["problem"].notna().sum() == 1
        assert looks.known().sum() == 0 or looks.known().sum() == 39
    with pytest.raises(DataError, match="1 of 40 images cannot be decoded"):
        open_store(cohort, cache=tmp_path / "cache")


def test_a_resized_picture_is_known_by_its_pixels_in_the_store(images: Path, tmp_path: Path) -> None:
    """As runs of before have it in seen.csv."""
    Image.new("RGB", (5, 3), "red").save(images / "image07.png")
    store = open_store(folder_cohort(images), cache=tmp_path / "cache")
    assert store.digests == digests(store.images, np.arange(40))


def test_one_function_judges_the_usual_size(tmp_path: Path) -> None:
    """A cohort sorted by size: to the store and to an exploration, what most images have."""
    paths = []
    for number in range(600):
        side = 4 if number < 250 else 8
        paths.append(tmp_path / f"{number:03d}.png")
        Image.new("RGB", (side, side), (number % 256, 0, 0)).save(paths[-1])
    rows = {"id": [path.stem for path in paths], "path": list(map(str, paths)), "label": [0, 1] * 300}
    cohort = Cohort("mine", "table", pd.DataFrame(rows).assign(group=None, split=None))
    assert usual_size(cohort) == measure(cohort).size == (8, 8)
