"""Comparison of runs: the same images or a refusal with counts, and numbers that other tools give too."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy.stats import binomtest
from sklearn.metrics import accuracy_score, roc_auc_score

from tumortrace.errors import RunError
from tumortrace.evaluation.comparisons import delong
from tumortrace.inference.compare import compare, read_tested

pytestmark = pytest.mark.painted

N = 80


def predictions(seed: int, skill: float = 1.0, cut: float = 0.5, grouped: bool = True) -> pd.DataFrame:
    """A run's table: 20 validation and 60 test images of ten slides each; labels do not depend on the seed."""
    label = np.random.default_rng(0).integers(0, 2, N)
    probability = 1 / (1 + np.exp(-np.random.default_rng(seed).normal(skill * (2 * label - 1), 1)))
    table = pd.DataFrame({"id": [f"{row:03}" for row in range(N)], "label": label, "probability": probability})
    table.insert(1, "group", [f"s{row % 10}" if grouped else None for row in range(N)])
    table.insert(2, "split", ["validation"] * 20 + ["test"] * (N - 20))
    prediction = (probability >= cut).astype(int)
    return table.assign(prediction=prediction, decision=np.where(prediction, "positive", "negative"))


def made_run(folder: Path, table: pd.DataFrame, cut: float = 0.5, **record: object) -> Path:
    folder.mkdir(parents=True)
    metrics = {split: {"threshold": cut} for split in table["split"].unique()} if "split" in table else {}
    about = {"verb": "train", "name": folder.name, "data": {"fingerprint": "f"}} | record
    (folder / "run.json").write_text(json.dumps(about))
    (folder / "metrics.json").write_text(json.dumps(metrics))
    table.to_csv(folder / "predictions.csv", index=False)
    return folder


@pytest.fixture
def runs(tmp_path: Path) -> list[Path]:
    tables = {"first": predictions(1), "second": predictions(2, 0.6, 0.4).sample(frac=1, random_state=1)}
    return [made_run(tmp_path / name, t, c) for (name, t), c in zip(tables.items(), (0.5, 0.4), strict=True)]


def outcome(folder: Path) -> dict:
    return json.loads((folder / "compare.json").read_text())


def test_numbers_of_the_test_split(runs: list[Path], tmp_path: Path) -> None:
    """Metrics are scikit-learn's on the test rows, in whatever order; both tests are there, corrected over both."""
    folder = compare(runs, out=tmp_path / "out", replicates=30)
    found = outcome(folder)
    one, two = (pd.read_csv(run / "predictions.csv").query("split == 'test'").sort_values("id") for run in runs)
    for described, table in zip(found["runs"], (one, two), strict=True):
        auroc = roc_auc_score(table["label"], table["probability"])
        assert described["metrics"]["auroc"]["value"] == pytest.approx(auroc)
        right = accuracy_score(table["label"], table["prediction"])
        assert described["metrics"]["accuracy"]["value"] == pytest.approx(right)
        assert described["split"] == "test"
    assert [described["metrics"]["threshold"] for described in found["runs"]] == [0.5, 0.4]
    (pair,) = found["differences"]
    gained = roc_auc_score(two["label"], two["probability"]) - roc_auc_score(one["label"], one["probability"])
    assert pair["metrics"]["auroc"]["value"] == pytest.approx(gained)
    group = one["group"].to_numpy()
    expected = delong(one["label"], one["probability"], two["probability"], group)
    assert pair["delong"]["p"] == pytest.approx(expected.p)
    small, large = sorted(pair[name]["p"] for name in ("delong", "mcnemar"))
    assert sorted(pair[name]["p_holm"] for name in ("delong", "mcnemar")) == pytest.approx(
        [min(1, 2 * small), max(min(1, 2 * small), large)]
    )
    assert (found["images"], found["groups"]) == (60, 10)
    assert "whole groups" in found["method"]["differences"]
    assert set(pd.read_csv(folder / "predictions.csv")["run"]) == {"first", "second"}


def test_without_groups_images_are_independent_and_it_is_said(tmp_path: Path) -> None:
    """McNemar's p-value is the binomial one, and a note says what groups would change."""
    tables = [predictions(seed, grouped=False) for seed in (1, 2)]
    runs = [made_run(tmp_path / str(place), table) for place, table in enumerate(tables)]
    found = outcome(compare(runs, out=tmp_path / "out", replicates=10))
    right = [(table["prediction"] == table["label"])[20:] for table in tables]
    alone = int((right[0] & ~right[1]).sum()), int((right[1] & ~right[0]).sum())
    test = found["differences"][0]["mcnemar"]
    assert (test["only_first"], test["only_second"]) == alone
    assert test["p"] == pytest.approx(binomtest(alone[0], sum(alone)).pvalue)
    assert any("p-values are too small" in note for note in found["notes"])
    assert found["groups"] is None


