"""Whatever writes into the folder of a run tells its report and model card anew, and is safe when it cannot."""

from __future__ import annotations

import json
import shutil
import threading
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.reports.test_report import lean
from tumortrace import evaluate, explain, scan, synthesise
from tumortrace.cli.main import run as command_line
from tumortrace.inference import evaluate as measured
from tumortrace.reports import report as told
from tumortrace.reports.drawing import Drawn, draw_figures
from tumortrace.reports.report import renew_report, write_report


@pytest.fixture(autouse=True)
def undrawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Reports without the figures, which take a report's time."""
    monkeypatch.setattr(told, "draw_figures", lambda *_: Drawn())


@pytest.fixture
def trained(small_run: Path, tmp_path: Path) -> Path:
    """A copy of the small run, which may be written into."""
    return Path(shutil.copytree(small_run, tmp_path / "trained"))


def evaluation(run: Path, folder: Path, name: str) -> Path:
    """An evaluation as `evaluate` leaves it in the folder of a run."""
    there = lean(run, folder / "evaluations" / name, "metrics.json")
    (there / "evaluation.json").write_text(json.dumps({"verb": "evaluate", "data": {"name": name}}))
    return there


def test_verbs_that_write_into_a_run_are_in_its_report(
    trained: Path, tissue: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """`evaluate`, `explain` and `scan` without -o are told in report.html, an evaluation in the model card as well."""
    page, card = trained / "report.html", trained / "model_card.md"
    data = synthesise("patches", tmp_path / "elsewhere", count=40, seed=11)
    evaluate(trained, data)
    assert f"report: {page}" in capsys.readouterr().err
    assert 'id="elsewhere"' in page.read_text("utf-8")
    (name,) = (each.name for each in (trained / "evaluations").iterdir())
    assert f"| {name} | 40 |" in card.read_text("utf-8")

    images = sorted((tissue / "patches").iterdir())[:1]
    explain(trained, images)
    assert 'id="explanations"' in page.read_text("utf-8")

    strip = np.concatenate([np.asarray(Image.open(images[0]))] * 3, axis=1)
    slides = [tmp_path / f"slide-{number}.png" for number in (1, 2)]
    for slide in slides:
        Image.fromarray(np.concatenate([strip] * 3)).save(slide)
    assert command_line(["scan", str(trained), *map(str, slides), str(tmp_path / "none.svs"), "--resolution", "1"]) == 1
    text = page.read_text("utf-8")
    assert "slide-1" in text
    assert "slide-2" in text
    assert capsys.readouterr().err.count(f"report: {page}") == 2  # once for all slides, and for what was explained


def test_a_scan_from_python_is_in_the_report(
    trained: Path, tissue: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """At once, unless the caller says that there is more to come."""
    image = np.asarray(Image.open(next((tissue / "patches").iterdir())))
    slide = tmp_path / "slide.png"
    Image.fromarray(np.tile(image, (3, 3, 1))).save(slide)
    scan(trained, slide, resolution=1.0)
    assert "report:" in capsys.readouterr().err
    assert 'id="scans"' in (trained / "report.html").read_text("utf-8")


def test_a_folder_that_cannot_be_written_is_refused_before_the_work(
    small_run: Path, tissue: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """In one line that names it, and nothing has been predicted by then."""
    (tmp_path / "taken").write_text("")
    monkeypatch.setattr(measured, "predictions_table", None)
    assert command_line(["evaluate", str(small_run), str(tissue), "-o", str(tmp_path / "taken" / "new")]) == 1
    assert "taken" in capsys.readouterr().err.splitlines()[-1]


def test_what_lies_elsewhere_changes_no_report(run: Path, tmp_path: Path) -> None:
    """Neither an evaluation outside the run's folder, nor a bundle alone, nor another verb's folder."""
    lean(run, tmp_path / "run", "metrics.json", "run.json", "model/model.json")
    renew_report(tmp_path / "run", evaluation(run, tmp_path, "clinic"))
    assert not (tmp_path / "run" / "report.html").exists()
    bundle = lean(run / "model", tmp_path / "bundle", "model.json")
    renew_report(bundle.parent, evaluation(run, tmp_path, "clinic"))
    assert not (tmp_path / "report.html").exists()
    (tmp_path / "run" / "run.json").write_text('{"verb": "prepare"}')
    renew_report(tmp_path / "run", evaluation(run, tmp_path / "run", "clinic"))
    assert not (tmp_path / "run" / "report.html").exists()


@pytest.mark.parametrize("fault", ["unwritable", "damaged"])
def test_a_report_that_cannot_be_told_anew_is_a_note(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], fault: str
) -> None:
    """What was written stays; one line names the file that stood in the way."""
    lean(run, tmp_path, "metrics.json", "run.json")
    there = evaluation(run, tmp_path, "clinic")
    if fault == "unwritable":
        (tmp_path / "report.html").mkdir()
    else:
        (evaluation(run, tmp_path, "other") / "metrics.json").write_text('{"test": ')
    renew_report(tmp_path, there)
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("note: the report of the run could not be told: ")
    assert ("report.html" if fault == "unwritable" else "other") in line


def test_commands_that_end_together_are_all_in_the_report(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that has read the records before another wrote its own does not put its older report over the newer."""
    lean(run, tmp_path, "metrics.json", "run.json")
    first = evaluation(run, tmp_path, "first")
    second = threading.Thread(target=lambda: renew_report(tmp_path, evaluation(run, tmp_path, "second")))
    slow = [True]

    def write_slowly(folder: Path) -> Path:
        if not slow:
            return write_report(folder)
        slow.clear()
        page = write_report(folder)  # with what was there, written only after the other command came
        text = page.read_text("utf-8")
        second.start()
        second.join(timeout=1)
        page.write_text(text, "utf-8")
        return page

    monkeypatch.setattr(told, "write_report", write_slowly)
    renew_report(tmp_path, first)
    second.join()
    text = (tmp_path / "report.html").read_text("utf-8")
    assert "first" in text
    assert "second" in text


@pytest.mark.parametrize("fault", ["figure", "report"])
def test_a_training_whose_report_fails_is_finished(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], fault: str
) -> None:
    """It costs no record: the run is finished, one line says what failed and what to do, the exit code is 0."""

    def fail(*_: object) -> None:
        raise ValueError("nothing to draw")

    if fault == "figure":
        monkeypatch.setattr(told, "draw_figures", draw_figures)
        monkeypatch.setattr(told, "DRAWINGS", {"roc": fail})
    else:
        monkeypatch.setattr(told, "story", fail)
    small = ["--recipe", "cnn-64", "--epochs", "1", "--set", "preprocessing.size=24"]
    assert command_line(["train", "synthetic:patches?count=80", *small, "-o", str(tmp_path / "runs")]) == 0
    (run,) = (tmp_path / "runs").iterdir()
    assert json.loads((run / "run.json").read_text())["status"] == "finished"
    said = capsys.readouterr().err
    if fault == "figure":
        assert "note: the figure roc could not be drawn" in said
        assert "The figure roc could not be drawn: ValueError: nothing to draw." in (run / "report.html").read_text()
    else:
        assert f"could not be told: ValueError: nothing to draw; `tumortrace report {run}` tells it anew" in said
        assert not (run / "report.html").exists()
    monkeypatch.undo()
    assert command_line(["report", str(run)]) == 0
    assert "could not be drawn" not in (run / "report.html").read_text()
