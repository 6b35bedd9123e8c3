"""Runs that are taken up again where the data were put elsewhere, or anew, in the meantime."""

from __future__ import annotations

import importlib
import json
import os
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from tests.conftest import SMALL
from tests.situations.situation import situation
from tumortrace import synthesise
from tumortrace.cli.main import run as command
from tumortrace.errors import RunError
from tumortrace.records.run import Run
from tumortrace.training import ensemble as ensembles
from tumortrace.training import experiment as experiments
from tumortrace.training import train as training
from tumortrace.training.ensemble import train_members
from tumortrace.training.experiment import Experiment
from tumortrace.training.train import train

pytestmark = pytest.mark.usefixtures("few_replicates")

CHANGES = [*SMALL, "epochs=1"]


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """200 patches, in a folder that a test may change."""
    return synthesise("patches", tmp_path / "here" / "patches", count=200, seed=5)


@pytest.fixture
def taken(monkeypatch: pytest.MonkeyPatch) -> list[Experiment]:
    """The experiments that would have been carried out."""
    experiments: list[Experiment] = []

    def fit(experiment: Experiment) -> Path:
        experiments.append(experiment)
        return experiment.run.folder

    monkeypatch.setattr(training, "fit", fit)
    return experiments


@pytest.fixture
def begun(data: Path, taken: list[Experiment], monkeypatch: pytest.MonkeyPatch) -> Path:
    """A run that began in the folder `here`, on data named relative to it, and got no further."""
    monkeypatch.chdir(data.parent)
    folder = train("patches", changes=CHANGES, out="runs").resolve()
    taken.clear()
    return folder


def staged_anew(data: Path) -> None:
    """Every file of the data as it was, and newer."""
    for file in data.rglob("*"):
        os.utime(file, (2e9, 2e9))


def older(run: Path, **arguments: str) -> None:
    """Make the record one of a version that kept no contents."""
    record = json.loads((run / "run.json").read_text())
    del record["data"]["contents"]
    record["arguments"] |= arguments
    (run / "run.json").write_text(json.dumps(record))


def refused(capsys: pytest.CaptureFixture[str], *words: str | Path) -> str:
    """The line with which a command ends."""
    capsys.readouterr()
    assert command([str(word) for word in words]) == 1
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    return error


@situation(
    "runs",
    there="a run that was interrupted, its data copied again to scratch: same bytes, new times",
    typed="tumortrace train --resume RUN",
    right="it goes on, as the contents are the same",
)
def test_data_that_were_staged_anew_are_the_same(begun: Path, data: Path, taken: list[Experiment]) -> None:
    staged_anew(data)
    assert command(["train", "--resume", str(begun)]) == 0
    (experiment,) = taken
    assert Run(begun).record.data.fingerprint == experiment.cohort.fingerprint


