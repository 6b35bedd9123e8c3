"""A report is drawn from records: one that fails harms no training, says so, and can be told anew."""

from __future__ import annotations

import shutil
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import SMALL
from tumortrace import crossval, report, resume, synthesise, train
from tumortrace.records.run import Run
from tumortrace.reports.drawing import Drawn

pytestmark = pytest.mark.usefixtures("few_replicates")


@pytest.fixture(scope="module")
def few(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return synthesise("patches", tmp_path_factory.mktemp("few") / "patches", count=120, seed=4)


@pytest.mark.parametrize(("verb", "module"), [(train, "report"), (partial(crossval, folds=2), "crossval")])
def test_a_figure_that_fails_leaves_the_training_finished(
    few: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    verb: Any,
    module: str,
) -> None:
    """Its record says finished, without an error; one line names the command that tells the report anew."""

    def broken(*_: object, **__: object) -> None:
        raise ValueError("no such colour")

    monkeypatch.setattr(f"tumortrace.reports.{module}.draw_figures", broken)
    folder = verb(few, changes=[*SMALL, "epochs=1"], out=tmp_path)
    record = Run(folder).record
    assert (record.status, record.error) == ("finished", None)
    assert f"`tumortrace report {folder}` tells it anew" in capsys.readouterr().err
    assert not (folder / "report.html").exists()
    monkeypatch.setattr(f"tumortrace.reports.{module}.draw_figures", lambda *_, **__: Drawn())
    assert report(folder) == folder / "report.html"


def test_resuming_a_finished_training_tells_a_report_that_is_missing(small_run: Path, tmp_path: Path) -> None:
    """As one that ended between its last record and its report; nothing is trained."""
    folder = Path(shutil.copytree(small_run, tmp_path / small_run.name))
    (folder / "report.html").unlink()
    before = Run(folder).record_file.read_text()
    assert resume(folder) == folder
    assert (folder / "report.html").is_file()
    assert Run(folder).record_file.read_text() == before
