"""Exploring a data set writes one page, figures and numbers, whatever the data lack."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from tumortrace.cohorts.layouts import open_cohort
from tumortrace.errors import CohortError
from tumortrace.images.augmentation import Augmentation
from tumortrace.images.preprocessing import Preprocessing
from tumortrace.images.stain import estimate_stains
from tumortrace.preparation.explore import explore

pytestmark = pytest.mark.painted


@pytest.fixture(scope="module")
def explored(tissue: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Synthetic tissue explored with everything; torch's state must be as before."""
    before = torch.random.get_rng_state()
    folder = explore(
        tissue,
        out=tmp_path_factory.mktemp("explored"),
        sample=120,
        seed=5,
        preprocessing=Preprocessing(crop=64),
        augmentation=Augmentation(symmetries=True, stain=0.02),
        recipe="tumortrace",
    )
    assert torch.equal(before, torch.random.get_rng_state())
    return folder


def test_everything_is_written_and_shown(explored: Path) -> None:
    """Each figure is there as PNG and SVG and on the page; nothing is left half written."""
    names = {path.stem for path in (explored / "figures").iterdir()}
    expected = {"classes", "groups", "intensity", "intensity_by_class", "mean_colour", "stains", "stains_by_group"}
    expected |= {"map_class", "map_group", "samples_0", "samples_1", "mean_images", "edges", "augmentation"}
    assert expected <= names
    assert {path.suffix for path in (explored / "figures").iterdir()} == {".png", ".svg"}
    page = (explored / "report.html").read_text("utf-8")
    assert page.count("<img ") == len(names)
    assert not re.search(r"(src|href)=\"(?!data:|#)", page)


def test_numbers_agree_with_the_data(explored: Path, tissue: Path) -> None:
    """Counts are of all images, the sample is of the size asked for, its table has a row for each image."""
    statistics = json.loads((explored / "statistics.json").read_text())
    table = open_cohort(tissue).table
    assert statistics["cohort"]["images"] == len(table)
    assert statistics["cohort"]["prevalence"] == pytest.approx(table["label"].astype(float).mean())
    assert statistics["cohort"]["groups"]["count"] == table["group"].nunique()
    assert statistics["sample"]["images"] == 120
    assert statistics["stains"]["applies"]
    assert statistics["augmentation"]["area_kept"] == pytest.approx((64 / 96) ** 2)
    assert isinstance(statistics["audit"], list)
    sample = pd.read_csv(explored / "sample.csv")
    assert len(sample) == 120
    assert set(sample["id"]) <= set(table["id"])
    assert set(statistics["shown"]["1"]) <= set(sample.loc[sample["label"] == 1, "id"])


def test_fifteen_grey_images_of_one_class_and_many_sizes(tmp_path: Path) -> None:
    """A small, odd cohort is explored all the same: one class, no groups, grey, of several sizes, one file broken."""
    folder = tmp_path / "malignant"
    folder.mkdir()
    (tmp_path / "benign").mkdir()
    rng = np.random.default_rng(0)
    for number in range(15):
        pixels = rng.integers(0, 255, (40 + 5 * (number % 3), 40), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{number}.png")
    (folder / "3.png").write_bytes(b"broken")
    steps = {"preprocessing": Preprocessing(size=32), "augmentation": Augmentation(symmetries=True)}
    table = open_cohort(tmp_path / "malignant")
    out = explore(table, out=tmp_path / "out", audit=False, **steps)
    statistics = json.loads((out / "statistics.json").read_text())
    assert (statistics["sample"]["images"], statistics["sample"]["undecodable"]) == (14, 1)
    assert len(statistics["sample"]["sizes"]) == 3
    assert statistics["sample"]["modes"] == {"L": 14}
    assert statistics["stains"] == {"applies": False, "reason": "the images are grey"}
    assert statistics["audit"] is None
    page = (out / "report.html").read_text("utf-8")
    assert "Not H&amp;E" in page
    assert "could not be decoded" in page


def test_a_sample_of_none_is_refused_before_anything_is_written(tissue: Path, tmp_path: Path) -> None:
    """A sample of no image is one clear line, and no folder appears."""
    with pytest.raises(CohortError, match="1 or more"):
        explore(tissue, out=tmp_path / "out", sample=0)
    assert not (tmp_path / "out").exists()


def testestimate_stains_a_mixture_are_found(tmp_path: Path) -> None:
    """From pixels mixed of two known dyes by Beer and Lambert's law, their optical densities are found again."""
    rng = np.random.default_rng(1)
    dyes = np.array([[0.60, 0.72, 0.35], [0.10, 0.95, 0.30]])
    dyes /= np.linalg.norm(dyes, axis=1, keepdims=True)
    amounts = rng.uniform(0.3, 1.6, (4096, 2)) * np.where(rng.random((4096, 1)) < 0.5, [1, 0.02], [0.02, 1])
    image = np.clip(np.rint(240 * np.exp(-amounts @ dyes)), 0, 255).astype(np.uint8).reshape(64, 64, 3)
    found = estimate_stains(image)
    assert found is not None
    apart = np.degrees(np.arccos(np.clip((found * dyes).sum(axis=1), -1, 1)))
    assert (apart < 3).all()
    assert estimate_stains(np.full((64, 64, 3), 235, np.uint8)) is None
