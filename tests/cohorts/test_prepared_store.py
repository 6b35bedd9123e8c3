"""The prepared store: made once, keyed by source and steps, never half used."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from tumortrace.cohorts import store as store_module
from tumortrace.cohorts.cohort import Cohort
from tumortrace.cohorts.store import PatchStore, open_store, prepared_store

SIDE = 8


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> PatchStore:
    """Forty random pictures, in chunks of ten and pieces of four."""
    monkeypatch.setattr(store_module, "CHUNK_BYTES", 10 * SIDE * SIDE * 3)
    monkeypatch.setattr(store_module, "PIECE", 4)
    rng = np.random.default_rng(0)
    paths = [tmp_path / f"{number}.png" for number in range(40)]
    for path in paths:
        Image.fromarray(rng.integers(0, 200, (SIDE, SIDE, 3), dtype=np.uint8)).save(path)
    table = pd.DataFrame({"id": [path.stem for path in paths], "path": [str(path) for path in paths], "label": 1})
    return open_store(Cohort("mine", "table", table.assign(group=None, split=None)), cache=tmp_path / "cache")


class Doubled:
    """Enlarges twice and adds five; counts the images it is given, the first for the size not included."""

    def __init__(self) -> None:
        self.images = -1
        self.stop = 1000

    def __call__(self, images: np.ndarray) -> np.ndarray:
        self.images += len(images)
        if self.images > self.stop:
            raise KeyboardInterrupt
        return images.repeat(2, axis=1).repeat(2, axis=2) + np.uint8(5)


def test_every_row_is_prepared_once(store: PatchStore) -> None:
    """In the order of the rows; the second time nothing is computed."""
    double = Doubled()
    prepared = prepared_store(store, "double", double, "doubling", workers=1)
    assert np.array_equal(prepared.images, store.images.repeat(2, axis=1).repeat(2, axis=2) + 5)
    assert isinstance(prepared.images, np.memmap)
    assert (prepared.ids, prepared.size) == (store.ids, (16, 16))
    assert double.images == 40
    again = prepared_store(store, "double", double, "doubling")
    assert double.images == 41  # one to see the size
    assert np.array_equal(again.images, prepared.images)


def test_another_key_is_another_store(store: PatchStore) -> None:
    """Neither takes the place of the other, nor of their source."""
    one = prepared_store(store, "one", lambda images: images + np.uint8(1), "adding")
    two = prepared_store(store, "two", lambda images: images + np.uint8(2), "adding")
    assert np.array_equal(one.images + 1, two.images)
    assert np.array_equal(store.images + 1, one.images)
    deeper = prepared_store(one, "two", lambda images: images + np.uint8(2), "adding")
    assert np.array_equal(deeper.images, store.images + 3)


def test_an_interrupted_call_is_taken_up(store: PatchStore) -> None:
    """Chunks on disk are not made again, and half a store is never opened."""
    double = Doubled()
    double.stop = 30
    with pytest.raises(KeyboardInterrupt):
        prepared_store(store, "double", double, "doubling", workers=1)
    double.images, double.stop = -1, 1000
    prepared = prepared_store(store, "double", double, "doubling", workers=1)
    assert double.images < 40
    assert np.array_equal(prepared.images, store.images.repeat(2, axis=1).repeat(2, axis=2) + 5)


def test_a_damaged_file_is_made_again(store: PatchStore) -> None:
    """One that lost its end is not trusted."""
    prepared = prepared_store(store, "double", Doubled(), "doubling")
    assert prepared.folder is not None
    file = prepared.folder / "images.npy"
    expected, images = file.read_bytes(), prepared.images.copy()
    file.write_bytes(expected[:-1])
    assert np.array_equal(prepared_store(store, "double", Doubled(), "doubling").images, images)
    assert file.read_bytes() == expected


def test_several_processes_give_the_same(store: PatchStore) -> None:
    """What two processes make is what one makes."""
    one = prepared_store(store, "one", lambda images: images[:, ::2] + np.uint8(1), "adding", workers=1)
    two = prepared_store(store, "two", lambda images: images[:, ::2] + np.uint8(1), "adding", workers=2)
    assert np.array_equal(one.images, two.images)
