"""What goes wrong with slides, their tables and annotations on the way to tiles, features and scores."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import h5py
import numpy as np
import pandas as pd
import pytest
from shapely.geometry import box

from tests.situations.situation import situation
from tests.situations.test_slide_scores import slides as scanned_slides
from tests.situations.test_slide_tiles import SIDE, stitched
from tests.slides import drawn as write
from tests.slides.bags import write_bags
from tests.slides.test_embed_slides import BODY, draw
from tumortrace.cli.main import run
from tumortrace.cohorts.cohort import TAUGHT
from tumortrace.cohorts.layouts import open_cohort
from tumortrace.cohorts.splits import assign_splits
from tumortrace.evaluation.split_record import headline
from tumortrace.records.metrics import SplitMetrics
from tumortrace.records.tables import SPLITS

OUTLINE = [("Tumor", box(0, 0, 3 * SIDE, 2 * SIDE))]


def tiled(folder: Path, slides: Path, capsys: pytest.CaptureFixture[str], code: int = 0) -> str:
    """What `tile` says."""
    out = folder / "out"
    shutil.rmtree(out, ignore_errors=True)
    words = ["tile", str(slides), "-o", str(out), "--size", str(SIDE), "--resolution", "0.5"]
    assert run(words) == code
    return " ".join(capsys.readouterr().err.split())


@situation(
    "slides",
    there="a table of the user's called slides.csv, where features are to be written",
    typed="tumortrace embed-slides BODY slides.csv -o .",
    right="refused before any slide is read: it is not overwritten",
)
def test_features_leave_the_users_table(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Named or not, and with whatever columns."""
    draw(tmp_path / "a.tif")
    text = "slide,label,comment\na.tif,tumour,mine\n"
    for name in ("slides.csv", "other.csv"):
        (tmp_path / "slides.csv").write_text(text)
        (tmp_path / "other.csv").write_text(text)
        assert run(["embed-slides", *BODY, str(tmp_path / name), "-o", str(tmp_path)]) == 1
        assert "slides.csv" in capsys.readouterr().err.splitlines()[-1]
        assert (tmp_path / "slides.csv").read_text() == text
    assert not list(tmp_path.glob("*.h5"))


@situation(
    "slides",
    there="a folder of features of other slides of the same body",
    typed="tumortrace embed-slides BODY more.csv -o FEATURES",
    right="the labels of those that were there stay; what is named again is as it is named now",
)
def test_features_are_added_to_others(tmp_path: Path) -> None:
    """Three slides in two calls."""
    for dark, name in enumerate("abc", 1):
        draw(tmp_path / f"{name}.tif", dark)
    (tmp_path / "one.csv").write_text("slide,label,patient\na.tif,normal,p1\nb.tif,normal,p2\n")
    (tmp_path / "two.csv").write_text("slide,label\nb.tif,tumour\nc.tif,tumour\n")
    for name in ("one.csv", "two.csv"):
        assert run(["embed-slides", *BODY, str(tmp_path / name), "-o", str(tmp_path / "features")]) == 0
    table = pd.read_csv(tmp_path / "features" / "slides.csv")
    assert table.to_numpy().tolist() == [["a", "normal", "p1"], ["b", "tumour", "b"], ["c", "tumour", "c"]]


