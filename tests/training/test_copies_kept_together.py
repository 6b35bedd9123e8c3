"""Pictures that stand in several files: our own splits keep them together, splits of the data that part them do not."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from tests.conftest import SMALL
from tumortrace import check, crossval, learning_curve, open_cohort, resume, train, tune
from tumortrace.cli.main import run as command
from tumortrace.cohorts.material import Material
from tumortrace.errors import DataError
from tumortrace.training import crossval as crossvalidation
from tumortrace.training import experiment
from tumortrace.training import learning_curve as curve
from tumortrace.training import tune as tuning
from tumortrace.training.crossval import copies_apart

pytestmark = pytest.mark.usefixtures("few_replicates")

TINY = [*SMALL, "epochs=1"]
SHARED = "80 images share pictures, pixel for pixel: they are divided as 40 sets, copies together"


@pytest.fixture(scope="module")
def doubled(tissue: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Class folders of 200 patches, of which no slide is known, and of 40 of them a copy under another name."""
    folder = tmp_path_factory.mktemp("doubled")
    table = open_cohort(tissue).table
    for number, row in enumerate(table.iloc[:200].itertuples()):
        place = folder / ("tumour" if row.label else "normal")
        place.mkdir(exist_ok=True)
        image = Image.open(row.path)
        image.save(place / f"{number:03d}.png")
        if number % 5 == 0:
            image.save(place / f"copy-{(number * 7) % 1000:03d}-{number}.png")
    blank = Image.new("RGB", image.size, "white")
    for number in range(6):  # alike as they are, blank pictures are no copies
        blank.save(folder / "normal" / f"blank-{number}.png")
    return folder


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(experiment, "renew_report", lambda folder: (folder / "report.html").write_text(""))


def pictures(folder: Path) -> dict[str, bytes]:
    """Pixels by id, read without any help of ours."""
    table = open_cohort(folder).table
    return {row.id: np.asarray(Image.open(row.path).convert("RGB")).tobytes() for row in table.itertuples()}


def parted(splits: Path, folder: Path, column: str = "split") -> int:
    """How many pictures, blank ones aside, stand in several splits of a table."""
    found = pictures(folder)
    table = pd.read_csv(splits, dtype=str)
    table = table[~table["id"].str.contains("blank")]
    stands: dict[bytes, set[str]] = {}
    for identity, where in zip(table["id"], table[column], strict=True):
        stands.setdefault(found[identity], set()).add(where)
    return sum(len(names) > 1 for names in stands.values())


def test_train_keeps_copies_in_one_split_and_says_so(doubled: Path, tmp_path: Path) -> None:
    """Nothing has to be allowed; the note is in the run's record, after a resumption too; leakage is not ruled out."""
    run = train(doubled, changes=TINY, out=tmp_path, positive="tumour")
    assert parted(run / "splits.csv", doubled) == 0
    record = json.loads((run / "run.json").read_text())
    assert SHARED in record["data"]["notes"]
    assert record["audit"]["allowed"] == []
    assert record["leakage"].startswith("not ruled out")
    (run / "report.html").unlink()
    resume(run)
    assert json.loads((run / "run.json").read_text())["data"]["notes"] == record["data"]["notes"]
    assert set(pd.read_csv(run / "splits.csv")["split"]) == {"train", "validation", "calibration", "test"}


def test_check_judges_the_splits_that_train_would_make(doubled: Path, tmp_path: Path) -> None:
    """It warns of copies within splits, and finds none across them."""
    options = ["--positive", "tumour", "-o", str(tmp_path / "audit")]
    assert command(["check", str(doubled), *options]) == 0
    audit = json.loads((tmp_path / "audit" / "audit.json").read_text())
    names = [finding["name"] for finding in audit["findings"]]
    assert "copies-within-split" in names
    assert "copies-across-splits" not in names
    assert SHARED in audit["notes"]


def test_folds_keep_copies_together(doubled: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In every fold, and among the splits that are made of the rest."""
    monkeypatch.setattr(crossvalidation, "_conclude", lambda whole, _: whole.run.folder)
    folder = crossval(doubled, folds=2, changes=TINY, out=tmp_path, positive="tumour")
    assert parted(folder / "folds.csv", doubled, "fold") == 0
    folds = pd.read_csv(folder / "folds.csv", dtype={"id": str})
    material = Material(open_cohort(doubled, positive="tumour"))
    assert copies_apart(material, folds) == 0, "nor are blank pictures counted, which stand in both"
    assert folds.loc[folds["id"].str.contains("blank"), "fold"].nunique() == 2
    assert copies_apart(material, folds.assign(fold=folds["id"].str.contains("copy").astype(int))) == 80
    splits = list(folder.glob("folds/*/*/*/splits.csv"))
    assert len(splits) == 2
    assert [parted(file, doubled) for file in splits] == [0, 0]
    assert json.loads((folder / "run.json").read_text())["data"]["notes"].count(SHARED) == 1


def test_learning_curves_and_searches_split_alike(
    doubled: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both begin with splits that part no picture, those of `train` with the same seed."""
    monkeypatch.setattr(curve, "_carry_out", lambda whole, *_: whole.run.folder)
    monkeypatch.setattr(tuning, "_carry_out", lambda whole, *_: whole.run.folder)
    grown = learning_curve(doubled, [0.5, 1.0], changes=TINY, out=tmp_path, positive="tumour")
    searched = tune(doubled, out=tmp_path, positive="tumour")
    assert parted(grown / "splits.csv", doubled) == 0
    assert (grown / "splits.csv").read_text() == (searched / "splits.csv").read_text()
    assert SHARED in json.loads((searched / "run.json").read_text())["notes"]


@pytest.fixture(scope="module")
def crossed(doubled: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A table with splits of its own, in which one picture stands in training and test."""
    table = open_cohort(doubled, positive="tumour").table
    number = np.arange(len(table)) % 10
    split = np.select([number < 6, number < 8], ["train", "validation"], "test")
    table = table.assign(split=split)[~table["id"].str.contains("copy|blank")]
    extra = table[table["split"] == "train"].head(1).assign(id="again", split="test")
    file = tmp_path_factory.mktemp("crossed") / "table.csv"
    pd.concat([table, extra])[["id", "path", "label", "split"]].to_csv(file, index=False)
    return file


def test_splits_of_the_data_that_part_a_picture_are_refused(crossed: Path, tmp_path: Path) -> None:
    """By `train` and by the search alike, unless it is allowed, on record."""
    assert [finding.name for finding in check(crossed).errors] == ["copies-across-splits"]
    for verb in (partial(train, changes=TINY), tune):
        with pytest.raises(DataError, match="--allow copies-across-splits"):
            verb(crossed, out=tmp_path)
    assert not list(tmp_path.iterdir())


def test_what_a_search_was_allowed_is_on_record(crossed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In the command and among the notes."""
    monkeypatch.setattr(tuning, "_carry_out", lambda whole, *_: whole.run.folder)
    assert command(["tune", str(crossed), "-o", str(tmp_path), "--allow", "copies-across-splits"]) == 0
    (folder,) = tmp_path.iterdir()
    record = json.loads((folder / "run.json").read_text())
    assert "--allow copies-across-splits" in record["command"]
    assert any("which is allowed" in note for note in record["notes"])
