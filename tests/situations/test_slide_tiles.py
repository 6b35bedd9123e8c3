"""Tiles out of annotated slides: their labels, samples, pictures and files."""

import hashlib
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import shapely
import tifffile
from shapely.geometry import Polygon, box

from tests.situations.situation import situation
from tests.slides import drawn as write
from tumortrace.cli.main import run
from tumortrace.cohorts.layouts import open_cohort
from tumortrace.cohorts.splits import assign_splits
from tumortrace.images.decoding import read_image
from tumortrace.records.tiles import TilingRecord
from tumortrace.slides.annotations.classes import Areas
from tumortrace.slides.tiles.labels import label_tiles
from tumortrace.slides.tiles.sampling import Sampling, quotas

SIDE, COLUMNS, ROWS = 48, 8, 6
RING = Polygon([(10, 10), (190, 10), (190, 190), (10, 190)], [[(70, 70), (130, 70), (130, 130), (70, 130)]])
DRAWN = [("Tumor", RING), ("Tumor", box(240, 20, 350, 80)), ("Stroma", box(200, 200, 300, 280))]


def stitched(folder: Path, name: str = "a", seed: int = 0) -> tuple[Path, np.ndarray]:
    """A slide of tissue-coloured patches, each with its label, and the labels (rows, columns)."""
    rng = np.random.default_rng(seed)
    labels = rng.random((ROWS, COLUMNS)) < 0.4
    shade = np.where(labels, 90, 170).repeat(SIDE, 0).repeat(SIDE, 1)[..., None]
    pixels = np.clip(shade + np.array([60, -30, 50]) + rng.integers(-20, 20, (*shade.shape[:2], 3)), 0, 255)
    folder.mkdir(exist_ok=True)
    file = folder / f"{name}.tif"
    tifffile.imwrite(
        file,
        pixels.astype(np.uint8),
        tile=(64, 64),
        photometric="rgb",
        metadata=None,
        resolution=(2e4, 2e4),
        resolutionunit="CENTIMETER",
    )
    return file, labels


def outlines_of(labels: np.ndarray) -> list[tuple[str, Polygon]]:
    boxes = [box(x * SIDE, y * SIDE, (x + 1) * SIDE, (y + 1) * SIDE) for y, x in zip(*np.nonzero(labels), strict=True)]
    union = shapely.union_all(boxes)
    return [("Tumor", part) for part in getattr(union, "geoms", [union])]


def tiled(folder: Path, *words: object, code: int = 0) -> pd.DataFrame:
    out = folder / "out"
    assert run(["tile", *map(str, words), "-o", str(out), "--size", str(SIDE), "--resolution", "0.5"]) == code
    return open_cohort(out).table


def files_of(folder: Path) -> dict[str, str]:
    files = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    return {str(file.relative_to(folder)): hashlib.sha256(file.read_bytes()).hexdigest() for file in files}


