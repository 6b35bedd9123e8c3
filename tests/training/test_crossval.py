"""Cross-validation: fresh models, no fold learnt from, resumed by fold and within a fold, and what the report says."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from tests.conftest import SMALL, renew_no_part
from tumortrace import load_model, load_recipe, open_cohort, synthesise
from tumortrace.cohorts import material
from tumortrace.cohorts.cohort import Cohort
from tumortrace.cohorts.seen import digests, read_seen
from tumortrace.cohorts.store import open_store
from tumortrace.errors import RecipeError, RunError, SplitError
from tumortrace.evaluation import folds
from tumortrace.evaluation.intervals import evaluate_calls
from tumortrace.models.architecture import build_network
from tumortrace.records.run import Run
from tumortrace.reports import crossval as report
from tumortrace.reports.drawing import Drawn
from tumortrace.training import crossval as module
from tumortrace.training import experiment
from tumortrace.training.crossval import crossval, resume_crossval
from tumortrace.training.gradient import GradientLearner
from tumortrace.training.learner import seed_everything

pytestmark = pytest.mark.painted

TINY = (*SMALL, "epochs=1", "model.arguments={stem: 4, widths: [4], depths: [1], dropout: 0.2}")


@pytest.fixture(scope="module", autouse=True)
def _quick(few_replicates: None) -> Iterator[None]:
    """Folds' own reports, which other tests look at, are left out for time, and the bootstrap is short."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(folds, "evaluate_calls", lambda table, **_: evaluate_calls(table, replicates=20))
        patch.setattr(experiment, "renew_report", renew_no_part)
        yield


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return synthesise("patches", tmp_path_factory.mktemp("folds") / "patches", count=160, seed=4)


