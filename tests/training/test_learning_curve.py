"""Learning curves: nested parts, fixed test images, resumption, and what the report says."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import roc_auc_score

from tests.conftest import SMALL, renew_no_part
from tumortrace import learning_curve
from tumortrace.cli.main import run as tumortrace
from tumortrace.errors import RunError, SplitError
from tumortrace.records.plans import LearningCurveRecord
from tumortrace.reports.learning_curve import curve_verdict
from tumortrace.training import train as training
from tumortrace.training.learning_curve import nested_subsets, parse_fractions

pytestmark = [pytest.mark.painted, pytest.mark.usefixtures("few_replicates")]

SHARES = [0.2, 0.5, 1.0]


@pytest.fixture(scope="module")
def folder(tissue: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A learning curve of three models, interrupted before the second and gone on with."""
    out, calls = tmp_path_factory.mktemp("curve"), []

    def interrupted(*arguments: object, **options: object) -> Path:
        calls.append(1)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return train(*arguments, **options)  # type: ignore[arg-type]

    train = training.fit
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(training, "fit", interrupted)
        patch.setattr("tumortrace.training.experiment.renew_report", renew_no_part)
        with pytest.raises(RunError, match=r"interrupted.*train --resume"):
            learning_curve(tissue, SHARES, repeats=1, changes=[*SMALL, "epochs=1"], out=out, seed=4)
        (folder,) = out.iterdir()
        assert json.loads((folder / "run.json").read_text())["status"] == "interrupted"
        assert tumortrace(["train", "--resume", str(folder)]) == 0
    assert len(calls) == 4  # the first model was not trained again
    return folder


def splits_of(folder: Path) -> list[pd.DataFrame]:
    rows = json.loads((folder / "learning_curve.json").read_text())["runs"]
    return [pd.read_csv(folder / row["run"] / "splits.csv", dtype=str) for row in rows]


def test_only_training_grows(folder: Path) -> None:
    """Training images are nested and of whole slides; validation, calibration and test are the same in every run."""
    tables = splits_of(folder)
    assert len(tables) == len(SHARES)
    whole = pd.read_csv(folder / "splits.csv", dtype=str)
    sizes_of_groups = whole.groupby("group").size()
    training = [table[table["split"] == "train"] for table in tables]
    for small, large in pairwise(training):
        assert set(small["id"]) < set(large["id"])
    for table, own in zip(tables, training, strict=True):
        assert (own.groupby("group").size() == sizes_of_groups[own["group"].unique()]).all()
        rest, expected = table[table["split"] != "train"], whole[whole["split"] != "train"]
        assert set(zip(rest["id"], rest["split"], strict=True)) == set(
            zip(expected["id"], expected["split"], strict=True)
        )
    assert len(training[-1]) == (whole["split"] == "train").sum()


def test_numbers_are_those_of_the_runs(folder: Path) -> None:
    """AUROC of each run is scikit-learn's from its own predictions; the mean of one repeat is that, without spread."""
    outcome = json.loads((folder / "learning_curve.json").read_text())
    table = pd.read_csv(folder / "learning_curve.csv")
    for row, flat, size in zip(outcome["runs"], table.to_dict("records"), outcome["sizes"], strict=True):
        predictions = pd.read_csv(folder / row["run"] / "predictions.csv").query("split == 'test'")
        expected = roc_auc_score(predictions["label"], predictions["probability"])
        assert row["metrics"]["auroc"]["value"] == pytest.approx(expected)
        assert flat["auroc"] == pytest.approx(expected)
        assert flat["auroc_low"] <= flat["auroc"] <= flat["auroc_high"]
        assert size["metrics"]["auroc"] == {"mean": pytest.approx(expected), "sd": None, "n": 1}
        assert not (folder / row["run"] / "checkpoints").exists()
    ahead = outcome["law"]["ahead"]
    assert [one["images"] / ahead[0]["images"] for one in ahead] == [1, 2, 4]


