"""Slides that a score is to be learnt from, as they come."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from shapely.geometry import box

from tests.situations.situation import situation
from tests.slides.drawn import qupath
from tests.slides.test_foci import map_of
from tests.slides.test_slide_score import write_scan
from tumortrace.cli.main import run
from tumortrace.errors import SlideError
from tumortrace.evaluation.froc import MISS
from tumortrace.records.evaluation import NamedModel
from tumortrace.records.scans import ScanRecord
from tumortrace.records.slides import FittedScore, SlideScoreRecord, Weight
from tumortrace.records.tables import PREDICTIONS, SPLITS
from tumortrace.slides.annotations.classes import Classes
from tumortrace.slides.cohort import SlideEntry
from tumortrace.slides.scanned import Scanned, detections_of


def slides(home: Path, labels: str) -> Path:
    """A table of slides, T with tumour, N without, ? not labelled, each with its scan; returns the table."""
    names = {"T": "tumour", "N": "normal", "?": ""}
    for number, label in enumerate(labels):
        slide = home / f"s{number}.tif"
        slide.write_bytes(b"II*\0" + bytes([number]))
        write_scan(home / "scans" / slide.stem, slide, map_of(np.full((3, 3), 0.9 if label == "T" else 0.1)))
    rows = {"slide": [f"s{number}.tif" for number in range(len(labels))], "label": [names[label] for label in labels]}
    pd.DataFrame(rows).to_csv(home / "slides.csv", index=False)
    return home / "slides.csv"


def refused(capsys: pytest.CaptureFixture[str], *words: object) -> str:
    """The one line in which a call is refused."""
    assert run(["slide-score", *map(str, words)]) in (1, 2)
    return " ".join(capsys.readouterr().err.split())


@situation(
    "slides",
    there="a table of labelled slides, and a folder without any finished scan, or with those of other slides",
    typed="tumortrace slide-score SCANS TABLE",
    right="refused: the slides have to be scanned first",
)
def test_slides_that_were_not_scanned(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Both are told apart by their lines."""
    table = slides(tmp_path, "TN")
    (tmp_path / "none").mkdir()
    assert "no finished scan" in refused(capsys, tmp_path / "none", table)
    for number in range(2):
        (tmp_path / f"s{number}.tif").write_bytes(b"II*\0 another slide" + bytes([number]))
    assert "no scan is of one of the 2 slides" in refused(capsys, tmp_path / "scans", table)


