"""A search over recipes: every trial on record, none lost to a kill, none trained or judged on the wrong images."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import pandas as pd
import pytest
import yaml
from sklearn.metrics import roc_auc_score

from tumortrace import open_cohort
from tumortrace.cli.main import run as command
from tumortrace.cohorts.material import Material
from tumortrace.cohorts.splits import Splits
from tumortrace.errors import RecipeError, RunError
from tumortrace.records.run import Run
from tumortrace.training import experiment, trial
from tumortrace.training import gradient as fit
from tumortrace.training import train as training
from tumortrace.training import tune as tuning
from tumortrace.training.experiment import Experiment
from tumortrace.training.gradient import GradientLearner
from tumortrace.training.recipe import load_recipe
from tumortrace.training.space import Space, parse_space
from tumortrace.training.study import MOST_INTERRUPTIONS, claimed, count, fail, open_study, state, trials_table
from tumortrace.training.study_place import FolderPlace
from tumortrace.training.task import Task
from tumortrace.training.tune import resume_tuning, tune

pytestmark = pytest.mark.painted

BASE: dict[str, Any] = {
    "name": "base",
    "description": "A network that trains in a moment.",
    "preprocessing": {"size": 20},
    "model": {"name": "plain-cnn", "arguments": {"blocks": [4], "head": [{"dense": 8}]}},
    "epochs": 3,
    "batch_size": 16,
    "optimiser": {"name": "adam", "lr": 0.001},
    "splits": {"train": 0.5, "validation": 0.25, "calibration": 0.125, "test": 0.125},
}
PARAMETERS: dict[str, Any] = {
    "model.arguments.blocks": {
        "list": [1, 2],
        "of": {"channels": {"choice": [4, 8]}, "kernel": {"choice": [3, 5]}, "convolutions": 1, "pool": True},
    },
    "model.arguments.head.0.dense": {"int": [8, 16, 8]},
    "optimiser.lr": {"float": [0.001, 0.03], "log": True},
}

# The process ends without warning after a checkpoint, before anything else is told of the epoch.
KILLED = """
import os, sys
from tumortrace.training import experiment, trial
from tumortrace.training import gradient as fit
save, calls = fit.save_checkpoint, []
def save_and_die(*arguments):
    save(*arguments)
    calls.append(1)
    if len(calls) == int(sys.argv[4]):
        os._exit(9)
fit.save_checkpoint = save_and_die
from tumortrace.training.tune import tune
tune(sys.argv[1], space=sys.argv[2], out=sys.argv[3])
"""
# A process that joins, and goes on to a second trial only when another process has begun one.
JOIN = """
import sys, time
from pathlib import Path
from tumortrace.training import tune
attempt = tune.attempt
def attempt_and_wait(search, trial):
    attempt(search, trial)
    for _ in range(30_000):
        if Path(sys.argv[1], "trials", "0001").exists():
            break
        time.sleep(0.01)