def test_the_report_calls_an_extrapolation_one(folder: Path) -> None:
    """Its figures are there, and it says what it does not know."""
    text = (folder / "report.html").read_text()
    assert "an extrapolation, not a measurement" in text
    assert 'class="callout good">Leakage: ruled out' in text
    assert "Research use only" in text
    assert sorted(path.stem for path in (folder / "figures").glob("*.svg")) == [
        "accuracy", "auroc", "average_precision", "ece",
    ]  # fmt: skip


def test_one_model_of_a_size_has_no_range(folder: Path) -> None:
    """Nothing is concluded from a curve without repeats."""
    outcome = json.loads((folder / "learning_curve.json").read_text())
    assert all(one["range95"] is None for one in outcome["law"]["curve"])
    assert "nothing is concluded" in (folder / "report.html").read_text()


@pytest.mark.parametrize(
    ("range95", "conclusion"),
    [([0.81, 0.9], "would help"), ([0.7, 0.804], "little is to be expected"), ([0.7, 0.9], "cannot be told")],
)
def test_the_conclusion_follows_the_range(range95: list[float], conclusion: str) -> None:
    """More labels help where the whole range lies above what there is, little where its end is near, else unknown."""
    sizes = [{"fraction": 1, "images": n, "metrics": {"auroc": {"mean": 0.8, "sd": 0.01}}} for n in (10, 100, 1000)]
    ends = [(0.8, [0.79, 0.81]), (sum(range95) / 2, range95)]
    ahead = [{"images": 1000, "auroc": auroc, "range95": ends} for auroc, ends in ends]
    law = {"floor": 0, "scale": 1, "exponent": 1, "ahead": ahead}
    outcome = LearningCurveRecord.model_validate({"sizes": sizes, "law": law})
    (said,) = [line for line in curve_verdict(outcome) if "twice the labels" in line]
    assert conclusion in said


def test_a_finished_one_is_left_alone(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Resuming says that there is nothing to do."""
    before = (folder / "learning_curve.json").stat().st_mtime_ns
    assert tumortrace(["train", "--resume", str(folder)]) == 0
    assert "nothing to resume" in capsys.readouterr().err
    assert (folder / "learning_curve.json").stat().st_mtime_ns == before


def test_parts_of_single_images_are_balanced_and_nested() -> None:
    """Without groups, each share has its number of images to one, and the classes' shares to one image."""
    random = np.random.default_rng(0)
    table = pd.DataFrame({"id": [f"{i:04d}" for i in range(997)], "label": random.random(997) < 0.3, "group": None})
    parts = nested_subsets(table.sample(frac=1, random_state=1), [0.01, 0.03, 0.1, 0.3, 1.0], seed=2)
    labels = table.set_index("id")["label"]
    last: set[str] = set()
    for share, ids in parts.items():
        assert abs(len(ids) - share * 997) <= 1
        assert abs(labels[ids].sum() - labels.mean() * len(ids)) <= 1
        assert last <= set(ids)
        last = set(ids)
    assert nested_subsets(table, [0.01, 0.1], seed=2)[0.1] == parts[0.1]  # the order of rows makes no difference
    assert nested_subsets(table, [0.01, 0.1], seed=3)[0.1] != parts[0.1]


def test_whole_groups_and_both_classes() -> None:
    """A part goes on until both classes are there, even where a share would be one group."""
    table = pd.DataFrame({"id": [f"{i:03d}" for i in range(100)], "group": [f"g{i // 10}" for i in range(100)]})
    table["label"] = (table["group"].isin(["g0", "g1"])).astype(int)
    for seed in range(5):
        part = table[table["id"].isin(nested_subsets(table, [0.01, 1.0], seed)[0.01])]
        assert set(part["label"]) == {0, 1}
        assert (part.groupby("group").size() == 10).all()


@pytest.mark.parametrize("text", ["1%,x", "10%", "0%,50%", "50%,200%", ""])
def test_shares_that_are_none_are_refused(text: str) -> None:
    """In one line that shows how to write them."""
    with pytest.raises(SplitError, match=r"1%,10%,100%"):
        parse_fractions(text)


def test_fractions_do_not_go_with_members(tissue: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """One line, nothing trained."""
    assert tumortrace(["train", str(tissue), "--fractions", "10%,100%", "--members", "2"]) == 1
    assert "leave the others out" in capsys.readouterr().err