@situation(
    "slides",
    there="scans of one cohort by two models, or with two overlaps",
    typed="tumortrace slide-score SCANS TABLE",
    right="refused, both scans named: one score needs maps made alike",
)
@pytest.mark.parametrize(
    ("change", "named"),
    [({"model": NamedModel(name="other", weights_sha256="bb")}, "models"), ({"overlap": 0.5}, "overlaps")],
)
def test_maps_that_were_made_differently(
    change: dict[str, object], named: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Another model or another grid."""
    table = slides(tmp_path, "TNTN")
    write_scan(tmp_path / "scans" / "s1", tmp_path / "s1.tif", map_of(np.zeros((3, 3))), **change)
    line = refused(capsys, tmp_path / "scans", table)
    assert f"scans with different {named}" in line
    assert "s0 and" in line


@situation(
    "slides",
    there="slides without labels, or of one class alone",
    typed="tumortrace slide-score SCANS TABLE",
    right="refused: what is lacking; without labels `--score` applies a learnt score",
)
@pytest.mark.parametrize(("labels", "line"), [("????", "no slide with a label"), ("TTTTTT", "of one class")])
def test_nothing_to_learn_from(labels: str, line: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Nothing is written."""
    table = slides(tmp_path, labels)
    assert line in refused(capsys, tmp_path / "scans", table, "-o", tmp_path / "out")
    assert not (tmp_path / "out").exists()


@situation(
    "slides",
    there="labelled slides of which all but two patients gave the patches that the model has learnt from",
    typed="tumortrace slide-score SCANS TABLE --run RUN",
    right="refused: how many patients are new to the model, and how many are needed",
)
def test_slides_that_the_model_has_learnt_from(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """As after `tile`, `train` and `scan` of the same table; and a folder is named where a table lies in it."""
    table = slides(tmp_path, "TNTNTN")
    used = pd.DataFrame({"id": list("abcd"), "group": [f"s{number}" for number in range(4)], "split": "train"})
    (tmp_path / "run").mkdir()
    SPLITS.write(tmp_path / "run", used)
    line = refused(capsys, tmp_path / "scans", table, "--run", tmp_path / "run")
    assert "2 slides whose patches the model has not learnt from; expected at least 3, to divide into train," in line
    assert "--split" not in line
    assert "expected a table with a column label" in refused(capsys, tmp_path / "scans", tmp_path)


@situation(
    "slides",
    there="a learnt score, and scans of new slides without labels, by its model or by another one",
    typed="tumortrace slide-score SCANS TABLE --score FOLDER",
    right="each slide's probability and call; maps of another model are refused",
)
def test_a_learnt_score_on_new_slides(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """By a score of one feature, worked by hand: the log-odds of the highest tile, as they are."""
    table = slides(tmp_path, "???")
    write_scan(tmp_path / "scans" / "s1", tmp_path / "s1.tif", map_of(np.full((3, 3), 0.8)))
    only = Weight(name="highest", mean=0.0, deviation=1.0, weight=1.0)
    made_by = NamedModel(name="patches", weights_sha256="aa")
    fitted = FittedScore(features=[only], intercept=0.0, threshold=0.5, model=made_by, patch_threshold=0.5)
    SlideScoreRecord(fitted=fitted).write(tmp_path / "score")
    words = (tmp_path / "scans", table, "--score", tmp_path / "score", "-o", tmp_path / "out")
    assert run(["slide-score", *map(str, words)]) == 0
    known = PREDICTIONS.read(tmp_path / "out")
    assert known["probability"].to_numpy() == pytest.approx([0.1, 0.8, 0.1])
    assert known["prediction"].tolist() == [0, 1, 0]
    SlideScoreRecord(fitted=fitted.model_copy(update={"overlap": 0.5})).write(tmp_path / "score")
    assert "overlaps that differ from those of the score (0.0)" in refused(capsys, *words)


@situation(
    "slides",
    there="annotations that outline normal tissue and regions beside the tumour, or a class that is not known",
    typed="tumortrace slide-score SCANS TABLE --class Atypia=ignore",
    right="lesions of FROC are what is tumour; an unknown class is asked for",
)
def test_lesions_are_what_the_classes_say(tmp_path: Path) -> None:
    """One lesion of two outlines: the other is normal; a surest tile on the normal one is a false alarm."""
    slide = tmp_path / "a.tif"
    slide.write_bytes(b"II*\0")
    drawn = [("Tumor", box(0, 0, 600, 600)), ("normal", box(1000, 0, 1600, 600)), ("Region*", box(0, 0, 2000, 600))]
    outlines = qupath(tmp_path / "a.geojson", drawn)
    write_scan(tmp_path / "scan", slide, map_of(np.array([[0.8] + [0.0] * 11 + [0.9]])))
    entry = SlideEntry("a", slide, 1, "a", annotations=outlines)
    scan = Scanned(entry, tmp_path / "scan", ScanRecord.read(tmp_path / "scan"))
    judged = detections_of(scan, Classes())
    assert judged is not None
    assert (judged.lesions, judged.hit.tolist(), judged.probability.tolist()) == (1, [MISS, 0], [0.9, 0.8])
    qupath(outlines, [*drawn, ("Atypia", box(0, 0, 50, 50))])
    with pytest.raises(SlideError, match="Atypia"):
        detections_of(scan, Classes())
    assert detections_of(scan, Classes.of(["Atypia=ignore"])) is not None


@situation(
    "slides",
    there="a folder that holds the slide score of another call",
    typed="tumortrace slide-score SCANS TABLE -o FOLDER",
    right="refused with that call's command; files of two calls never mix",
)
def test_scores_of_two_calls_do_not_mix(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The call on record is one that can be pasted; where all of it has been moved, it is the same call."""
    table = slides(tmp_path, "???")
    only = Weight(name="highest", mean=0.0, deviation=1.0, weight=1.0)
    made_by = NamedModel(name="patches", weights_sha256="aa")
    fitted = FittedScore(features=[only], intercept=0.0, threshold=0.5, model=made_by, patch_threshold=0.5)
    SlideScoreRecord(fitted=fitted).write(tmp_path / "score")
    words = [tmp_path / "scans", table, "--score", tmp_path / "score", "--class", "Atypia=ignore", "-o"]
    for _ in range(2):
        assert run(["slide-score", *map(str, words), str(tmp_path / "out")]) == 0
    command = SlideScoreRecord.read(tmp_path / "out").command
    assert "--class Atypia=ignore" in command
    capsys.readouterr()
    assert command in refused(capsys, *words, tmp_path / "out", "--seed", 1)
    assert "holds what another call has written" in refused(capsys, *words, tmp_path / "score")
    there = tmp_path / "there"
    there.mkdir()
    for part in [part for part in tmp_path.iterdir() if part != there]:
        shutil.move(part, there)
    moved = [there / word.relative_to(tmp_path) if isinstance(word, Path) else word for word in words]
    assert run(["slide-score", *map(str, moved), str(there / "out")]) == 0
    assert str(there) in SlideScoreRecord.read(there / "out").command