@pytest.fixture(scope="module")
def slower(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A recipe of one's own beside the shipped one."""
    recipe = load_recipe("tumortrace", ["optimiser.lr=0.0001"]).model_copy(update={"name": "slower"})
    file = tmp_path_factory.mktemp("recipes") / "mine.yaml"
    file.write_text(recipe.to_yaml())
    return file


@pytest.fixture(scope="module")
def done(data: Path, slower: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[dict[str, Any]]]:
    """A finished cross-validation of two recipes, and what each trainer began and ended with."""
    began: list[dict[str, Any]] = []
    patch = pytest.MonkeyPatch()
    original, fit = GradientLearner.__init__, GradientLearner.fit

    def watched(self: GradientLearner, *args: Any, **options: Any) -> None:
        original(self, *args, **options)
        copy = {name: value.clone() for name, value in self.network.state_dict().items()}
        began.append({"seed": self.task.seed, "size": self.input_size, "weights": copy, "recipe": self.recipe})

    def finished(self: GradientLearner, *args: Any, **options: Any) -> Any:
        progress = fit(self, *args, **options)
        began[-1]["end"] = {name: value.clone() for name, value in self.network.state_dict().items()}
        return progress

    patch.setattr(GradientLearner, "__init__", watched)
    patch.setattr(GradientLearner, "fit", finished)
    out, calls = tmp_path_factory.mktemp("runs"), list[str]()
    for name in ("open_cohort", "check"):
        patch.setattr(material, name, counted(getattr(material, name), calls))
    folder = crossval(data, recipe=["tumortrace", slower], folds=2, changes=TINY, out=out, seed=5)
    patch.undo()
    assert sorted(calls) == ["check", "open_cohort"], "data are opened and audited once for all folds and recipes"
    return folder, began


def counted(function: Any, calls: list[str]) -> Any:
    """The function, which tells its name to `calls` each time."""

    def told(*args: Any, **options: Any) -> Any:
        calls.append(function.__name__)
        return function(*args, **options)

    return told


def read(folder: Path) -> pd.DataFrame:
    return pd.read_csv(folder / "predictions.csv", dtype={"id": str, "group": str})


def flat(weights: dict[str, torch.Tensor]) -> torch.Tensor:
    return torch.cat([value.flatten().float() for name, value in sorted(weights.items()) if "weight" in name])


def test_every_image_is_tested_once_by_a_model_that_never_saw_it(
    data: Path, done: tuple[Path, list[dict[str, Any]]]
) -> None:
    """Per recipe each image comes once; its digest is in no seen.csv of its fold, and no slide is on both sides."""
    folder, _ = done
    cohort = open_cohort(data)
    digest = dict(zip(cohort.table["id"], digests(open_store(cohort).images, np.arange(len(cohort))), strict=True))
    table = read(folder)
    assert len(table) == 2 * len(cohort)
    outcome = json.loads((folder / "crossval.json").read_text())
    for name, recipe in outcome["recipes"].items():
        own = table[table["recipe"] == name]
        assert sorted(own["id"]) == sorted(cohort.table["id"])
        for fold in recipe["folds"]:
            tested = own[own["fold"] == fold["fold"]]
            seen = read_seen(folder / fold["run"] / "seen.csv")
            assert len(seen) == len(cohort) - len(tested)
            assert not {digest[image] for image in tested["id"]} & set(seen)
            splits = pd.read_csv(folder / fold["run"] / "splits.csv", dtype=str)
            assert splits.groupby("group")["split"].nunique().max() == 1
            assert fold["groups_shared"] == 0
    assert outcome["groups_on_both_sides"] == outcome["copies"] == 0
    assert json.loads((folder / "run.json").read_text())["leakage"].startswith("ruled out")


def test_every_fold_begins_with_a_fresh_model(done: tuple[Path, list[dict[str, Any]]]) -> None:
    """Each starts from weights that its own seed alone makes, unlike any other fold's first or last weights."""
    _, began = done
    assert len(began) == 4
    for number, run in enumerate(began):
        seed_everything(run["seed"])
        model = run["recipe"].model
        fresh = build_network(model.name, run["size"], model.arguments).state_dict()
        assert all(torch.equal(value, run["weights"][name]) for name, value in fresh.items())
        for other in began[:number]:
            assert not torch.equal(flat(run["weights"]), flat(other["end"]))
            same_fold = run["seed"] == other["seed"]  # two recipes
            assert torch.equal(flat(run["weights"]), flat(other["weights"])) == same_fold
    assert len({run["seed"] for run in began}) == 2


def test_folds_are_ordinary_runs_without_checkpoints(done: tuple[Path, list[dict[str, Any]]]) -> None:
    """Each fold's folder is a finished run with a bundle that loads; its checkpoints are gone."""
    folder, _ = done
    for recipe in json.loads((folder / "crossval.json").read_text())["recipes"].values():
        for fold in recipe["folds"]:
            run = Run(folder / fold["run"])
            assert run.record.status == "finished"
            assert run.record.seed == fold["seed"]
            assert not run.checkpoints.exists()
            assert load_model(run.folder).info.threshold == fold["threshold"]
            tested = read(folder).query("recipe == @run.folder.parts[-3] and fold == @fold['fold']")
            assert (tested["prediction"] == (tested["probability"] >= fold["threshold"])).all()


def test_the_report_says_what_the_records_say(done: tuple[Path, list[dict[str, Any]]]) -> None:
    """Both recipes' means, the comparison and the figures are in report.html, and run.json names the command."""
    folder, _ = done
    page = (folder / "report.html").read_text()
    outcome = json.loads((folder / "crossval.json").read_text())
    for recipe in outcome["recipes"].values():
        assert f"{recipe['summary']['auroc']['mean']:.3f}"[1:] in page
    for name, recipe in outcome["recipes"].items():  # each fold's metrics beside the intervals of its own run
        for fold in recipe["folds"]:
            low, high = json.loads((folder / fold["run"] / "metrics.json").read_text())["test"]["auroc"]["ci95"]
            cell = f"{shown(fold['auroc'])}<small>[{shown(low)}, {shown(high)}]</small>"
            assert cell in page, name
    assert "slower minus tumortrace" in page
    assert "Holm" in page
    assert "Research use only" in page
    assert {path.stem for path in (folder / "figures").glob("*.svg")} == {"recipes", "learning_curves", "roc"}
    assert page.count("data:image/svg+xml") == 3
    record = json.loads((folder / "run.json").read_text())
    assert record["status"] == "finished"
    assert "--folds 2" in record["command"]
    kept = [json.loads((part / "run.json").read_text())["audit"] for part in folder.glob("folds/*/*/*")]
    assert len(kept) == 4
    assert all(audit == record["audit"] for audit in kept), "the audit and what was allowed stand in every record"


def shown(value: float) -> str:
    """At three decimals, without the zero before the point."""
    return f"{value:.3f}".removeprefix("0")


def test_interrupted_and_resumed_it_ends_the_same(
    data: Path, done: tuple[Path, list[dict[str, Any]]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stopped in the second fold and resumed, the first fold stays and predictions are those of an undisturbed one."""
    original, calls = GradientLearner.fit, []

    def stops(self: GradientLearner, *args: Any, **options: Any) -> Any:
        calls.append(self.task.seed)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return original(self, *args, **options)

    monkeypatch.setattr(GradientLearner, "fit", stops)
    monkeypatch.setattr(report, "draw_figures", lambda *_: Drawn())
    with pytest.raises(RunError, match="crossval --resume"):
        crossval(data, folds=2, changes=TINY, out=tmp_path, seed=5)
    (folder,) = tmp_path.iterdir()
    assert Run(folder).record.status == "interrupted"
    first = folder / "folds" / "tumortrace" / "1-1"
    before = {path: path.stat().st_mtime_ns for path in first.rglob("*")}
    assert resume_crossval(folder) == folder
    assert {path: path.stat().st_mtime_ns for path in first.rglob("*")} == before
    assert calls[1] == calls[2]
    assert len(calls) == 3
    undisturbed = read(done[0]).query("recipe == 'tumortrace'").reset_index(drop=True)
    pd.testing.assert_frame_equal(read(folder), undisturbed)
    modified = Run(folder).record_file.stat().st_mtime_ns
    assert resume_crossval(folder) == folder
    assert Run(folder).record_file.stat().st_mtime_ns == modified


def test_a_random_split_says_that_it_leaks(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The report counts the slides on both sides, and says that the numbers flatter."""
    monkeypatch.setattr(report, "draw_figures", lambda *_: Drawn())
    folder = crossval(data, folds=2, changes=TINY, out=tmp_path, split="random")
    table = pd.read_csv(folder / "folds.csv", dtype=str)
    shared = int(table.drop_duplicates(["group", "fold"])["group"].value_counts().gt(1).sum())
    assert shared > 0
    page = " ".join((folder / "report.html").read_text().split())
    assert f"{shared} of {table['group'].nunique()} groups stand on both sides" in page
    assert "flatter" in page
    assert Run(folder).record.leakage.startswith("present")


def labelled(data: Path) -> Cohort:
    cohort = open_cohort(data)
    groups = sorted(cohort.table["group"].unique())
    split = np.where(cohort.table["group"].isin(groups[:2]), "test", "train")
    return replace(cohort, table=cohort.table.assign(split=split))


def test_splits_of_the_data_are_ignored_aloud_or_kept(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """By default every image is in a fold, and a note says so; --keep-test leaves the test images out."""
    monkeypatch.setattr(module, "_carry_out", lambda experiment, _: experiment.run.folder)
    cohort = labelled(data)
    folder = crossval(cohort, folds=2, out=tmp_path)
    assert "which are ignored" in capsys.readouterr().err
    assert set(pd.read_csv(folder / "folds.csv")["id"]) == set(cohort.table["id"])
    kept = crossval(cohort, folds=2, out=tmp_path, keep_test=True)
    assert set(pd.read_csv(kept / "folds.csv")["id"]) == set(cohort.table.loc[cohort.table["split"] == "train", "id"])


def test_refused_before_anything_is_trained(data: Path, slower: Path, tmp_path: Path) -> None:
    """Too many folds, recipes of one name, an unknown split, a missing test split, and a folder of another verb."""
    with pytest.raises(SplitError, match="99 folds"):
        crossval(data, folds=99, out=tmp_path)
    with pytest.raises(RecipeError, match="different names"):
        crossval(data, recipe=["tumortrace", "tumortrace"], out=tmp_path)
    with pytest.raises(SplitError, match="halves"):
        crossval(data, split="halves", out=tmp_path)
    with pytest.raises(SplitError, match="no test split"):
        crossval(data, keep_test=True, out=tmp_path)
    one_class = open_cohort(data)
    few = one_class.table[
        (one_class.table["label"] == 0) | (one_class.table["group"] == one_class.table["group"].iloc[0])
    ]
    with pytest.raises(SplitError):
        crossval(replace(one_class, table=few), folds=2, out=tmp_path)
    assert not list(tmp_path.iterdir())
    (tmp_path / "run.json").write_text('{"verb": "train", "status": "finished"}')
    with pytest.raises(RunError, match="expected a folder of `crossval`"):
        resume_crossval(tmp_path)
