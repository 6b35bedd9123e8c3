"""The verb `features`: tables, their record, resuming, refusals, pictures."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from PIL import Image

from tumortrace import open_cohort
from tumortrace.cli.main import run
from tumortrace.cohorts.cache import cache_folder
from tumortrace.errors import DataError, RecipeError, RunError, TumorTraceError
from tumortrace.images.decoding import read_image
from tumortrace.preparation import features as module
from tumortrace.preparation.features import features, read_features
from tumortrace.reports.texture_figure import draw_texture
from tumortrace.texture.descriptor import choose, describe

pytestmark = pytest.mark.painted

QUICK = ("sobel", "lbp-uniform")


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A table of 23 images of 16x16 px, two without label, with a group each and no split."""
    folder = tmp_path_factory.mktemp("small")
    rng = np.random.default_rng(6)
    rows = []
    for number in range(23):
        Image.fromarray(rng.integers(0, 256, (16, 16, 3), dtype=np.uint8)).save(folder / f"{number:02d}.png")
        label = "" if number > 20 else ("benign", "malignant")[number % 2]
        rows.append({"id": f"{number:02d}", "path": f"{number:02d}.png", "label": label, "patient": f"p{number // 4}"})
    pd.DataFrame(rows).to_csv(folder / "table.csv", index=False)
    return folder / "table.csv"


def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Chunks of four images, and pieces of the table of eight rows."""
    monkeypatch.setattr(module, "_CHUNK_PIXELS", 4 * 16 * 16)
    monkeypatch.setattr(module, "_ROWS_AT_ONCE", 8)


def expected(data: Path, names: tuple[str, ...] = QUICK) -> tuple[list[str], np.ndarray]:
    """Computed image by image, past the store and the table."""
    table = open_cohort(data, group_column="patient").table
    rows = [describe(read_image(path)[None], choose(names)) for path in table["path"]]
    return rows[0][0], np.concatenate([values for _, values in rows])


@pytest.mark.parametrize("name", ["features.parquet", "features.csv"])
def test_table_holds_every_image_and_how_it_came_to_be(
    small: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """Rows in the cohort's order with id, group, split, label; values as computed one by one; the record beside."""
    small_chunks(monkeypatch)
    out = features(small, out=tmp_path / name, descriptors=QUICK, group_column="patient", workers=1)
    table, record = read_features(out)
    names, values = expected(small)
    cohort = open_cohort(small, group_column="patient")
    assert table.columns.tolist() == ["id", "group", "split", "label", *names]
    assert table["id"].tolist() == cohort.table["id"].tolist()
    assert table["group"].tolist() == cohort.table["group"].tolist()
    assert table["split"].isna().all()
    assert table["label"].astype("Int64").equals(cohort.table["label"])
    np.testing.assert_array_equal(table[names].to_numpy(), values)
    assert record.data.fingerprint == cohort.fingerprint
    assert record.descriptors == {"sobel": {}, "lbp-uniform": {}}
    assert "not a medical device" in record.research_use.lower()


def test_parquet_can_be_read_by_anyone(small: Path, tmp_path: Path) -> None:
    """The arguments stand in the schema; pandas alone gives ids as text and labels as whole numbers or missing."""
    out = features(small, out=tmp_path / "a.parquet", descriptors=["glcm"], changes=["glcm.distances=[2]"])
    record = json.loads(pq.read_schema(out).metadata[b"tumortrace"])
    assert record["descriptors"]["glcm"]["distances"] == [2]
    table = pd.read_parquet(out)
    assert table["id"][0] == "00"
    assert str(table["label"].dtype) == "Int64"
    assert table["label"].isna().sum() == 2


