"""Folders that version 0.1.0 wrote before records were typed: they read, come out as they went in, and go on.

`before/` was written by that version, its longer lists cut: a run with an evaluation, explanations, a scan and a stress
test; a run that was interrupted after its first epoch, and the predictions of the same run undisturbed; the records of
the other verbs. Both runs are of `synthetic:patches?count=120`.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from pydantic import BaseModel

from tumortrace import evaluate, explain, open_cohort, report, resume, scan
from tumortrace.records import tables
from tumortrace.records.data import (
    AuditRecord,
    ExplorationRecord,
    ExportRecord,
    FeaturesRecord,
    PreparedRecord,
    SyntheticRecord,
)
from tumortrace.records.evaluation import (
    ComparisonRecord,
    EvaluationRecord,
    ExamplesRecord,
    ExplanationMeasures,
    ExplanationsRecord,
    SheetsRecord,
    StressPlan,
    StressRecord,
)
from tumortrace.records.metrics import AbstentionRecord, CalibrationRecord, DistributionRecord, Estimate, Metrics
from tumortrace.records.plans import CrossvalRecord, FoldResult, LearningCurveRecord, StudyRecord
from tumortrace.records.record import OnDisk
from tumortrace.records.run import Run, RunRecord
from tumortrace.records.scans import ScanRecord
from tumortrace.records.tiles import TilingRecord

BEFORE = Path(__file__).with_name("before")
MINE, OTHER = "synthetic:patches?count=120", "synthetic:patches?count=40&seed=9"
TOLERANCE = 1e-6

RECORDS: list[tuple[type[OnDisk], str]] = [
    *((RunRecord, name) for name in ("run", "interrupted", "crossval", "ensemble", "curve", "tune")),
    *((Metrics, name) for name in ("run", "run/evaluations/other", "tune")),
    *((CalibrationRecord, name) for name in ("run", "run/evaluations/other")),
    *((AbstentionRecord, name) for name in ("run", "run/evaluations/other")),
    *((DistributionRecord, name) for name in ("run", "run/evaluations/other")),
    (EvaluationRecord, "run/evaluations/other"),
    (ExamplesRecord, "run"),
    (ExplanationsRecord, "run/explanations"),
    (SheetsRecord, "run/explanations"),
    (ExplanationMeasures, "run/explanations"),
    (ScanRecord, "run/scans/tissue"),
    (StressRecord, "run/stress"),
    (StressPlan, "run/stress"),
    (ExportRecord, "run/model"),
    (CrossvalRecord, "crossval"),
    (LearningCurveRecord, "curve"),
    (StudyRecord, "tune"),
    (ComparisonRecord, "compare"),
    (AuditRecord, "check"),
    (ExplorationRecord, "explore"),
    (SyntheticRecord, "patches"),
    (PreparedRecord, "prepared"),
    (FeaturesRecord, "."),
    (TilingRecord, "tiles"),
]
#: Parts with open names: metrics of a fold, channels of a picture, numbers of a test, what an export says of its model.
OPEN = {"FoldResult", "ClassImages", "Histogram", "PairedTest", "ExportRecord"}


@pytest.mark.parametrize(("kind", "folder"), RECORDS, ids=lambda value: getattr(value, "__name__", value))
def test_a_record_reads_and_comes_out_as_it_went_in(kind: type[OnDisk], folder: str, tmp_path: Path) -> None:
    """Value for value, with no field that only a dictionary would know."""
    record = kind.read(BEFORE / folder)
    record.write(tmp_path)
    assert json.loads(kind.file(tmp_path).read_bytes()) == json.loads(kind.file(BEFORE / folder).read_bytes())
    assert list(unknown(record)) == []


def unknown(part: object) -> list[str]:
    """Fields of a record and of its parts that their models do not name."""
    if isinstance(part, BaseModel):
        extra = {name: value for name, value in (part.model_extra or {}).items() if not isinstance(value, Estimate)}
        names = [] if type(part).__name__ in OPEN else [f"{type(part).__name__}.{name}" for name in extra]
        return names + [name for field in type(part).model_fields for name in unknown(getattr(part, field))]
    values = part.values() if isinstance(part, dict) else part if isinstance(part, list) else ()
    return [name for value in values for name in unknown(value)]


@pytest.mark.parametrize(
    ("table", "folder"),
    [
        *((getattr(tables, name), "run") for name in ("PREDICTIONS", "SPLITS", "SEEN", "HISTORY")),
        (tables.MEASURES, "run/explanations"),
        (tables.TILES, "run/scans/tissue"),
        (tables.FOLDS, "crossval"),
        (tables.PREDICTIONS, "crossval"),
        (tables.SUBSETS, "curve"),
        (tables.LEARNING_CURVE, "curve"),
        (tables.TRIALS, "tune"),
        (tables.QUARANTINE, "check"),
        (tables.SAMPLE, "explore"),
        (tables.LABELS, "prepared"),
    ],
    ids=lambda value: getattr(value, "name", value),
)
def test_a_table_comes_out_as_it_went_in(table: tables.Table, folder: str, tmp_path: Path) -> None:
    """Every digit of a number, every id."""
    found = table.read(BEFORE / folder)
    table.write(tmp_path, found)
    pd.testing.assert_frame_equal(table.read(tmp_path), found, check_like=True)


def test_values_are_attributes() -> None:
    """What reports read: a metric by name, a fold's metric, what the run was made of."""
    metrics = Metrics.read(BEFORE / "run")
    assert list(metrics) == ["validation", "calibration", "test"]
    assert isinstance(metrics["test"]["auroc"], Estimate)
    assert metrics["test"].get("no such metric") is None
    assert metrics["test"].confusion_matrix is not None
    run = RunRecord.read(BEFORE / "run")
    assert (run.arguments.recipe, run.arguments.seed, run.data.splits["train"].images) == ("cnn-64", 5, 75)
    fold = CrossvalRecord.read(BEFORE / "crossval").recipes["cnn-64"].folds[0]
    assert isinstance(fold, FoldResult)
    assert 0 <= (fold.metric("auroc") or 0) <= 1


