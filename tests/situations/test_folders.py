"""Folders as users of this field have them: classes, splits, patients, copies, and what the system leaves in them."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from tests.situations.situation import situation
from tumortrace.cli.main import run
from tumortrace.cohorts.cohort import Cohort
from tumortrace.cohorts.layouts import open_cohort
from tumortrace.errors import LONGEST, CohortError, shortened
from tumortrace.records.data import ExplorationRecord, ExploredCohort
from tumortrace.records.progress import say

CLASSES = ("benign", "malignant")


def pictures(root: Path, *names: str, seed: int = 0, size: int = 24) -> Path:
    """Different pictures of noise below `root`."""
    rng = np.random.default_rng(seed)
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 255, (size, size, 3), np.uint8)).save(root / name)
    return root


def column(cohort: Cohort, name: str) -> dict[str, object]:
    """A column by id, None where it is missing."""
    values = cohort.table[name].astype(object)
    return dict(zip(cohort.table["id"], values.where(values.notna(), None), strict=True))


def checked(capsys: pytest.CaptureFixture[str], *words: object) -> tuple[int, str]:
    """The exit code of `tumortrace check` and all that it says."""
    code = run(["check", *map(str, words)])
    said = capsys.readouterr()
    return code, said.out + said.err


@situation(
    "folders",
    there="class/patient_12/img.png: a folder for each patient below the class folders",
    typed="tumortrace check DATA",
    right="patients are the groups, said aloud",
)
def test_folders_of_patients_below_the_classes_are_groups(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    names = [f"{label}/patient_{p}/{i}.png" for label in ("benign", "malignant") for p in (1, 2) for i in range(2)]
    code, said = checked(capsys, pictures(tmp_path / "d", *names), "-o", tmp_path / "out")
    assert "groups come from the folders of level 2 (patient_1, patient_2, ...): 2 groups" in said
    assert "groups-unknown" not in said
    assert code == 0


@situation(
    "folders",
    there="10253/0/x.png, 10253/1/y.png: IDC as distributed, a folder for each patient above the classes",
    typed="tumortrace check DATA --group-from-name '^([^/]+)/'",
    right="classes by the second level, patients by the first",
)
def test_folders_of_patients_above_the_classes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = pictures(
        tmp_path / "d", *[f"{p}/{c}/{p}_{c}_{i}.png" for p in (10253, 10254, 10255) for c in (0, 1) for i in (0, 1)]
    )
    _, said = checked(capsys, data, "-o", tmp_path / "out")
    assert "classes are the folders 0 and 1, below those of 10253, 10254, 10255" in said
    assert "--group-from-name '^([^/]+)/' takes level 1" in said
    cohort = open_cohort(data, group_from_name="^([^/]+)/")
    assert column(cohort, "label")["10254_1_0"] == 1
    assert set(column(cohort, "group").values()) == {"10253", "10254", "10255"}


def test_slides_of_one_tcga_patient_are_one_group(tmp_path: Path) -> None:
    names = [f"{c}/TCGA-AA-123{p}-0{p + 1}Z-00-DX{s}/{c}.png" for c in CLASSES for p in (1, 2) for s in (1, 2)]
    assert set(open_cohort(pictures(tmp_path, *names)).table["group"]) == {"TCGA-AA-1231", "TCGA-AA-1232"}


def test_patterns_that_fit_names_go_before_paths(tmp_path: Path) -> None:
    """What worked on names alone works as before; what finds nothing lists the levels of folders."""
    data = pictures(tmp_path, "benign/s9/p1_a.png", "malignant/s8/p2_b.png")
    assert set(open_cohort(data, group_from_name=r"([ps]\d)").table["group"]) == {"p1", "p2"}
    assert set(open_cohort(data, group_from_name=r"([s]\d)").table["group"]) == {"s8", "s9"}
    assert open_cohort(data, label_from_name=r"^(benign|malignant)/").classes == ("benign", "malignant")
    with pytest.raises(
        CohortError, match=r"level 1: benign, malignant; level 2: s8, s9; '\^\[\^/\]\+/\(\[\^/\]\+\)/' finds"
    ):
        open_cohort(data, group_from_name=r"(q\d)")


@pytest.mark.parametrize(
    ("folders", "splits"),
    [
        (("Training", "Testing"), ("train", "test")),
        (("train", "dev", "holdout"), ("train", "validation", "test")),
        (("Train_set", "val_set", "Test_set"), ("train", "validation", "test")),
        (("01_TRAIN", "02-Validation", "03 hold-out"), ("train", "validation", "test")),
        (("trainImages", "validImages", "test2"), ("train", "validation", "test")),
    ],
)
@situation(
    "folders",
    there="Training/ and Testing/; train/, dev/, holdout/; Train_set/, val_set/",
    typed="tumortrace train DATA",
    right="each is the split that it is named as",
)
def test_split_folders_by_any_usual_name(tmp_path: Path, folders: tuple[str, ...], splits: tuple[str, ...]) -> None:
    data = pictures(tmp_path, *[f"{f}/{c}/{f}{c}.png" for f in folders for c in CLASSES])
    cohort = open_cohort(data)
    assert column(cohort, "split") == {f + c: s for f, s in zip(folders, splits, strict=True) for c in CLASSES}
    assert cohort.classes == ("benign", "malignant")


@pytest.mark.parametrize("unknown", ["external_validation", "evaluation", "hospital B"])
@situation(
    "folders",
    there="train/, test/ and a third folder with the same class folders",
    typed="tumortrace train DATA",
    right="refused by its name: which split it is is not known",
)
def test_a_folder_like_a_split_is_never_lost(tmp_path: Path, capsys: pytest.CaptureFixture[str], unknown: str) -> None:
    data = pictures(tmp_path, *[f"{f}/{c}/{f}{c}.png" for f in ("train", "test", unknown) for c in CLASSES])
    assert run(["train", str(data)]) == 1
    assert f"{unknown}/ beside test/, train/: which split it is is not known" in capsys.readouterr().err


@situation(
    "folders",
    there="benign/train/, benign/test/, malignant/train/ ...: splits below the classes",
    typed="tumortrace check DATA",
    right="the splits are taken",
)
def test_splits_below_the_classes_are_taken(tmp_path: Path) -> None:
    data = pictures(tmp_path, *[f"{c}/{s}/{c}{s}.png" for s in ("train", "test") for c in CLASSES])
    assert column(open_cohort(data), "split") == {
        "benigntrain": "train",
        "benigntest": "test",
        "malignanttrain": "train",
        "malignanttest": "test",
    }


@situation(
    "folders",
    there="a table of patients without labels (or BreakHis' Folds.csv) beside class folders",
    typed="tumortrace check DATA",
    right="the class folders are taken",
)
def test_class_folders_win_over_a_table_without_labels(tmp_path: Path) -> None:
    data = pictures(tmp_path / "a", "benign/1.png", "malignant/2.png")
    (data / "meta.csv").write_text("filename,subject\nbenign/1.png,p\nmalignant/2.png,q\n")
    cohort = open_cohort(data)
    assert (cohort.layout, cohort.table["group"].tolist()) == ("class-folders", ["p", "q"])
    assert "meta.csv holds no labels, but says of 2 images their subject" in cohort.notes
    deep = pictures(
        tmp_path / "b",
        "BreaKHis_v1/histology_slides/breast/benign/1.png",
        "BreaKHis_v1/histology_slides/breast/malignant/2.png",
    )
    rows = [f"{fold},40,train,BreaKHis_v1/histology_slides/breast/benign/1.png" for fold in range(1, 6)]
    (deep / "Folds.csv").write_text("fold,mag,grp,filename\n" + "\n".join(rows) + "\n")
    assert column(open_cohort(deep), "label") == {"1": 0, "2": 1}


@situation(
    "folders",
    there="dataset/dataset/benign/ and malignant/, as archives unpack",
    typed="tumortrace check dataset",
    right="the inner folder is opened, said aloud",
)
def test_a_folder_in_a_folder_is_opened_aloud(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = pictures(tmp_path / "dataset", "dataset/benign/1.png", "dataset/malignant/2.png")
    (data / "README.txt").touch()
    cohort = open_cohort(data)
    assert f"opened dataset/, the one folder of images in {data}" in cohort.notes
    assert open_cohort(cohort.source).fingerprint == cohort.fingerprint
    pictures(data, "figures/a.png")
    _, said = checked(capsys, data, "-o", tmp_path / "out")
    assert f"name the folder that holds the classes: {data / 'dataset'}" in said


CLUTTER = (
    "@eaDir/1.png/SYNOPHOTO_THUMB_M.jpg",
    "#recycle/old.png",
    "$RECYCLE.BIN/$R1.png",
    "._1.png",
    "__MACOSX/1.png",
)
CLUTTER += (".ipynb_checkpoints/1-checkpoint.png", "@Recycle/2.png", ".@__thumb/s1001.png")


@situation(
    "folders",
    there="@eaDir, #recycle, $RECYCLE.BIN, .ipynb_checkpoints, __MACOSX, Thumbs.db, ._x.png among the images",
    typed="tumortrace check DATA",
    right="passed over in one line with their number",
)
def test_what_systems_leave_behind_is_passed_over_aloud(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pictures(tmp_path / "d", "benign/1.png", "malignant/2.png", *[f"benign/{name}" for name in CLUTTER])
    (tmp_path / "d" / "malignant" / "Thumbs.db").touch()
    assert len(open_cohort(tmp_path / "d")) == 2
    _, said = checked(capsys, tmp_path / "d", "-o", tmp_path / "out")
    assert "note: passed over 9 files hidden or kept by the system, such as benign/" in said


@situation(
    "folders",
    there="thumbnails among the pictures they were made from",
    typed="tumortrace check DATA",
    right="of near copies the larger stays out of the quarantine",
)
def test_of_near_copies_the_larger_stays(tmp_path: Path) -> None:
    """Thumbnails beside their originals, named so that they come first."""
    from tumortrace.cohorts.audit import check

    rng = np.random.default_rng(1)
    for label in ("benign", "malignant"):
        (tmp_path / label).mkdir()
        for number in range(4):
            coarse = Image.fromarray(rng.integers(0, 255, (12, 12, 3), np.uint8)).resize(
                (96, 96), Image.Resampling.BICUBIC
            )
            coarse.save(tmp_path / label / f"{number} z.png")
            coarse.resize((64, 64), Image.Resampling.LANCZOS).save(tmp_path / label / f"{number} thumb.jpg", quality=92)
    left_out = check(tmp_path).quarantine
    assert len(left_out) == 8
    assert all("thumb" in name for name in left_out["id"])


MASKS = {
    "QuPath": ("t [d=2,x=0,y=0,w=512,h=512].png", ["t [d=2,x=0,y=0,w=512,h=512]-labelled.png"]),
    "BUSI": ("us (1).png", ["us (1)_mask.png", "us (1)_mask_1.png"]),
    "ISIC": ("ISIC_0001.jpg", ["ISIC_0001_segmentation.png"]),
    "GlaS": ("train_1.bmp", ["train_1_anno.bmp"]),
    "others": ("x.png", ["x-mask.png", "X_seg.tif", "mask_x.png", "x.png_mask.png", "x_tumor_mask.png"]),
}


@pytest.mark.parametrize("kind", MASKS)
@situation(
    "folders",
    there="QuPath's X-labelled.png, BUSI's X_mask.png and X_mask_1.png beside X.png",
    typed="tumortrace train DATA",
    right="masks are left out, said aloud",
)
def test_masks_beside_their_pictures_are_left_out_aloud(tmp_path: Path, kind: str) -> None:
    picture, masks = MASKS[kind]
    pictures(
        tmp_path, f"benign/{picture}", "malignant/m.png", "malignant/lonely_mask.png", *[f"benign/{m}" for m in masks]
    )
    cohort = open_cohort(tmp_path)
    assert {Path(path).name for path in cohort.table["path"]} == {picture, "m.png", "lonely_mask.png"}
    assert any(f"left out {len(masks)} file" in note and "masks" in note for note in cohort.notes)


def test_folders_of_masks_beside_folders_of_images(tmp_path: Path) -> None:
    """images/ and masks/ above or below the classes."""
    above = pictures(tmp_path / "a", *[f"{kind}/{c}/{c}.png" for kind in ("images", "masks") for c in CLASSES])
    assert {Path(path).parts[-3] for path in open_cohort(above).table["path"]} == {"images"}
    below = pictures(tmp_path / "b", *[f"{c}/{kind}/{c}.png" for kind in ("img", "GT") for c in CLASSES])
    assert {Path(path).parts[-2] for path in open_cohort(below).table["path"]} == {"img"}


@situation(
    "folders",
    there="check-NAME/ of another data set of the same name",
    typed="tumortrace check other/NAME",
    right="refused: the audit names the folder it is of",
)
def test_the_audit_of_other_data_is_never_overwritten(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for number, place in enumerate(("a", "b")):
        pictures(tmp_path / place / "data", "benign/1.png", "malignant/2.png", seed=number)
    checked(capsys, "a/data")
    record = json.loads((tmp_path / "check-data" / "audit.json").read_text())
    assert record["data"] == str(tmp_path / "a" / "data")
    assert record["fingerprint"] == open_cohort(tmp_path / "a" / "data").fingerprint
    code, said = checked(capsys, "b/data")
    assert code == 1
    assert f"check-data: holds results of {tmp_path / 'a' / 'data'}" in said


def test_huge_values_are_cut_in_every_message(capsys: pytest.CaptureFixture[str]) -> None:
    """Bytes, text with blanks, a word: 80 characters of each; paths and prose stay."""
    values = [os.urandom(200_000), "the specimen shows " * 5000, {"bytes": os.urandom(200_000), "path": None}]
    for value in values:
        error = CohortError(f"line 2, column 'image': {value!r}", where="x.parquet", expected=repr(value))
        assert len(str(error)) < 300
        assert "..." in str(error)
        say(f"note: {value!r} was found")
    assert max(map(len, capsys.readouterr().err.splitlines())) < 200
    for attack in ("'" * 200_001, "'\\" * 100_000, "\\'" * 100_000, "a' " * 60_000, "x" * 200_000):
        assert len(shortened(attack)) < 2100
    assert shortened(f"{'x' * 200} here") == f"{'x' * LONGEST}... here"
    prose = f"the run's own record of {'/folder/name' * 15} and the data's are the user's own, as the model's"
    assert shortened(prose) == prose


def test_huge_values_of_tables_and_recipes_stay_short(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Labels, ids, groups, splits, names of columns and a recipe's values of 100,000 characters."""
    huge, words = "x" * 100_000, "the specimen shows " * 5000
    data = pictures(tmp_path / "d", "a.png", "b.png", "c.png")
    tables = [
        f"file,label,patient\na.png,{words},{words}\nb.png,{huge},{huge}\nc.png,1,1\n",
        f"file,label,split\na.png,0,{words}\nb.png,1,train\n",
        f"file,label\n{words}.png,0\n{huge}.png,1\n",
        f"{words},{huge}\n1,2\n",
        f"file,label,x\na.png,0,{words}\nb.png,1,{huge}\n",
        f"file,label,{words}\na.png,0,1\nb.png,1,2\nc.png,0,1\n",
    ]
    for number, text in enumerate(tables):
        (data / "t.csv").write_text(text)
        for verb in (["check", "-o", str(tmp_path / f"out{number}")], ["train", "--out", str(tmp_path / "runs")]):
            assert run([verb[0], str(data / "t.csv"), *verb[1:]]) == 1 or number == 5
            lines = capsys.readouterr()
            assert max(map(len, (lines.out + lines.err).splitlines())) < 1500, (number, verb)
    for change in (f"model.name={huge}", f"epochs={words}", f"augmentation=[{', '.join('1' * 9000)}]"):
        assert run(["train", str(data), "--set", change]) == 1
        lines = capsys.readouterr()
        assert len(lines.out + lines.err) < 1500