def test_an_interrupted_call_continues(small: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Chunks that are done are not done again; before the end there is no table, nor anything else beside it."""
    small_chunks(monkeypatch)
    compute, done = module._compute_chunk, []

    def failing(images: np.ndarray, chosen: dict, target: Path) -> None:
        if len(done) == 3:
            raise KeyboardInterrupt
        done.append(target.name)
        compute(images, chosen, target)

    monkeypatch.setattr(module, "_compute_chunk", failing)
    out = tmp_path / "features.parquet"
    with pytest.raises(KeyboardInterrupt):
        features(small, out=out, descriptors=QUICK, group_column="patient", workers=1)
    assert list(tmp_path.iterdir()) == []
    done.append("-")  # past the interruption
    features(small, out=out, descriptors=QUICK, group_column="patient", workers=1)
    assert len(done) == 7
    assert len(set(done)) == 7
    np.testing.assert_array_equal(read_features(out)[0][expected(small)[0]].to_numpy(), expected(small)[1])
    assert not [path for path in (cache_folder() / "features").iterdir() if path.is_dir()]


def test_a_table_of_the_users_survives_an_interruption(
    small: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What stood there before is there until the new one is whole."""
    out = tmp_path / "features.parquet"
    features(small, out=out, descriptors=["stain"], workers=1)
    before = out.read_bytes()

    def failing(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(module, "_compute_chunk", failing)
    with pytest.raises(KeyboardInterrupt):
        features(small, out=out, descriptors=QUICK, workers=1)
    assert out.read_bytes() == before
    (tmp_path / "mine.csv").write_text("mine")
    with pytest.raises(RunError, match="no table of images"):
        features(small, out=tmp_path / "mine.csv", descriptors=QUICK, workers=1)
    assert (tmp_path / "mine.csv").read_text() == "mine"


def test_processes_agree(small: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two processes give the table that one gives."""
    small_chunks(monkeypatch)
    tables = [
        read_features(features(small, out=tmp_path / f"{workers}.csv", descriptors=QUICK, workers=workers))[0]
        for workers in (1, 2)
    ]
    pd.testing.assert_frame_equal(*tables)


def test_pictures_of_each_class(small: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """N images of each class, and of those without label, are drawn beside the table: the first, the last, between."""
    drawn = {}

    def record(path: Path, image: np.ndarray, title: str) -> None:
        drawn[path.name] = (title, image)

    monkeypatch.setattr("tumortrace.reports.texture_figure.draw_texture", record)
    features(small, out=tmp_path / "f.csv", descriptors=["sobel"], pictures=3)
    names = [f"{kind}-{number:02d}" for kind in ("benign", "malignant", "unlabelled") for number in range(3)][:-1]
    assert [name[: len(each)] for name, each in zip(drawn, names, strict=True)] == names
    title, image = drawn["malignant-02-19.png"]
    assert title == "19 (malignant)"
    np.testing.assert_array_equal(image, read_image(small.parent / "19.png"))


def test_a_picture(tmp_path: Path) -> None:
    """Any caption is shown as it is, also one that looks like a formula."""
    image = np.random.default_rng(0).integers(0, 256, (20, 12, 3), dtype=np.uint8)
    draw_texture(tmp_path / "colour.png", image, r"$\frac{_ <b>" + "x" * 200)
    with Image.open(tmp_path / "colour.png") as picture:
        assert picture.format == "PNG"
        assert min(picture.size) > 1000


def test_refusals_come_before_any_work(small: Path, tmp_path: Path) -> None:
    """Formats, descriptors, arguments and images that do not fit are each one clear line."""
    with pytest.raises(DataError, match=r"no table format '.xlsx'.*\.parquet or \.csv"):
        features(small, out=tmp_path / "f.xlsx")
    with pytest.raises(TumorTraceError, match="no descriptor named 'gabor'"):
        features(small, out=tmp_path / "f.csv", descriptors=["gabor"])
    with pytest.raises(RecipeError, match=r"hog\.cells"):
        features(small, out=tmp_path / "f.csv", changes=["hog.cells=many"])
    Image.new("RGB", (7, 9)).save(tmp_path / "tiny.png")
    with pytest.raises(DataError, match="images of 7x9 px; expected 8x8 px or more"):
        features(tmp_path / "tiny.png", out=tmp_path / "f.csv")
    assert not (tmp_path / "f.csv").exists()


def test_what_is_no_table_of_features_is_refused(tmp_path: Path) -> None:
    """A file that is missing, damaged or someone else's gives one line."""
    (tmp_path / "damaged.parquet").write_text("no")
    pd.DataFrame({"id": ["a"]}).to_parquet(tmp_path / "other.parquet")
    pd.DataFrame({"id": ["a"]}).to_csv(tmp_path / "other.csv")
    for name in ("damaged.parquet", "other.parquet", "other.csv", "missing.parquet", "missing.csv"):
        with pytest.raises(DataError, match=r"cannot be read as features"):
            read_features(tmp_path / name)


def test_as_a_user_types_it(small: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Descriptors by name, an argument changed, the options for reading data."""
    words = ["features", str(small), "-o", str(tmp_path / "t.csv"), "--descriptors", "glcm,hog"]
    words += ["--set", "glcm.distances=[1,2]", "--set", "hog.cells=2", "--group-column", "patient"]
    assert run(words) == 0
    table, record = read_features(tmp_path / "t.csv")
    assert list(record.descriptors) == ["glcm", "hog"]
    assert table.shape == (23, 4 + 2 * 4 * 4 + 36)
    assert table["group"].notna().all()
    assert "23 rows" in capsys.readouterr().err
