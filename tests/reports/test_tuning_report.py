"""The report of a search says what the files of its folder say."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from tumortrace.errors import RunError
from tumortrace.reports.tuning import _scale, write_tuning_report

ERROR = "<b>4</b> blocks leave nothing of an input of 32x32 px."


def make_study(folder: Path) -> Path:
    """Fill `folder` with the records of a search of eight trials."""
    states = ["finished", "pruned", "failed", "finished", "finished", "pruned", "failed", "finished"]
    values = [0.71, 0.4, None, 0.8123, 0.8, 0.5, None, 0.78]
    epochs = [4, 1, None, 4, 3, 3, None, 4]
    trials = pd.DataFrame(
        {
            "number": range(8),
            "state": states,
            "value": values,
            "epochs": epochs,
            "best_epoch": epochs,
            "seconds": [10.0, 2.5, None, 11.0, 9.0, 8.0, None, 12.5],
            "seed": range(100, 108),
            "interruptions": [0, 0, 0, 2, 0, 0, 0, 0],
            "error": [ERROR if state == "failed" else None for state in states],
            "model.arguments.blocks.length": [2, 3, 4, 2, 3, 2, 4, 2],
            "model.arguments.blocks.2.kernel": [None, 3, 5, None, 3, None, 7, None],
            "optimiser.name": ["adam", "<i>sgd", "adam", "adam", "adam", "adam", "adam", "adam"],
            "optimiser.lr": [0.001, 0.01, 0.003, 0.00012345678, 0.0002, 0.05, 0.001, 0.0004],
        }
    )
    trials.to_csv(folder / "trials.csv", index=False)
    for number, count in enumerate(epochs):
        if count:
            home = folder / "trials" / f"{number:04}"
            home.mkdir(parents=True)
            curve = np.linspace(0.3, values[number] or 0, count)
            table = pd.DataFrame({"epoch": np.arange(1, count + 1), "validation_f1": curve})
            table.to_csv(home / "history.csv", index=False)
    study = {
        "space": "system-d",
        "objective": {"metric": "f1", "direction": "maximise"},
        "counts": {"finished": 4, "pruned": 2, "failed": 2, "unfinished": 0},
        "best": {"number": 3, "value": 0.8123, "parameters": {"optimiser.lr": 0.00012345678, "optimiser.name": "adam"}},
        "train_command": "tumortrace train DATA --recipe best.yaml --split-seed 0",
        "importances": {"fanova": {"optimiser.lr": 0.9}, "ped_anova": {"optimiser.lr": 0.6, "optimiser.name": 0.4}},
        "logarithmic": ["optimiser.lr"],
    }
    run = {
        "verb": "tune",
        "name": "2026-11-21T141200Z-tune-system-d",
        "status": "finished",
        "command": "tumortrace tune DATA --space system-d",
        "seed": 0,
        "leakage": "ruled out: splits share no slide or patient (8 groups)",
        "data": {"name": "mine", "splits": {"train": {"images": 700}, "validation": {"images": 100}}},
        "notes": ["not searched over, because set: preprocessing.size"],
    }
    metrics = {"validation": {"f1": {"value": 0.8123, "ci95": [0.71, 0.89]}, "intervals": "95 % intervals: by group."}}
    write(folder / "study.json", study)
    write(folder / "run.json", run)
    write(folder / "metrics.json", metrics)
    (folder / "best.yaml").write_text("name: system-d-best\n")
    (folder / "space.yaml").write_text("name: system-d\n")
    return folder


def write(path: Path, content: dict[str, Any]) -> None:
    path.write_text(json.dumps(content))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A search with its report. Tests must not write into it."""
    folder = make_study(tmp_path_factory.mktemp("search"))
    write_tuning_report(folder)
    return folder