@situation(
    "folders",
    there="predictions.csv of another data set, where one calls",
    typed="tumortrace predict RUN DATA",
    right="refused before the work, naming those data, also where ids are the same",
)
def test_predictions_of_other_images_are_never_overwritten(
    tmp_path: Path, small_run: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    pictures(tmp_path / "a", "1.png", "2.png", size=96)
    pictures(tmp_path / "b", "3.png", "2.png", size=96)
    assert run(["predict", str(small_run), "a"]) == 0
    assert run(["predict", str(small_run), "a"]) == 0
    before = (tmp_path / "predictions.csv").read_bytes()
    assert run(["predict", str(small_run), "b"]) == 1
    assert (
        f"predictions.csv: holds rows of other images of {tmp_path / 'a'} (2 rows, differing in '1')"
        in capsys.readouterr().err
    )
    assert (tmp_path / "predictions.csv").read_bytes() == before
    pictures(tmp_path / "elsewhere" / "a", "1.png", "2.png", size=96, seed=7)
    assert run(["predict", str(small_run), "elsewhere/a"]) == 1
    told = f"holds rows of {tmp_path / 'a'}, whose images have the same ids and are others"
    assert told in capsys.readouterr().err
    assert (tmp_path / "predictions.csv").read_bytes() == before
    (tmp_path / "notes.csv").write_text("word\nmine\n")
    assert run(["predict", str(small_run), "b", "-o", "notes.csv"]) == 1


@situation(
    "folders",
    there="label images of QuPath (palettes of few entries) in class folders, their pictures elsewhere",
    typed="tumortrace check DATA",
    right="a warning, and they stand in quarantine.csv",
)
def test_palettes_of_few_entries_count_as_masks(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    names = [f"{c}/{c}{n}.png" for c in CLASSES for n in range(4)]
    data = pictures(tmp_path / "d", *names)
    rng = np.random.default_rng(2)
    for n in range(3):
        label = Image.fromarray(rng.integers(0, 5, (24, 24), np.uint8))
        label.putpalette([0, 0, 0, 200, 0, 0, 0, 200, 0, 0, 0, 200, 200, 200, 0])
        label.save(data / "benign" / f"t{n}-labelled.png")
    _, said = checked(capsys, data, "-o", tmp_path / "out")
    assert "mask-like: 3 images" in said
    assert "t0-labelled" in (tmp_path / "out" / "quarantine.csv").read_text()


def test_features_and_explorations_of_other_data_are_never_overwritten(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for place, n in (("a", 0), ("b", 5)):
        names = [f"{c}/{c}{n + i}.png" for c in CLASSES for i in range(2)]
        pictures(tmp_path / place / "data", *names, seed=n)
    assert run(["features", "a/data", "--descriptors", "lbp-uniform"]) == 0
    assert run(["features", "b/data", "--descriptors", "lbp-uniform"]) == 1
    assert "features.parquet: holds rows of other images (4 rows, differing in 'benign0')" in capsys.readouterr().err
    (tmp_path / "explore-data").mkdir()
    ExplorationRecord(cohort=ExploredCohort(data=str(tmp_path / "a" / "data"))).write(tmp_path / "explore-data")
    assert run(["explore", "b/data", "--no-check"]) == 1
    assert f"explore-data: holds results of {tmp_path / 'a' / 'data'}" in capsys.readouterr().err


def test_the_evaluation_of_another_table_is_replaced_aloud(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for place, flip in (("a", 0), ("b", 1)):
        rows = [f"{n},{(n + flip) % 2},{0.1 + 0.8 * (n % 2)}" for n in range(40)]
        (tmp_path / place).mkdir()
        (tmp_path / place / "p.csv").write_text("id,label,probability\n" + "\n".join(rows) + "\n")
    write = "tumortrace.inference.evaluate_predictions.write_evaluation"
    monkeypatch.setattr(write, lambda folder, table, threshold, record, **_: record.write(folder))
    for place, told in (("a", False), ("a", False), ("b", True)):
        assert run(["evaluate", "--predictions", f"{place}/p.csv"]) == 0
        assert ("held the evaluation of another table (p.csv), which is replaced" in capsys.readouterr().err) == told


@situation(
    "folders",
    there="images to predict, in a folder for each patient: pt_0/, pt_1/, pt_2/ ...",
    typed="tumortrace predict RUN DATA",
    right="predicted as unlabelled, and told that the folders are none of the model's classes",
)
@pytest.mark.parametrize("folders", [2, 5])
def test_folders_of_patients_to_predict_are_no_classes(
    folders: int, small_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    random = np.random.default_rng(0)
    for number in range(folders):
        (tmp_path / "data" / f"pt_{number}").mkdir(parents=True)
        pixels = random.integers(0, 256, (96, 96, 3), np.uint8)
        Image.fromarray(pixels).save(tmp_path / "data" / f"pt_{number}" / "x.png")
    out = tmp_path / "predictions.csv"
    assert run(["predict", str(small_run), str(tmp_path / "data"), "-o", str(out)]) == 0
    assert "pt_0, pt_1" in capsys.readouterr().err.replace("\n", " ")
    assert len(pd.read_csv(out)) == folders