@situation(
    "runs",
    there="a run begun as `train patches`, taken up from another working folder",
    typed="tumortrace train --resume RUN",
    right="it goes on: the record names the data by their whole path",
)
def test_a_run_is_resumed_from_any_folder(
    begun: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    record = Run(begun).record
    assert record.arguments.data == str(data)
    assert str(data) in record.command
    monkeypatch.chdir(tmp_path)
    assert command(["train", "--resume", str(begun)]) == 0


def test_a_record_that_names_the_data_relative_to_where_it_began_is_resumed_from_any_folder(
    begun: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As versions before this one wrote it."""
    older(begun, data="patches")
    monkeypatch.chdir(tmp_path)
    assert command(["train", "--resume", str(begun)]) == 0


@situation(
    "runs",
    there="a run that was interrupted, its data moved to another disk",
    typed="tumortrace train NEW/PLACE --resume RUN",
    right="without the new place it is asked for; with it, it goes on and is kept",
)
def test_data_that_were_moved_are_named_beside_resume(
    begun: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    moved = tmp_path / "elsewhere"
    shutil.copytree(data, moved, copy_function=shutil.copyfile)
    shutil.rmtree(data)
    told = refused(capsys, "train", "--resume", begun)
    assert "no longer there" in told
    assert f"tumortrace train DATA --resume {begun}" in told
    assert command(["train", str(moved), "--resume", str(begun)]) == 0
    assert Run(begun).record.arguments.data == str(moved)


@situation(
    "runs",
    there="a run that was interrupted; a picture or a label edited since, or other data named",
    typed="tumortrace train --resume RUN",
    right="refused, and told whether it is the pictures or the labels",
)
def test_data_that_were_edited_are_refused(
    begun: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = synthesise("patches", tmp_path / "other", count=200, seed=6)
    fewer = synthesise("patches", tmp_path / "fewer", count=100, seed=5)
    assert "ids, labels" in refused(capsys, "train", other, "--resume", begun)
    assert "100 images, and 200 when the run began" in refused(capsys, "train", fewer, "--resume", begun)
    labels = data / "cohort.csv"
    before = labels.read_text()
    table = pd.read_csv(labels, dtype=str)
    table.loc[0, "label"] = "1" if table.loc[0, "label"] == "0" else "0"
    table.to_csv(labels, index=False)
    told = refused(capsys, "train", "--resume", begun)
    assert "labels" in told
    assert "image files" not in told
    labels.write_text(before)
    image = next((data / "patches").iterdir())
    pixels = np.asarray(Image.open(image)).copy()
    pixels[0, 0] ^= 1
    Image.fromarray(pixels).save(image)
    assert "image files hold other contents" in refused(capsys, "train", "--resume", begun)


def test_a_record_without_contents_is_told_from_an_edit_by_times_alone(
    begun: Path, data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Of older versions: refused as before, without the claim that the data have changed."""
    older(begun)
    staged_anew(data)
    told = refused(capsys, "train", "--resume", begun)
    assert "too old" in told
    assert "have changed" not in told


@pytest.mark.parametrize("verb", ["crossval", "ensemble", "learning_curve", "tune"])
def test_every_verb_that_resumes_takes_data_that_were_moved(
    data: Path, tmp_path: Path, verb: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each begins and is told the new place when it is taken up."""
    module = importlib.import_module(f"tumortrace.training.{verb}")
    taken: list[Experiment] = []

    def carry_out(experiment: Experiment, *_: object) -> Path:
        taken.append(experiment)
        return experiment.run.folder

    monkeypatch.setattr(module, "_carry_out", carry_out)
    words = {
        "crossval": ["crossval", str(data), "--recipe", "cnn-64", "--folds", "2"],
        "ensemble": ["train", str(data), "--recipe", "cnn-64", "--members", "2"],
        "learning_curve": ["train", str(data), "--recipe", "cnn-64", "--fractions", "50%,100%"],
        "tune": ["tune", str(data)],
    }[verb]
    assert command([*words, "--out", str(tmp_path / "runs")]) == 0
    (folder,) = (tmp_path / "runs").iterdir()
    moved = tmp_path / "moved"
    data.rename(moved)
    staged_anew(moved)
    assert command([words[0], "--resume", str(folder)]) == 1
    assert command([words[0], str(moved), "--resume", str(folder)]) == 0
    assert len(taken) == 2
    assert taken[1].cohort.source == replace(taken[0].cohort.source, path=str(moved))  # type: ignore[type-var]
    assert Run(folder).record.data.fingerprint == taken[1].cohort.fingerprint


def test_members_from_before_and_after_the_data_were_staged_anew_are_joined(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They are of the same data, though the times of the files differ."""
    monkeypatch.setattr(experiments, "renew_report", lambda _: None)
    fitted, calls = ensembles.fit_part, []

    def stops(*given: Any) -> Path:
        calls.append(given)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return fitted(*given)

    monkeypatch.setattr(ensembles, "fit_part", stops)
    with pytest.raises(RunError, match="interrupted"):
        train_members(data, members=2, changes=CHANGES, out=tmp_path / "runs")
    (folder,) = (tmp_path / "runs").iterdir()
    staged_anew(data)
    assert command(["train", "--resume", str(folder)]) == 0
    assert Run(folder).record.status == "finished"
    first, second = (Run(place) for place in sorted(folder.glob("members/*/*")))
    assert first.record.data.fingerprint != second.record.data.fingerprint
    assert first.record.data.contents == second.record.data.contents