tune.attempt = attempt_and_wait
tune.resume_tuning(sys.argv[1])
"""


def small_space(folder: Path, **changes: Any) -> Path:
    """The file of a space of four trials of two epochs; both it and its recipe lie in `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "base.yaml").write_text(yaml.safe_dump(BASE))
    document = {
        "name": "small",
        "description": "d",
        "recipe": str(folder / "base.yaml"),
        "trials": 4,
        "epochs": 2,
        "objective": {"metric": "auroc"},
        "sampler": {"startup": 2},
        "parameters": PARAMETERS,
    }
    (folder / "small.yaml").write_text(yaml.safe_dump(document | changes))
    return folder / "small.yaml"


def table(study: Path) -> pd.DataFrame:
    return pd.read_csv(study / "trials.csv")


def results(study: Path) -> str:
    """All that must not depend on kills: draws, values, and what was learnt."""
    trials = table(study).drop(columns=["seconds", "interruptions"])
    histories = [
        pd.read_csv(study / "trials" / f"{number:04}" / "history.csv").drop(columns="seconds").to_csv()
        for number in trials["number"]
    ]
    best = yaml.safe_load((study / "best.yaml").read_text()) | {"source": None}
    return "\n".join([trials.to_csv(), *histories, str(best)])


@contextmanager
def interrupted() -> Iterator[None]:
    """Within this, Ctrl-C comes when a trial first writes a checkpoint."""

    def interrupt(*_: Any) -> None:
        raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fit, "save_checkpoint", interrupt)
        yield


class Watched(GradientLearner):
    """Remembers the rows of the images that trials have trained on and have been judged on."""

    rows: ClassVar[list[tuple[list[int], list[int]]]] = []

    def __init__(self, task: Task) -> None:
        self.rows.append((task.training.rows.tolist(), task.validation.rows.tolist()))
        super().__init__(task)


@pytest.fixture(scope="module")
def space_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_space(tmp_path_factory.mktemp("space"))


@pytest.fixture(scope="module")
def study(tissue: Path, space_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished search. Tests must not write into it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(trial, "GradientLearner", Watched)
        return tune(tissue, space=space_file, out=tmp_path_factory.mktemp("studies"))


@pytest.fixture(autouse=True)
def without_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave the report, which the study above has whole, as an empty file."""
    monkeypatch.setattr(experiment, "renew_report", lambda folder: (folder / "report.html").write_text(""))


def test_every_trial_is_on_record(study: Path) -> None:
    """Four trials, each with its recipe and history; values are those of the epoch kept; one checkpoint remains."""
    trials = table(study)
    assert trials["number"].tolist() == [0, 1, 2, 3]
    assert trials["state"].isin(["finished", "pruned"]).all()
    assert trials["seed"].nunique() == 4
    for row in trials.to_dict("records"):
        folder = study / "trials" / f"{row['number']:04}"
        history = pd.read_csv(folder / "history.csv")
        epoch = row["best_epoch"] if row["state"] == "finished" else row["epochs"]
        assert row["value"] == history["validation_auroc"][epoch - 1]
        assert row["epochs"] == len(history)
        recipe = load_recipe(folder / "recipe.yaml")
        assert recipe.optimiser.lr == row["optimiser.lr"]
        assert len(recipe.model.arguments["blocks"]) == row["model.arguments.blocks.length"]
        assert recipe.stopping.metric == "auroc"
    finished = trials[trials["state"] == "finished"]
    best = int(finished.loc[finished["value"].idxmax(), "number"])
    record = json.loads((study / "run.json").read_text())
    assert (record["verb"], record["status"], record["best_trial"]) == ("tune", "finished", best)
    assert [path.parent.name for path in study.glob("trials/*/checkpoints")] == [f"{best:04}"]
    for name in ("space.yaml", "recipe.yaml", "splits.csv", "study.db", "study.json", "metrics.json", "report.html"):
        assert (study / name).stat().st_size > 0, name
    assert not list(study.rglob("*.tmp"))


def test_validation_is_disjoint_and_the_other_splits_are_not_looked_at(tissue: Path, study: Path) -> None:
    """No slide stands in two splits; trials train on training images and are judged on validation images alone."""
    splits = pd.read_csv(study / "splits.csv", dtype=str)
    assert splits.groupby("group")["split"].nunique().max() == 1
    assert set(splits["split"]) == {"train", "validation", "calibration", "test"}
    validation = set(splits.loc[splits["split"] == "validation", "id"])
    seen = [pd.read_csv(path, dtype={"id": str}) for path in study.glob("trials/*/predictions.csv")]
    assert seen
    assert all(set(part["id"]) == validation for part in seen)
    assert set(json.loads((study / "metrics.json").read_text())) == {"validation"}
    ids = open_cohort(tissue).table["id"]
    expected = [sorted(splits.loc[splits["split"] == name, "id"]) for name in ("train", "validation")]
    assert len(Watched.rows) == 4
    for rows in Watched.rows:
        assert [sorted(ids.iloc[part]) for part in rows] == expected


def test_the_best_value_has_an_interval_by_group(study: Path) -> None:
    """metrics.json is the best trial's, agrees with scikit-learn and the search, and has bootstrapped whole slides."""
    record = json.loads((study / "study.json").read_text())
    part = pd.read_csv(study / "trials" / f"{record['best']['number']:04}" / "predictions.csv")
    measured = json.loads((study / "metrics.json").read_text())["validation"]
    assert measured["auroc"]["value"] == pytest.approx(roc_auc_score(part["label"], part["probability"]), abs=1e-12)
    assert measured["auroc"]["value"] == pytest.approx(record["best"]["value"], abs=1e-12)
    assert measured["n_groups"] == part["group"].nunique() >= 2
    assert "draws whole groups" in measured["intervals"]
    low, high = measured["auroc"]["ci95"]
    assert low <= measured["auroc"]["value"] <= high


def test_the_best_recipe_trains(tissue: Path, study: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`train` takes best.yaml, and on the study's split seed judges it on images that the search has not seen."""
    recipe = load_recipe(study / "best.yaml")
    number = json.loads((study / "study.json").read_text())["best"]["number"]
    tried = load_recipe(study / "trials" / f"{number:04}" / "recipe.yaml")
    assert (recipe.model, recipe.optimiser) == (tried.model, tried.optimiser)
    assert recipe.source == f"study {study.name}, trial {number}, from recipe base"
    monkeypatch.setattr(experiment, "renew_report", lambda folder: None)
    run = training.train(tissue, recipe=study / "best.yaml", epochs=1, split_seed=0, seed=5, out=tmp_path)
    assert (run / "splits.csv").read_text() == (study / "splits.csv").read_text()
    assert "--split-seed 0" in json.loads((study / "study.json").read_text())["train_command"]


def test_killed_in_the_middle_of_a_trial_and_resumed(
    tissue: Path, space_file: Path, study: Path, tmp_path: Path
) -> None:
    """Killed without warning within a trial, then interrupted, then resumed: the same trials with the same results."""
    program = [sys.executable, "-c", KILLED, str(tissue), str(space_file), str(tmp_path), "7"]
    assert subprocess.run(program, env=os.environ, stderr=subprocess.DEVNULL, check=False).returncode == 9
    (folder,) = tmp_path.iterdir()
    assert json.loads((folder / "run.json").read_text())["status"] == "running"
    begun = count(open_study(FolderPlace(folder), parse_space(yaml.safe_load(space_file.read_text()), ""), 0, 2))
    assert begun["unfinished"] == 1
    assert begun["finished"] + begun["pruned"] < 3

    with interrupted(), pytest.raises(RunError, match="tune --resume"):
        resume_tuning(folder)
    assert json.loads((folder / "run.json").read_text())["status"] == "interrupted"
    resume_tuning(folder)
    assert results(folder) == results(study)
    assert table(folder)["interruptions"].sum() == 2


def test_the_seed_decides(tissue: Path, space_file: Path, study: Path, tmp_path: Path) -> None:
    """The same seed gives the same trials, another seed others."""
    assert results(tune(tissue, space=space_file, out=tmp_path / "same")) == results(study)
    space = parse_space(yaml.safe_load(space_file.read_text()), "test")
    other = space.suggest(open_study(FolderPlace(tmp_path), space, 1, 2).ask())
    assert other["optimiser.lr"] != table(study)["optimiser.lr"][0]


def test_two_processes_share_one_study(
    tissue: Path, space_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Two processes work on one folder at once: each trial is done by one of them, none is missing or done twice."""
    with interrupted(), pytest.raises(RunError, match="interrupted"):
        tune(tissue, space=space_file, out=tmp_path)
    (folder,) = tmp_path.iterdir()
    capsys.readouterr()
    first = folder / "trials" / "0000" / "history.csv"
    with subprocess.Popen([sys.executable, "-c", JOIN, str(folder)], stderr=subprocess.PIPE, text=True) as other:
        while not first.is_file() and other.poll() is None:
            time.sleep(0.01)  # until the other process is at work on the trial that was left
        resume_tuning(folder)
        assert other.stderr is not None
        theirs = other.stderr.read()
    assert other.returncode == 0, theirs
    ours = capsys.readouterr().err
    told = [
        [int(number) for number in re.findall(r": trial (\d) (?:finished|pruned)", said)] for said in (ours, theirs)
    ]
    assert sorted(told[0] + told[1]) == [0, 1, 2, 3], "each trial is told by the process that did it"
    assert 0 in told[1], "the one that was left is the other's, who was there first"
    assert 1 in told[0], "meanwhile ours has begun the next"
    assert json.loads((folder / "run.json").read_text())["status"] == "finished"
    assert len(table(folder)) == 4
    assert (folder / "report.html").is_file()


def test_what_another_process_has_finished_stays_finished(
    tissue: Path, study: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither a worker that is interrupted or fails after the end, nor one that joins as it comes, undoes it."""
    folder = Path(shutil.copytree(study, tmp_path / study.name))
    run, before = Run(folder), (folder / "run.json").read_text()
    recipe, splits = load_recipe(folder / "recipe.yaml"), Splits(pd.DataFrame(), "")
    whole = Experiment(run, recipe, Material(open_cohort(tissue)), splits)
    for error, raised in ((KeyboardInterrupt(), RunError), (ValueError("late"), ValueError)):
        with pytest.raises(raised), whole.recorded(partial(tuning.study_lock, folder)):
            raise error
    assert (folder / "run.json").read_text() == before
    run.update(status="running")
    locked = tuning.study_lock

    def ends_meanwhile(place: Path) -> object:
        (place / "run.json").write_text(before)  # by the process that had the lock until now
        return locked(place)

    monkeypatch.setattr(tuning, "study_lock", ends_meanwhile)
    monkeypatch.setattr(tuning, "claimed", lambda *_: pytest.fail("there is nothing left to do"))
    assert resume_tuning(folder) == folder
    assert (folder / "run.json").read_text() == before


def test_images_that_the_recipe_leaves_out_are_not_searched_on(
    tissue: Path, space_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As in `train`, so that both have the same splits."""
    monkeypatch.setattr(tuning, "_carry_out", lambda whole, *_: whole.run.folder)
    ids = open_cohort(tissue).table["id"][:7]
    ids.to_frame().to_csv(tmp_path / "quarantine.csv", index=False)
    folder = tune(tissue, space=space_file, changes=[f"leave_out={tmp_path / 'quarantine.csv'}"], out=tmp_path)
    splits = pd.read_csv(folder / "splits.csv", dtype=str)
    assert len(splits) == 393
    assert not set(splits["id"]) & set(ids)
    assert resume_tuning(folder) == folder


def test_networks_that_do_not_fit_fail_and_the_search_goes_on(tissue: Path, tmp_path: Path) -> None:
    """A kernel larger than what is left of an image is a failed trial with the model's line, not one of the four."""
    form = {"list": [1, 2], "of": {"channels": 4, "kernel": {"choice": [3, 15]}, "convolutions": 1, "pool": True}}
    space = small_space(tmp_path, parameters={"model.arguments.blocks": form}, sampler={"name": "random"})
    folder = tune(tissue, space=space, epochs_max=1, objective="loss", out=tmp_path / "runs")
    trials = table(folder)
    failed = trials[trials["state"] == "failed"]
    assert trials["state"].isin(["finished", "pruned"]).sum() == 4
    assert len(failed)
    assert failed["error"].str.contains("leave nothing of an input of 20x20 px").all()
    assert (failed["model.arguments.blocks.length"] == 2).all()
    finished = trials[trials["state"] == "finished"]
    best = json.loads((folder / "study.json").read_text())["best"]
    assert best["value"] == finished["value"].min(), "a loss is minimised"


def test_a_space_of_which_nothing_can_be_built_is_given_up(tissue: Path, tmp_path: Path) -> None:
    """When every network fails, the search ends with one line that holds the model's own."""
    space = small_space(tmp_path, parameters={"model.arguments.kernels": {"choice": [3, 5]}})
    with pytest.raises(RunError, match=r"11 of 11 trials failed, the last with: .*unexpected keyword") as caught:
        tune(tissue, space=space, out=tmp_path / "runs")
    assert "\n" not in str(caught.value)


def test_what_is_set_is_not_searched_over(tissue: Path, space_file: Path, tmp_path: Path) -> None:
    """`--set` of a searched value holds it fixed and says so; epochs have an option of their own."""
    folder = tune(tissue, space=space_file, changes=["optimiser.lr=0.01"], trials=1, epochs_max=1, out=tmp_path)
    assert "optimiser.lr" not in table(folder)
    assert load_recipe(folder / "best.yaml").optimiser.lr == 0.01
    assert any("not searched over" in note for note in json.loads((folder / "run.json").read_text())["notes"])
    with pytest.raises(RecipeError, match="--epochs-max"):
        tune(tissue, space=space_file, changes=["epochs=3"], out=tmp_path)
    probe = parse_space(yaml.safe_load(space_file.read_text()) | {"recipe": "probe"}, "test")
    with pytest.raises(RecipeError, match="not trained in epochs"):
        tune(tissue, space=probe, out=tmp_path)
    with pytest.raises(RecipeError, match=r"objective\.metric"):
        tune(tissue, space=space_file, objective="f2", out=tmp_path)


def test_the_command_line(tissue: Path, study: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Refusals are one line and 1; a finished study has nothing to resume."""
    for call in (["tune"], ["tune", str(tissue), "--space", "none"]):
        assert command(call) == 1
        assert len(capsys.readouterr().err.strip().splitlines()) == 1
    assert command(["tune", str(tissue), "--resume", str(study)]) == 0  # the data may be named, where they were moved
    capsys.readouterr()
    assert command(["tune", "--resume", str(study)]) == 0
    shown = capsys.readouterr()
    assert shown.out.strip() == str(study)
    assert "nothing to resume" in shown.err


@pytest.fixture
def space(tmp_path: Path) -> Space:
    return parse_space(yaml.safe_load(small_space(tmp_path).read_text()), "test")


def test_an_abandoned_trial_is_taken_up_and_a_running_one_is_not(space: Space, tmp_path: Path) -> None:
    """Whoever comes next goes on with a trial whose process has ended, and leaves alone one that is being worked at."""
    study = open_study(FolderPlace(tmp_path), space, 0, 9)
    with claimed(study, FolderPlace(tmp_path), 2) as first, claimed(study, FolderPlace(tmp_path), 2) as second:
        assert first is not None
        assert second is not None
        assert [first.number, second.number] == [0, 1]
        drawn = space.suggest(second)
        with claimed(study, FolderPlace(tmp_path), 2) as third:
            assert third is None
        study.tell(first, 0.5)
    again = open_study(FolderPlace(tmp_path), space, 0, 9)
    with claimed(again, FolderPlace(tmp_path), 2) as taken:
        assert taken is not None
        assert taken.number == 1
        assert space.suggest(taken) == drawn
    assert trials_table(again)["interruptions"].tolist() == [0, 1]


def test_a_trial_that_ends_while_another_process_looks_is_left_alone(
    space: Space, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Finished and let go of between being listed as running and being tried: it stays finished, the next is begun."""
    study = open_study(FolderPlace(tmp_path), space, 0, 9)
    trial = study.ask()
    listing = FolderPlace.take

    def finished_meanwhile(place: FolderPlace, number: int) -> object:
        if number == trial.number and not study.trials[number].state.is_finished():
            open_study(FolderPlace(tmp_path), space, 0, 9).tell(number, 0.5)  # by the other process
        return listing(place, number)

    monkeypatch.setattr(FolderPlace, "take", finished_meanwhile)
    with claimed(study, FolderPlace(tmp_path), 2) as taken:
        assert taken is not None
        assert taken.number == 1
    assert [state(trial) for trial in study.trials] == ["finished", "unfinished"]
    assert trials_table(study)["interruptions"].tolist() == [0, 0]
    free = listing(FolderPlace(tmp_path), 0)
    assert free is not None, "its lock is not kept"
    free.release()


def test_a_trial_that_always_ends_its_process_is_given_up(space: Space, tmp_path: Path) -> None:
    """After some interruptions without progress the trial fails and another one is begun."""
    study, numbers = open_study(FolderPlace(tmp_path), space, 0, 9), []
    for _ in range(MOST_INTERRUPTIONS + 2):
        with claimed(study, FolderPlace(tmp_path), 1) as taken:
            assert taken is not None
            numbers.append(taken.number)
    assert numbers == [0] * (MOST_INTERRUPTIONS + 1) + [1]
    assert state(study.trials[0]) == "failed"


def test_draws_do_not_depend_on_the_process_that_draws(space: Space, tmp_path: Path) -> None:
    """Parameters drawn in another order, or after a new start, are the same."""
    first = open_study(FolderPlace(tmp_path), space, 7, 9).ask()
    values = space.suggest(first)
    (tmp_path / "b").mkdir()
    again = open_study(FolderPlace(tmp_path / "b"), space, 7, 9).ask()
    backwards = {}
    for path, form in reversed(space.parameters.items()):
        backwards |= space.model_copy(update={"parameters": {path: form}}).suggest(again)
    assert backwards == values


def test_the_sampler_learns_from_failures(space: Space, tmp_path: Path) -> None:
    """Where one choice always fails, it is hardly drawn any more; a failed trial's half of a curve does not count."""
    document = space.model_dump() | {"parameters": {"augmentation": {"choice": ["good", "bad"]}}}
    only = parse_space(document | {"pruner": {"name": "none"}}, "test")
    study, drawn = open_study(FolderPlace(tmp_path), only, 0, 9), []
    for _ in range(24):
        asked = study.ask()
        drawn.append(only.suggest(asked)["augmentation"])
        if drawn[-1] == "bad":
            asked.report(1.0, 1)
            fail(study, asked, "does not fit")
        else:
            study.tell(asked, 0.1)
    assert drawn[12:].count("bad") <= 3
    assert count(study)["failed"] == drawn.count("bad")


def test_hyperband_ends_poor_trials_early(space: Space, tmp_path: Path) -> None:
    """Beside good trials, some of those with poor curves end before their last epoch; the first good one does not."""
    study, reached = open_study(FolderPlace(tmp_path), space, 0, 9), []
    for value in (0.9, 0.9, 0.1, 0.2, 0.1, 0.3, 0.1):
        asked, epoch = study.ask(), 0
        for epoch in range(1, 10):
            asked.report(value, epoch)
            if epoch < 9 and asked.should_prune():
                break
        reached.append(epoch)
        study.tell(asked, value)
    assert reached[0] == 9
    assert sum(epochs in (1, 3) for epochs in reached[2:]) >= 2, reached
