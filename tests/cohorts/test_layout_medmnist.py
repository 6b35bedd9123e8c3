"""MedMNIST's files: splits, labels, grey and RGB images, and which class is positive."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tumortrace.cohorts.layouts import open_cohort
from tumortrace.cohorts.store import open_store
from tumortrace.errors import CohortError
from tumortrace.images.decoding import read_image

COUNTS = {"train": 6, "val": 4, "test": 5}


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Unpacked here."""
    monkeypatch.setenv("TUMORTRACE_CACHE", str(tmp_path / "cache"))


def write(file: Path, *, channels: int = 0, classes: int = 2, columns: int = 1) -> dict[str, np.ndarray]:
    """A file as MedMNIST has them: labels of shape (N, 1), grey images without a channel."""
    rng = np.random.default_rng(0)
    arrays = {}
    for split, count in COUNTS.items():
        shape = (count, 28, 28, channels) if channels else (count, 28, 28)
        arrays[f"{split}_images"] = rng.integers(0, 256, shape, dtype=np.uint8)
        arrays[f"{split}_labels"] = np.arange(count * columns, dtype=np.uint8).reshape(count, columns) % classes
    np.savez_compressed(file, **arrays)
    return arrays


@pytest.mark.parametrize("channels", [0, 3])
def test_every_picture_and_label_is_that_of_the_file(channels: int, tmp_path: Path) -> None:
    """In the order train, validation, test; grey pictures in three equal channels."""
    arrays = write(tmp_path / "mine.npz", channels=channels)
    cohort = open_cohort(tmp_path / "mine.npz", positive="1")
    assert cohort.layout == "medmnist"
    assert cohort.table["split"].tolist() == ["train"] * 6 + ["validation"] * 4 + ["test"] * 5
    assert cohort.table["label"].tolist() == [*np.concatenate([arrays[f"{s}_labels"][:, 0] for s in COUNTS])]
    pictures = np.concatenate([arrays[f"{split}_images"] for split in COUNTS])
    expected = pictures if channels else np.repeat(pictures[..., None], 3, axis=3)
    assert np.array_equal(open_store(cohort).images, expected)
    assert np.array_equal(read_image(cohort.table["path"][7]), expected[7])


def test_in_breastmnist_0_is_malignant(tmp_path: Path) -> None:
    """Its name says so; of other files it has to be asked for."""
    write(tmp_path / "breastmnist_28.npz")
    cohort = open_cohort(tmp_path / "breastmnist_28.npz")
    assert (cohort.positive_class, cohort.table["label"].tolist()[:3]) == ("malignant", [1, 0, 1])
    write(tmp_path / "mine.npz")
    with pytest.raises(CohortError, match="--positive 0"):
        open_cohort(tmp_path / "mine.npz")
    assert open_cohort(tmp_path / "mine.npz", positive="0").table["label"].tolist()[:3] == [1, 0, 1]


def test_of_several_classes_the_positive_ones_are_asked_for(tmp_path: Path) -> None:
    """Six of nine kinds of tissue, by the names that MedMNIST gives them; several findings for each image are none."""
    write(tmp_path / "pathmnist_64.npz", channels=3, classes=9)
    with pytest.raises(CohortError, match=r"6 classes.*lymphocytes.*--positive"):
        open_cohort(tmp_path / "pathmnist_64.npz")
    cohort = open_cohort(tmp_path / "pathmnist_64.npz", positive="mucus,debris")
    assert cohort.table["label"].tolist()[:6] == [0, 0, 1, 0, 1, 0]
    assert cohort.table["class_name"].tolist()[:3] == ["adipose", "background", "debris"]
    assert cohort.positive_names == ("mucus", "debris") == cohort.class_names[-2:]
    write(tmp_path / "chestmnist.npz", columns=14)
    with pytest.raises(CohortError, match="several for each image"):
        open_cohort(tmp_path / "chestmnist.npz", positive="1")


def test_the_fingerprint_outlives_the_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs resume although what was unpacked has been unpacked anew."""
    write(tmp_path / "breastmnist.npz")
    first = open_cohort(tmp_path / "breastmnist.npz").fingerprint
    monkeypatch.setenv("TUMORTRACE_CACHE", str(tmp_path / "other"))
    assert open_cohort(tmp_path / "breastmnist.npz").fingerprint == first


def test_a_damaged_file_is_refused(tmp_path: Path) -> None:
    """In one line; a file that is no such archive is not taken for one."""
    write(tmp_path / "breastmnist.npz")
    content = bytearray((tmp_path / "breastmnist.npz").read_bytes())
    content[200:260] = bytes(60)
    (tmp_path / "breastmnist.npz").write_bytes(content)
    with pytest.raises(CohortError, match="download it again"):
        open_cohort(tmp_path / "breastmnist.npz")
    (tmp_path / "other.npz").write_bytes(b"no archive")
    with pytest.raises(CohortError, match=r"no NumPy .npz file, or one that is damaged"):
        open_cohort(tmp_path / "other.npz")


def test_the_folder_around_a_file_names_it(tmp_path: Path) -> None:
    """A folder is not the data, but what to type is known."""
    write(tmp_path / "mine.npz")
    with pytest.raises(CohortError, match=r"name one: \S+/mine\.npz"):
        open_cohort(tmp_path)