@situation(
    "slides",
    there="a slide stitched from patches, and QuPath's outlines of those with tumour",
    typed="tumortrace tile SLIDE -o TILES",
    right="all labels come back, by each labelling rule",
)
@pytest.mark.parametrize("rule", ["centre-third", "share", "centre"])
def test_the_outlines_that_were_stitched_give_all_labels_back(tmp_path, rule):
    slide, labels = stitched(tmp_path / "slides")
    write.qupath(tmp_path / "slides" / "a.geojson", outlines_of(labels))
    table = tiled(tmp_path, slide, "--label-by", rule, "--minimum-tissue", 0)
    assert len(table) == ROWS * COLUMNS
    given = labels[table["y"] // SIDE, table["x"] // SIDE]
    assert (table["label"].to_numpy(int) == given).all()
    pixels = tifffile.imread(slide)
    for row in table.sample(5, random_state=0).itertuples():
        assert (read_image(row.path) == pixels[row.y : row.y + SIDE, row.x : row.x + SIDE]).all()


@situation(
    "slides",
    there="the same annotations from QuPath 0.2 to 0.7, ASAP and as a mask, with holes and exclusions",
    typed="tumortrace tile SLIDE --annotations FILE --class Stroma=negative -o TILES",
    right="the same tiles with the same labels",
)
def test_all_ways_of_writing_annotations_agree_in_every_tile(tmp_path):
    slide, _ = stitched(tmp_path / "slides")
    size = SIDE * COLUMNS, SIDE * ROWS
    files = [write.qupath(tmp_path / f"{v}.geojson", DRAWN, v, colour=v != "0.5") for v in write.VERSIONS]
    files += [write.asap(tmp_path / "a.xml", DRAWN), write.asap(tmp_path / "c.xml", DRAWN, comma=True)]
    files += [write.mask(tmp_path / "m.png", DRAWN, size, {"Tumor": 1, "Stroma": 2})]
    told = ["--class", "Stroma=negative", "--class", "1=positive", "--class", "2=negative", "--overlap", 0.5]
    answers = []
    for number, file in enumerate(files):
        table = tiled(tmp_path / str(number), slide, "--annotations", file, *told, "--minimum-tissue", 0)
        answers.append(table[["x", "y", "label"]].to_numpy(int))
    assert answers[0][:, 2].sum() > 20
    assert all((answer == answers[0]).all() for answer in answers)


@situation(
    "slides",
    there="a folder of annotations from several hands: QuPath's of one slide, ASAP's of another, a mask of a third",
    typed="tumortrace tile SLIDES --annotations FOLDER -o TILES",
    right="each slide's own are read; all labels come back",
)
def test_annotations_of_several_programs_lie_in_one_folder(tmp_path):
    """One slide each of both exports of QuPath, of CAMELYON16's and CAMELYON17's groups, and of a mask."""
    home, drawn = tmp_path / "slides", tmp_path / "drawn"
    drawn.mkdir()
    labels = {name: stitched(home, name, seed)[1] for seed, name in enumerate("abcde")}
    polygons = {name: [polygon for _, polygon in outlines_of(given)] for name, given in labels.items()}
    write.qupath(drawn / "a.geojson", [("Tumor", polygon) for polygon in polygons["a"]])
    write.qupath(drawn / "b.json", [("Tumor", polygon) for polygon in polygons["b"]], "0.2", colour=False)
    write.asap(drawn / "c.xml", [("_0", polygon) for polygon in polygons["c"]])
    write.asap(drawn / "d.xml", [("metastases", polygon) for polygon in polygons["d"]], exclusion="Exclusion")
    mask = [("Tumor", polygon) for polygon in polygons["e"]]
    write.mask(drawn / "e_mask.png", mask, (SIDE * COLUMNS, SIDE * ROWS), {"Tumor": 255})
    table = tiled(tmp_path, home, "--annotations", drawn, "--minimum-tissue", 0)
    assert table["slide"].value_counts().to_dict() == dict.fromkeys("abcde", ROWS * COLUMNS)
    for row in table.itertuples():
        assert row.label == labels[row.slide][row.y // SIDE, row.x // SIDE], row


def test_each_rule_on_a_tile_worked_by_hand():
    """A tile of 90 px: the middle third is 30 to 60, the middle 45."""
    tiles = pd.DataFrame({"x": [0], "y": [0], "width": [90], "height": [90]})

    def answers(area, share=0.5):
        return [label_tiles(tiles, Areas(area), rule, share)[0] for rule in ("centre-third", "share", "centre")]

    assert answers(box(0, 0, 30, 90)) == [0, 0, 0]  # touches the middle third
    assert answers(box(0, 0, 31, 31)) == [1, 0, 0]
    assert answers(box(0, 0, 45, 90)) == [1, 1, 0]
    assert answers(box(0, 0, 46, 46)) == [1, 0, 1]
    assert answers(box(0, 0, 9, 90), share=0.1) == [0, 1, 0]
    excluded = Areas(box(0, 0, 90, 90), box(40, 40, 41, 41))
    assert label_tiles(tiles, excluded, "centre-third", 0.5).isna().all()
    assert label_tiles(tiles, excluded, "centre", 0.5).tolist() == [1]


@situation(
    "slides",
    there="tiles on the edge of the slide, or of the tumour",
    typed="tumortrace tile SLIDE --leave-out edge --leave-out mixed -o TILES",
    right="they are left out",
)
def test_edges_and_mixed_tiles_are_left_out_on_request(tmp_path):
    slide, _ = stitched(tmp_path / "slides")
    drawn = [("Tumor", box(10, 10, 150, 150))]
    write.qupath(tmp_path / "slides" / "a.geojson", drawn)
    table = tiled(tmp_path, slide, "--leave-out", "edge", "--leave-out", "mixed", "--overlap", 0.3)
    assert (table["x"] + SIDE <= SIDE * COLUMNS).all()
    whole = [box(x, y, x + SIDE, y + SIDE) for x, y in table[["x", "y"]].itertuples(index=False)]
    tumour = drawn[0][1]
    assert all(square.within(tumour) or square.intersection(tumour).area == 0 for square in whole)
    assert table["label"].tolist() == [int(square.within(tumour)) for square in whole]


@situation(
    "slides",
    there="annotations of a class Lesion, and some without a class",
    typed="tumortrace tile SLIDE -o TILES",
    right="refused, naming them, until --class says what they mean",
)
def test_classes_that_nobody_knows_are_told_and_not_guessed(tmp_path, capsys):
    slide, _ = stitched(tmp_path / "slides")
    write.qupath(tmp_path / "slides" / "a.geojson", [("Lesion", box(0, 0, 100, 100)), ("", box(0, 0, 9, 9))])
    out = tmp_path / "out"
    asked = ["tile", str(slide), "-o", str(out), "--size", "48", "--resolution", "0.5"]
    assert run(asked) != 0
    said = capsys.readouterr().err
    assert "annotations of 'Lesion', no class at all" in said
    assert "--class" in said
    assert run([*asked, "--class", "lesion=positive", "--class", "none=ignore", "--class", "Stromma=negative"]) == 0
    assert open_cohort(out).table["label"].sum() == 4  # middle thirds from 16, 64 and 112 px on
    said = capsys.readouterr().err
    assert "--class stromma=negative changes nothing: no outline is of this class" in said
    assert "--class lesion" not in said
    assert run([*asked, "--class", "lesion=tumour"]) != 0
    assert "--class lesion=tumour" in capsys.readouterr().err


def table_of_slides(folder: Path, labels: list[str]) -> Path:
    rows = []
    for number, label in enumerate(labels):
        name = f"s{number}"
        _, given = stitched(folder / "slides", name, seed=number)
        if label == "tumour":
            write.qupath(folder / "slides" / f"{name}.geojson", outlines_of(given))
        rows.append({"slide": f"slides/{name}.tif", "label": label, "patient": f"p{number // 2}"})
    pd.DataFrame(rows).to_csv(folder / "slides.csv", index=False)
    return folder / "slides.csv"


@situation(
    "slides",
    there="a table of slides, some without annotations",
    typed="tumortrace tile slides.csv -o TILES",
    right="negative where their label is; else left out, aloud",
)
def test_a_slide_without_annotations_is_negative_only_where_its_label_says_so(tmp_path, capsys):
    table = table_of_slides(tmp_path, ["tumour", "normal", "tumour", "normal"])
    (tmp_path / "slides" / "s2.geojson").unlink()
    tiles = tiled(tmp_path, table)
    assert sorted(tiles["slide"].unique()) == ["s0", "s1", "s3"]
    assert tiles.groupby("slide")["label"].sum()[["s1", "s3"]].tolist() == [0, 0]
    assert dict(zip(tiles["slide"], tiles["group"], strict=True)) == {"s0": "p0", "s1": "p0", "s3": "p1"}
    assert "s2: no annotations, and its label says that it holds tumour: left out" in capsys.readouterr().err


@situation(
    "slides",
    there="a broken slide, and a normal one with tumour outlined",
    typed="tumortrace tile slides.csv -o TILES",
    right="both told at the end; tiles of the others open",
)
def test_a_broken_slide_and_a_contradiction_are_told_at_the_end_and_not_in_the_way(tmp_path, capsys):
    table = table_of_slides(tmp_path, ["tumour", "normal", "normal"])
    (tmp_path / "slides" / "s1.tif").write_bytes(b"II*\0nothing")
    write.qupath(tmp_path / "slides" / "s2.geojson", [("Tumor", box(0, 0, 100, 100))])
    tiles = tiled(tmp_path, table, code=1)
    assert tiles["slide"].unique().tolist() == ["s0"]
    said = capsys.readouterr().err
    assert "2 of 3 slides could not be tiled" in said
    assert "its label says that it holds none, its annotations outline tumour" in said
    assert "Traceback" not in said


def test_so_many_of_a_slide_and_class_and_as_many_of_both(tmp_path):
    table = table_of_slides(tmp_path, ["tumour", "normal"])
    tiles = tiled(tmp_path, table, "--per-slide", 5)
    assert tiles.groupby(["slide", "label"]).size().to_dict() == {("s0", 0): 5, ("s0", 1): 5, ("s1", 0): 5}
    balanced = tiled(tmp_path / "b", table, "--balanced")
    assert (balanced["label"] == 1).sum() == (balanced["label"] == 0).sum() > 0
    assert quotas([{0: 9, 1: 3}, {0: 1, 1: 0}, {0: 9, 1: 1}], Sampling(None, True, 0)) == [
        {0: 2, 1: 3},
        {0: 1, 1: 0},
        {0: 1, 1: 1},
    ]


@situation(
    "slides",
    there="a trained model and annotated slides",
    typed="tumortrace tile SLIDES --per-slide 3 --mine RUN -o TILES",
    right="negative tiles with the highest probability are taken",
)
def test_hard_negatives_are_those_that_a_model_is_surest_of(tmp_path, monkeypatch):
    from types import SimpleNamespace

    def assess(images):
        return SimpleNamespace(probability=1 - images.mean(axis=(1, 2, 3)) / 255)

    info = SimpleNamespace(patch_size=(SIDE, SIDE), resolution=0.5, weights_sha256="w")
    model = SimpleNamespace(info=info, assess=assess, require_preparation=lambda *_: None)
    monkeypatch.setattr("tumortrace.models.bundle.load_model", lambda *_, **__: model)
    table = table_of_slides(tmp_path, ["tumour", "normal"])
    everything = tiled(tmp_path / "all", table)
    darkness = {row.id: 1 - read_image(row.path).mean() / 255 for row in everything.itertuples() if row.label == 0}
    tiles = tiled(tmp_path, table, "--per-slide", 3, "--mine", tmp_path)
    for slide, rows in tiles[tiles["label"] == 0].groupby("slide"):
        hardest = sorted((name for name in darkness if name.startswith(slide)), key=darkness.get)[-3:]
        assert sorted(rows["id"]) == sorted(hardest)
    info.resolution = 1.0
    assert run(["tile", str(table), "-o", str(tmp_path / "x"), "--per-slide", "3", "--mine", str(tmp_path)]) != 0


def test_the_same_call_is_not_done_twice_and_another_one_is_refused(tmp_path, capsys):
    table = table_of_slides(tmp_path, ["tumour", "normal"])
    tiled(tmp_path, table)
    before = files_of(tmp_path / "out")
    assert set(before) == {
        "tiles.json",
        *(f"tiles/000{n}-s{n - 1}.parquet" for n in (1, 2)),
        *(f"previews/000{n}-s{n - 1}.png" for n in (1, 2)),
    }
    tiled(tmp_path, table)
    assert "complete already" in capsys.readouterr().err
    assert files_of(tmp_path / "out") == before
    asked = ["tile", str(table), "-o", str(tmp_path / "out"), "--size", "48", "--resolution", "0.5", "--seed", "1"]
    assert run(asked) != 0
    assert "holds tiles that were cut otherwise: seed 0, now 1;" in capsys.readouterr().err


@situation(
    "slides",
    there="a call that was killed",
    typed="tumortrace tile slides.csv -o TILES, again",
    right="goes on with the next slide; the same bytes in every file",
)
def test_killed_and_called_again_it_ends_with_the_same_bytes(tmp_path):
    table = table_of_slides(tmp_path, ["tumour", "normal", "tumour"])
    tiled(tmp_path / "whole", table)
    out = tmp_path / "killed" / "out"
    words = ["tile", str(table), "-o", str(out), "--size", "48", "--resolution", "0.5"]
    script = f"""
import os, signal
import tumortrace.slides.tile as t
write, calls = t.write_shard, []
def dying(*given):
    calls.append(1)
    if len(calls) == 2:
        os.kill(os.getpid(), signal.SIGKILL)
    write(*given)
t.write_shard = dying
from tumortrace.cli.main import run
run({words!r})
"""
    killed = subprocess.run([sys.executable, "-c", script], capture_output=True, check=False)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert TilingRecord.read(out).status == "unfinished"
    assert len(list((out / "tiles").glob("*.parquet"))) == 1
    assert run(["check", str(out)]) != 0
    assert run(words) == 0
    assert files_of(out) == files_of(tmp_path / "whole" / "out")


@situation(
    "slides",
    there="tiles of slides of which two each are of one patient",
    typed="tumortrace train TILES",
    right="no patient is in two splits",
)
def test_tiles_are_split_by_patient(tmp_path):
    table = table_of_slides(tmp_path, ["tumour", "normal"] * 6)
    tiled(tmp_path, table, "--per-slide", 4)
    splits = assign_splits(open_cohort(tmp_path / "out"))
    assert splits.leakage == "ruled out: splits share no slide or patient (6 groups)"
    rows = splits.table.merge(open_cohort(tmp_path / "out").table[["id", "slide"]], on="id")
    assert rows.groupby(rows["slide"].str[1:].astype(int) // 2)["split"].nunique().max() == 1
    assert rows["split"].nunique() == 4


def test_masks_beside_slides_are_no_slides_and_patients_come_from_names(tmp_path):
    for name in ("p1-a", "p1-b"):
        _, labels = stitched(tmp_path / "slides", name)
        size = SIDE * COLUMNS, SIDE * ROWS
        write.mask(tmp_path / "slides" / f"{name}_mask.png", outlines_of(labels), size, {"Tumor": 255}, step=4)
    table = tiled(tmp_path, tmp_path / "slides", "--patient-pattern", "^[^-]+", "--minimum-tissue", 0)
    assert table["group"].unique().tolist() == ["p1"]
    assert (table.groupby("slide")["label"].sum() == labels.sum()).all()


def test_two_files_of_annotations_of_a_slide_are_told(tmp_path, capsys):
    slide, labels = stitched(tmp_path / "slides")
    write.qupath(tmp_path / "slides" / "a.geojson", outlines_of(labels))
    write.asap(tmp_path / "slides" / "a.xml", outlines_of(labels))
    assert run(["tile", str(slide), "-o", str(tmp_path / "out")]) != 0
    assert "two files of annotations of a.tif: a.geojson and a.xml" in capsys.readouterr().err