def test_the_run_is_evaluated_as_before(tmp_path: Path) -> None:
    """The same probabilities to 1e-6; pictures that it has used are known again by the digests on record."""
    run = copied("run", tmp_path)
    there = tables.PREDICTIONS.read(BEFORE / "run" / "evaluations" / "other")
    here = tables.PREDICTIONS.read(evaluate(run, OTHER, out=tmp_path / "again"))
    np.testing.assert_allclose(here["probability"], there["probability"], rtol=0, atol=TOLERANCE)
    assert here[["id", "prediction", "decision"]].equals(there[["id", "prediction", "decision"]])
    mine = evaluate(run, MINE, out=tmp_path / "mine")
    splits = tables.SPLITS.read(run)
    assert set(tables.PREDICTIONS.read(mine)["id"]) == set(splits.loc[splits["split"] == "test", "id"])


def test_the_run_is_explained_scanned_and_told_again(tmp_path: Path) -> None:
    """New folders beside the old records, and one report of all of them."""
    run = copied("run", tmp_path)
    picture = open_cohort(OTHER).table["path"].iloc[0]
    assert ExplanationsRecord.read(explain(run, [picture])).items[0].figure == "000.png"
    tissue = np.random.default_rng(0).integers(90, 200, (192, 192, 3)).astype(np.uint8) - np.array([0, 60, 0], np.uint8)
    Image.fromarray(tissue).save(tmp_path / "slide.png")
    assert scan(run, tmp_path / "slide.png", resolution=1.0).record.tiles == 4
    page = report(run).read_text()
    assert "other" in page
    assert "slide" in page


def test_an_interrupted_run_goes_on_as_if_nothing_had_happened(tmp_path: Path) -> None:
    """From the checkpoint of version 0.1.0 after one epoch of two, to the predictions of its undisturbed run."""
    run = copied("interrupted", tmp_path)
    data = RunRecord.read(run).data  # whose fingerprint holds the time at which the tissue was written
    Run(run).update(data=data.model_copy(update={"fingerprint": open_cohort(MINE).fingerprint}))
    assert resume(run) == run
    record = RunRecord.read(run)
    assert (record.status, record.epochs) == ("finished", 2)
    there, here = pd.read_csv(BEFORE / "undisturbed.csv"), tables.PREDICTIONS.read(run)
    np.testing.assert_allclose(here["probability"], there["probability"], rtol=0, atol=TOLERANCE)


def copied(name: str, to: Path) -> Path:
    """A folder of before that may be written to."""
    return shutil.copytree(BEFORE / name, to / name)