def test_the_report_shows_the_records(runs: list[Path], tmp_path: Path) -> None:
    """compare.html holds every run's AUROC and p-values, three figures, and the warning on its use."""
    folder = compare(runs, out=tmp_path / "out", replicates=10)
    page, found = (folder / "compare.html").read_text(), outcome(folder)
    for described in found["runs"]:
        assert f"{described['metrics']['auroc']['value']:.3f}"[1:] in page
    assert page.count("data:image/svg+xml") == 3
    assert "second minus first" in page
    assert "Research use only" in page
    assert {path.name for path in (folder / "figures").glob("*.svg")} == {"auroc.svg", "differences.svg", "roc.svg"}


def test_other_images_are_refused_with_counts(runs: list[Path], tmp_path: Path) -> None:
    """Runs on other test images, or other labels, are refused; the message says how many, and nothing is written."""
    other = predictions(3)
    other["split"] = ["test"] * 20 + ["validation"] * 20 + ["test"] * (N - 40)
    with pytest.raises(RunError, match="40 were tested by both, 20 by first alone, 20 by other alone"):
        compare([runs[0], made_run(tmp_path / "other", other)], out=tmp_path / "out")
    flipped = predictions(3).assign(label=lambda table: 1 - table["label"])
    with pytest.raises(RunError, match="60 of 60 images have another label"):
        compare([runs[0], made_run(tmp_path / "flipped", flipped)], out=tmp_path / "out")
    validated = predictions(4).query("split == 'test'").assign(split="validation")
    with pytest.raises(RunError, match="validation images, against test images"):
        compare([runs[0], made_run(tmp_path / "validated", validated)], out=tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_what_is_no_run_is_refused(runs: list[Path], tmp_path: Path) -> None:
    """One run, the same twice, a folder without records, predictions without ids, or ids that come twice."""
    for wrong, message in (([runs[0]], "at least two"), ([runs[0], runs[0]], "same folder twice")):
        with pytest.raises(RunError, match=message):
            compare(wrong)
    with pytest.raises(RunError, match="no records"):
        compare([runs[0], tmp_path])
    anonymous = made_run(tmp_path / "anonymous", predictions(1).drop(columns="id"))
    with pytest.raises(RunError, match="no labelled predictions with ids"):
        compare([runs[0], anonymous])
    twice = made_run(tmp_path / "twice", pd.concat([predictions(1), predictions(1)]))
    with pytest.raises(RunError, match="two predictions of 020"):
        compare([runs[0], twice])


def test_an_evaluation_is_named_after_its_model(runs: list[Path], tmp_path: Path) -> None:
    """The folder of an evaluation, without calls, is called at its recorded threshold; same names are told apart."""
    folder = tmp_path / "evaluations" / "new"
    table = predictions(5).query("split == 'test'").drop(columns=["prediction", "decision"])
    made_run(folder, table, cut=0.3)
    (folder / "run.json").unlink()
    about = {"verb": "evaluate", "model": {"name": "first"}, "data": {"fingerprint": "other"}}
    (folder / "evaluation.json").write_text(json.dumps(about))
    entries = read_tested([runs[0], folder])
    assert [entry.name for entry in entries] == [f"first ({runs[0].as_posix()})", f"first ({folder.as_posix()})"]
    assert (entries[1].table["prediction"] == (entries[1].table["probability"] >= 0.3)).all()
    found = outcome(compare([runs[0], folder], out=tmp_path / "out", replicates=10))
    assert any("fingerprints differ" in note for note in found["notes"])


def test_recipes_of_a_cross_validation_are_compared_out_of_fold(tmp_path: Path) -> None:
    """Each recipe is a set of predictions of its own; repeats of an image are drawn and tested together."""
    parts = []
    for seed, (recipe, repeat) in enumerate([("a", 1), ("a", 2), ("b", 1), ("b", 2)]):
        part = predictions(seed, grouped=False).drop(columns="split")
        parts.append(part.assign(recipe=recipe, repeat=repeat, fold=np.arange(N) % 4 + 1))
    folder = made_run(tmp_path / "crossval", pd.concat(parts), verb="crossval")
    found = outcome(compare([folder], out=tmp_path / "out", replicates=20))
    assert [run["name"] for run in found["runs"]] == ["a", "b"]
    assert found["images"] == N
    assert found["runs"][0]["split"] == "out-of-fold"
    a, b = (pd.concat(part) for part in (parts[:2], parts[2:]))
    grouped = delong(a["label"], a["probability"], b["probability"], a["id"])
    assert found["differences"][0]["delong"]["p"] == pytest.approx(grouped.p)
    assert "by fold" in (tmp_path / "out" / "compare.html").read_text()