def test_the_best_is_marked_with_its_interval_and_called_optimistic(folder: Path) -> None:
    """Value and interval of the best trial, that it is the best of many, and that test was not looked at."""
    page = (folder / "report.html").read_text("utf-8")
    assert "Best of 8 trials: trial 3, validation F1 .812 [.710, .890]." in page
    assert "chosen as the best of many is optimistic" in page
    assert "calibration and test splits were not looked at" in page
    assert "--split-seed 0" in page
    assert "Not a medical device" in page
    rows = dict(re.findall(r'<tr data-trial="(\d)">(.*?)</tr>', page, re.DOTALL))
    assert [number for number, row in rows.items() if ">best<" in row] == ["3"]
    assert [number for number, row in rows.items() if "[.710, .890]" in row] == ["3"]
    assert "resumed 2×" in rows["3"]


def test_every_trial_is_in_the_table(folder: Path) -> None:
    """All eight, with state, value and what they drew; a value that a trial lacks is a dash; why trials failed."""
    page = (folder / "report.html").read_text("utf-8")
    rows = dict(re.findall(r'<tr data-trial="(\d)">(.*?)</tr>', page, re.DOTALL))
    assert list(rows) == [str(number) for number in range(8)]
    assert "pruned" in rows["1"]
    assert ".400" in rows["1"]
    assert "0.01" in rows["1"]
    assert rows["2"].count("—") == 4
    assert rows["0"].count("—") == 1
    assert "0.0001235" in rows["3"]
    assert "53 s" in page, "seconds of all trials"
    assert "Trials 2, 6: &lt;b&gt;4&lt;/b&gt; blocks leave nothing" in page
    assert "<i>sgd" not in page


def test_figures_are_drawn_from_the_records(folder: Path) -> None:
    """All four figures are there, and the pictures in the page have alternative texts."""
    page = (folder / "report.html").read_text("utf-8")
    names = {path.name for path in (folder / "figures").iterdir()}
    figures = ("history", "learning_curves", "importance", "parallel_coordinates")
    assert names == {f"{name}.{suffix}" for name in figures for suffix in ("png", "svg")}
    assert len(re.findall(r'<img src="data:image/svg\+xml;base64,[^"]+" alt="[^"]{20,}"', page)) == 4
    assert "From 4 finished trials both are rough" in page
    assert "https:" not in re.sub(r'src="[^"]*"', "", page)


def test_a_search_without_a_finished_trial_has_a_report(tmp_path: Path) -> None:
    """Where everything failed the page says so; an unfinished search is said to be one; leakage is pointed out."""
    make_study(tmp_path)
    for name in ("study.json", "metrics.json", "best.yaml"):
        (tmp_path / name).unlink()
    trials = pd.read_csv(tmp_path / "trials.csv")
    trials[trials["state"] == "failed"].to_csv(tmp_path / "trials.csv", index=False)
    run = json.loads((tmp_path / "run.json").read_text())
    write(tmp_path / "run.json", run | {"status": "interrupted", "leakage": "not ruled out: no slide is known"})
    page = write_tuning_report(tmp_path).read_text("utf-8")
    assert "No trial was finished" in page
    assert "its status is “interrupted”" in page
    assert "Leakage between the splits is not ruled out" in page


def test_another_folder_is_refused(tmp_path: Path) -> None:
    """A training's folder or an empty one is no search, and no page appears."""
    write(tmp_path / "run.json", {"verb": "train"})
    with pytest.raises(RunError, match="no records of a search"):
        write_tuning_report(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["run.json"]


def test_places_on_the_axes_of_parallel_coordinates() -> None:
    """Numbers lie along their scale, few or named values side by side, missing ones beside the axis."""
    places, ticks = _scale(pd.Series([0.001, 0.01, 0.1], name="lr"), True)
    np.testing.assert_allclose(places, [0, 0.5, 1])
    assert ticks == {0.0: ".001", 1.0: ".100"}
    places, ticks = _scale(pd.Series([32.0, np.nan, 256.0, 64.0], name="channels"), False)
    np.testing.assert_allclose(places[[0, 2, 3]], [0, 1, 0.5])
    assert places[1] > 1
    assert ticks[0.0] == "32"
    assert ticks[0.5] == "64"
    assert "absent" in ticks.values()
    places, ticks = _scale(pd.Series([True, False, True], name="symmetries"), False)
    np.testing.assert_allclose(places, [1, 0, 1])
    assert ticks == {0.0: "False", 1.0: "True"}
