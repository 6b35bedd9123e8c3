"""Synthetic slides of patients: sizes, outlines and the table, by the files themselves."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import tifffile
from scipy.spatial.distance import pdist

from tumortrace.cli.main import run
from tumortrace.cohorts.synthetic import cached_synthetic, open_synthetic, parse_synthetic
from tumortrace.cohorts.synthetic.slides import draw_lesions, plan_slides
from tumortrace.errors import CohortError
from tumortrace.slides.cohort import open_slides


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four slides of two patients."""
    out = tmp_path_factory.mktemp("slides") / "cohort"
    assert run(["synth", "slides", "-o", str(out), "--count", "4", "--seed", "3"]) == 0
    return out


def outlines(folder: Path, row: pd.Series) -> list[np.ndarray]:
    """Corners of each annotation, x and y."""
    features = json.loads((folder / row["annotations"]).read_text())["features"]
    return [np.array(feature["geometry"]["coordinates"][0]) for feature in features]


def test_the_table_names_slides_patients_and_stages(folder: Path) -> None:
    """Two slides of a patient; a macro- and a micro-metastasis give pN1; files are where the table says."""
    table = pd.read_csv(folder / "slides.csv")
    assert list(table) == ["slide", "label", "patient", "annotations", "largest", "stage"]
    assert table["label"].tolist() == ["normal", "normal", "tumour", "tumour"]
    assert table["largest"].tolist() == ["negative", "negative", "macro", "micro"]
    assert table["stage"].tolist() == ["pN0", "pN0", "pN1", "pN1"]
    assert table["patient"].nunique() == 2
    assert all((folder / name).is_file() for name in [*table["slide"], *table["annotations"]])


def test_lesions_have_the_sizes_of_their_class(folder: Path) -> None:
    """The largest extent of the largest outline, in um, as the resolution in the file has it."""
    table = pd.read_csv(folder / "slides.csv")
    ends = {"macro": (2000, 2300), "micro": (200, 2000)}
    for _, row in table.iterrows():
        lesions = outlines(folder, row)
        assert bool(lesions) == (row["label"] == "tumour")
        with tifffile.TiffFile(folder / row["slide"]) as file:
            assert [page.shape for page in file.pages] == [(512, 2304, 3), (256, 1152, 3), (128, 576, 3), (64, 288, 3)]
            assert file.pages[0].tags["XResolution"].value == (10_000, 1)
            red = file.pages[0].asarray()[..., 0].astype(float)
        extents = [pdist(lesion).max() for lesion in lesions]
        if extents:
            low, high = ends[row["largest"]]
            assert low < max(extents) < high
            assert min(extents) < 75  # isolated cells are there too
            x, y = lesions[0].mean(axis=0).astype(int)
            assert red[y - 10 : y + 10, x - 100 : x + 100].mean() < red[60:-60, 60:-60].mean()


def test_forty_slides_hold_all_classes_and_half_of_them_no_tumour() -> None:
    """The plan of 20 patients; every stage but pN2, for which two slides are too few."""
    plan = plan_slides(40, 0)
    assert plan["largest"].value_counts().to_dict() == {"negative": 22, "micro": 8, "macro": 6, "itc": 4}
    patients = plan.groupby("patient")["stage"].first()
    assert set(patients) == {"pN0", "pN0(i+)", "pN1mi", "pN1"}
    assert len(patients) == 20


def test_the_same_call_writes_the_same_bytes(folder: Path, tmp_path: Path) -> None:
    """Over an earlier one, whose half-written folder is taken as its own; a file of the user stays."""
    before = {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    (folder / "cohort.json").rename(folder / "cohort.unfinished.json")
    (folder / "slides" / "mine.tif").write_bytes(b"mine")
    assert run(["synth", "slides", "-o", str(folder), "--count", "4", "--seed", "3"]) == 0
    assert (folder / "slides" / "mine.tif").read_bytes() == b"mine"
    (folder / "slides" / "mine.tif").unlink()
    assert {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before


def test_it_is_known_by_its_specification(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """`synthetic:slides` is 40; it is kept in the cache; as patches it is refused."""
    assert parse_synthetic("synthetic:slides", ("slides",)) == ("slides", 40, 0)
    with pytest.raises(CohortError, match="no synthetic cohort"):
        parse_synthetic("synthetic:slides")
    monkeypatch.setenv("TUMORTRACE_CACHE", str(tmp_path))
    home = cached_synthetic("slides", 4, 1)
    written = (home / "slides.csv").stat().st_mtime_ns
    assert cached_synthetic("slides", 4, 1) == home
    assert (home / "slides.csv").stat().st_mtime_ns == written
    with pytest.raises(CohortError, match="holds slides, not patches"):
        open_synthetic(home)
    cohort = open_slides("synthetic:slides?count=4&seed=1")
    assert [entry.label for entry in cohort.entries] == [0, 0, 1, 1]
    assert cohort.classes == ("normal", "tumour")
    assert all(entry.annotations is not None and entry.annotations.is_file() for entry in cohort.entries)
    with pytest.raises(CohortError, match="no synthetic cohort"):
        open_slides("synthetic:patches")


def test_long_lesions_find_a_place_in_every_slide() -> None:
    """Where one has none in a strip of tissue, another strip is drawn: no seed goes on for ever."""
    for seed in range(60):
        _, lesions = draw_lesions(np.random.default_rng(seed), "macro")
        assert len(lesions) == 3
        assert 2000 < pdist(lesions[0]).max() < 2200