@situation(
    "slides",
    there="features of a slide, and another slide of its name in another folder",
    typed="tumortrace embed-slides BODY FOLDER -o FEATURES",
    right="its features are named by its folder too, aloud; those that were there stay, and so does a repeated call",
)
def test_features_of_another_slide_of_the_name(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """As with scans; a table tells both apart."""
    for dark, name in enumerate(("one", "two"), 1):
        (tmp_path / name).mkdir()
        draw(tmp_path / name / "x.tif", dark)
        (tmp_path / name / "t.csv").write_text(f"slide,label\nx.tif,{('normal', 'tumour')[dark - 1]}\n")
    features = tmp_path / "features"
    for name in ("one", "two", "one", "two"):
        assert run(["embed-slides", *BODY, str(tmp_path / name / "t.csv"), "-o", str(features)]) == 0
    told = capsys.readouterr().err
    assert told.count("x.h5 holds features of another slide, x.tif, and is left as it is") == 2
    assert told.count("complete already") == 2
    assert sorted(file.name for file in features.glob("*.h5")) == ["two-x.h5", "x.h5"]
    assert pd.read_csv(features / "slides.csv")[["slide", "label"]].to_numpy().tolist() == [
        ["x", "normal"],
        ["two-x", "tumour"],
    ]


@situation(
    "slides",
    there="a copy of a slide under another name, as of another patient",
    typed="tumortrace slide-score SCANS TABLE",
    right="refused with both names: it would stand on two sides",
)
def test_a_copy_of_a_slide(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """One scan would be of both; tiles and features of them are divided as one by `train`."""
    table = scanned_slides(tmp_path, "TNTN")
    shutil.copy(table.with_name("s0.tif"), table.with_name("s4.tif"))
    table.write_text(table.read_text() + "s4.tif,tumour\n")
    assert run(["slide-score", str(table.with_name("scans")), str(table)]) == 1
    assert "'s0' and 's4' have the same content" in " ".join(capsys.readouterr().err.split())


@situation(
    "slides",
    there="GeoJSON or ASAP's XML that an editor saved with the mark of UTF-8, or as UTF-16",
    typed="tumortrace tile SLIDES -o DIR",
    right="read as ever",
)
@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
@pytest.mark.parametrize("kind", ["geojson", "xml"])
def test_annotations_of_other_encodings(
    kind: str, encoding: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The same tiles as of the plain file."""
    stitched(tmp_path / "slides")
    file = tmp_path / "slides" / f"a.{kind}"
    _ = write.qupath(file, OUTLINE) if kind == "geojson" else write.asap(file, OUTLINE)
    told = tiled(tmp_path, tmp_path / "slides", capsys)
    assert ": 6 tumour and " in told
    file.write_bytes(file.read_text().encode(encoding))
    assert tiled(tmp_path, tmp_path / "slides", capsys) == told


@situation(
    "slides",
    there="a table with a column `annotation`",
    typed="tumortrace tile slides.csv -o DIR",
    right="read as `annotations`",
)
def test_the_column_of_annotations(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A file that is missing is told by the name that the column has."""
    stitched(tmp_path / "slides")
    write.qupath(tmp_path / "drawn.json", OUTLINE)
    table = tmp_path / "t.csv"
    table.write_text("slide,Annotation\nslides/a.tif,drawn.json\n")
    assert ": 6 tumour and " in tiled(tmp_path, table, capsys)
    table.write_text("slide,Annotation\nslides/a.tif,lost.json\n")
    assert "correct the column 'annotation'" in tiled(tmp_path, table, capsys, 1)


@situation(
    "slides",
    there="annotations that hold points or lines alone, or nothing at all",
    typed="tumortrace tile SLIDES -o DIR",
    right="refused; where nothing is drawn and no label is known, a note says that all is taken for normal",
)
def test_annotations_that_outline_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What was marked and has no area is not called normal."""
    stitched(tmp_path / "slides")
    file = tmp_path / "slides" / "a.geojson"
    tumour = {"classification": {"name": "Tumor"}}
    line = {"type": "LineString", "coordinates": [[1, 1], [9, 9]]}
    file.write_text(json.dumps([{"type": "Feature", "geometry": line, "properties": tumour}]))
    assert "nothing in it has an area: line (1)" in tiled(tmp_path, tmp_path / "slides", capsys, 1)
    file.write_text('{"type": "FeatureCollection", "features": []}')
    assert "a.geojson outlines nothing: all its tiles are taken for normal" in tiled(
        tmp_path, tmp_path / "slides", capsys
    )


@situation(
    "slides",
    there="slides of which none can be tiled",
    typed="tumortrace tile SLIDES -o DIR",
    right="each reason is told once",
)
def test_reasons_are_told_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Not again within another error."""
    stitched(tmp_path / "slides")
    (tmp_path / "slides" / "a.geojson").write_text("{")
    told = tiled(tmp_path, tmp_path / "slides", capsys, 1)
    assert told.count("not GeoJSON") == 1
    assert "1 slide, of which none could be tiled, as told above" in told


@situation(
    "slides",
    there="a run of patches as body, and slides of patients whose patches it has learnt from",
    typed="tumortrace embed-slides RUN slides.csv -o FEATURES",
    right="a warning; a training judged on them says that leakage is present",
)
def test_a_body_that_has_learnt_from_the_slides(
    small_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """By the patient's name. The run is known again where it has been moved to: nothing is computed twice."""
    body = shutil.copytree(small_run, tmp_path / "run")
    used = SPLITS.read(body)
    used.loc[used.index[used["split"] == "train"][0], "group"] = "P1"
    used.loc[used.index[used["split"] == "test"][0], "group"] = "p2"
    SPLITS.write(body, used)
    names = ["a", "b", "c", "d"]
    for name in names:
        draw(tmp_path / f"{name}.tif")
    table = pd.DataFrame({"slide": [f"{name}.tif" for name in names], "label": ["tumour", "normal"] * 2})
    table = table.assign(patient=["p3", "p4", "p1", "p2"], split=["train", "train", "test", "test"])
    table.to_csv(tmp_path / "table.csv", index=False)
    words = ["embed-slides", str(body), str(tmp_path / "table.csv"), "-o", str(tmp_path / "out")]
    assert run(words) == 0
    assert "has learnt from patches of 1 of 4 slides, or of their patients" in capsys.readouterr().err
    cohort = open_cohort(tmp_path / "out")
    assert [note for note in cohort.notes if note.startswith("warning: the body has learnt from patches of 1 of")]
    splits = assign_splits(cohort, fractions={"train": 0.5, "test": 0.5})
    assert splits.leakage.startswith("present: the body of the features has learnt from patches of 1 of 2 test slides")
    assert TAUGHT not in open_cohort(tmp_path / "out" / "d.h5").table
    words[1] = str(shutil.move(body, tmp_path / "moved"))
    assert run(words) == 0
    assert capsys.readouterr().err.count("complete already with the same slide, body and settings") == 4


@situation(
    "slides",
    there="features of one slide, or of slides of one class, with a table of slides of both",
    typed="tumortrace explain RUN FEATURES/a.h5",
    right="read: the table's other slides say which class is positive",
)
def test_features_of_one_class(tmp_path: Path) -> None:
    """One file, and a folder from which the other class is missing."""
    for name in "ab":
        with h5py.File(tmp_path / f"{name}.h5", "w") as target:
            target["features"], target["coords"] = np.ones((3, 5)), np.zeros((3, 2), int)
    (tmp_path / "slides.csv").write_text("slide,label\nb,normal\na,tumour\n")
    cohort = open_cohort(tmp_path / "a.h5")
    assert (cohort.table["id"].tolist(), cohort.table["label"].tolist()) == (["a"], [1])
    assert cohort.classes == ("normal", "tumour")
    (tmp_path / "a.h5").unlink()
    assert open_cohort(tmp_path).table["label"].tolist() == [0]


@situation(
    "slides",
    there="features of slides, of which the table puts those of one class alone into the calibration split",
    typed="tumortrace train FEATURES --recipe slide-attention",
    right="refused: how many slides the split holds, and of which class",
)
def test_a_split_of_one_class_of_slides(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """In words of slides; a single one as well."""
    data = write_bags(tmp_path / "bags", patients=8, slides=1, tiles=3, width=2)
    table = pd.read_csv(data / "slides.csv")
    for rows, told in (([6, 7], "2 slides, all of class 'tumour'"), ([7], "1 slide, all of class 'tumour'")):
        split = ["train", "train", "validation", "validation", "test", "test", "train", "train"]
        for row in rows:
            split[row] = "calibration"
        named = table.assign(split=split, label=["normal", "tumour"] * 3 + ["tumour"] * 2)
        named.to_csv(data / "slides.csv", index=False)
        assert run(["train", str(data), "--recipe", "slide-attention", "-o", str(tmp_path / "runs")]) == 1
        line = " ".join(capsys.readouterr().err.splitlines()[-1:])
        assert f"split 'calibration' holds {told}; expected slides of both classes in train" in line


def test_a_number_without_an_interval_says_so() -> None:
    """Where too few slides or patients are drawn for one."""
    values = {name: {"value": 0.5, "ci95": None} for name in ("auroc", "sensitivity", "specificity", "ece")}
    assert "auroc 0.500 (no interval), " in headline(SplitMetrics.model_validate(values | {"n": 2}))
