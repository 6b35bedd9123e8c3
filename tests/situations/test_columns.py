"""Tables as users of this field have them: patients, labels and images in columns of their own names."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.situations.situation import situation
from tests.situations.test_folders import checked, column, pictures
from tumortrace.cli.main import run
from tumortrace.cohorts.columns import column_groups, image_column_of
from tumortrace.cohorts.layouts import open_cohort
from tumortrace.cohorts.tables import read_table
from tumortrace.errors import CohortError


def table(folder: Path, name: str, *lines: str) -> Path:
    (folder / name).write_text("\n".join(lines) + "\n")
    return folder / name


@pytest.mark.parametrize(
    "name",
    [
        *(
            "patient_id",
            "case_id",
            "slide_id",
            "PatientID",
            "subject",
            "Patient ID",
            "patient-nr",
            "Subject_ID",
            "donor",
        ),
        *("bcr_patient_barcode", "case_submitter_id", "WSI", "slide name", "participant", "specimen_id", "pid", "MRN"),
    ],
)
@situation(
    "tables",
    there="a table with patient_id, case_id, slide_id, PatientID, subject ...",
    typed="tumortrace check DATA",
    right="that column is the group, said aloud",
)
def test_columns_of_patients_are_groups_by_any_usual_name(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    data = pictures(tmp_path / "d", *[f"{number}.png" for number in range(8)])
    table(data, "t.csv", f"file,label,{name}", *[f"{n}.png,{n % 2},p{n // 4}" for n in range(8)])
    _, said = checked(capsys, data, "-o", tmp_path / "out")
    assert f"groups come from column {name.lower()!r}: 2 groups; --group-column names another" in said


@pytest.mark.parametrize("name", ["patient_age", "slide_magnification", "casein", "patient_sex", "site", "subjective"])
def test_other_columns_are_no_groups_and_the_remedy_names_the_option(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    data = pictures(tmp_path / "d", *[f"{number}.png" for number in range(8)])
    table(data, "t.csv", f"file,label,{name}", *[f"{n}.png,{n % 2},{n // 4}" for n in range(8)])
    _, said = checked(capsys, data, "-o", tmp_path / "out")
    assert f"name it with --group-column: {name}" in said


def test_the_patient_goes_before_the_slide_unless_it_stands_for_each_image(tmp_path: Path) -> None:
    file = table(tmp_path, "t.csv", "id,slide_id,patient_id,case", "a,s1,p1,0", "b,s2,p1,1", "c,s3,p2,0", "d,s3,p2,1")
    named = column_groups(read_table(file)[0], None, "t.csv")
    assert named is not None
    assert named[0].tolist() == ["p1", "p1", "p2", "p2"]
    assert "such as 'slide_id'" in named[1]
    file = table(tmp_path, "t.csv", "id,slide_id,case_id", "a,s1,1", "b,s1,2", "c,s3,3")
    named = column_groups(read_table(file)[0], None, "t.csv")
    assert named is not None
    assert named[0].tolist() == ["s1", "s1", "s3"]


@pytest.mark.parametrize(
    "name", ["target", "Diagnosis", "tumor", "is_tumor", "class", "Label_Name", "malignant", "cancer"]
)
@situation(
    "tables",
    there="a table whose labels stand in target, diagnosis, tumor ...",
    typed="tumortrace check TABLE",
    right="the one such column with two classes is taken, said aloud",
)
def test_columns_of_labels_by_usual_names(tmp_path: Path, name: str) -> None:
    pictures(tmp_path, "a.png", "b.png")
    cohort = open_cohort(table(tmp_path, "t.csv", f"file,{name},age", "a.png,benign,50", "b.png,malignant,60"))
    assert column(cohort, "label") == {"a": 0, "b": 1}
    assert f"labels come from column {name.lower()!r}: --label-column names another" in cohort.notes


@situation(
    "tables",
    there="a table whose labels stand in a column that no name tells",
    typed="tumortrace train TABLE",
    right="columns with two values are named with --label-column, which takes one",
)
def test_columns_with_two_values_are_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = pictures(tmp_path / "d", *[f"{number}.png" for number in range(8)])
    lines = [f"{n}.png,{'+' if n % 2 else '-'},{n // 4},{n}" for n in range(8)]
    file = table(data, "t.csv", "file,ki67,site,age", *lines)
    assert run(["train", str(file), "--out", str(tmp_path / "runs")]) == 1
    assert "name the column of labels with --label-column; it may be ki67, site" in capsys.readouterr().err
    cohort = open_cohort(file, label_column="KI67", positive="+")
    assert cohort.table["label"].sum() == 4
    with pytest.raises(CohortError, match=r"no column 'her2'; expected one of the columns .*--label-column"):
        open_cohort(file, label_column="her2")
    both = table(data, "u.csv", "file,tumor,target", *[f"{n}.png,{n % 2},{n // 4}" for n in range(8)])
    assert any("columns that may be labels: tumor, target" in note for note in open_cohort(both).notes)


@situation(
    "tables",
    there="train.csv, val.csv and test.csv beside images/; the column image has no endings",
    typed="tumortrace check DATA",
    right="each table is the split that it is named as",
)
def test_a_table_for_each_split_beside_the_images(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = pictures(tmp_path / "d", *[f"images/{'p1/' if n < 3 else ''}{n}.jpg" for n in range(6)])
    for number, name in enumerate(("train", "val", "test")):
        table(data, f"{name}.csv", "image,target", f"{2 * number},0", f"{2 * number + 1},1")
    table(data, "sample_submission.csv", "id,label", "4,0")
    _, said = checked(capsys, data, "-o", tmp_path / "out")
    assert "opened by its tables test.csv, train.csv, val.csv" in said
    cohort = open_cohort(data)
    assert column(cohort, "split") == dict(
        zip("012345", ["train"] * 2 + ["validation"] * 2 + ["test"] * 2, strict=True)
    )
    assert column(cohort, "label") == {str(n): n % 2 for n in range(6)}
    table(data, "external_validation.csv", "image,target", "0,0")
    with pytest.raises(CohortError, match=r"external_validation.csv beside .*: which split it is is not known"):
        open_cohort(data)
    (data / "external_validation.csv").unlink()
    table(data, "test.csv", "image,target", "0,0", "5,1")
    with pytest.raises(CohortError, match=r"1 images stand in several of its tables, such as 'images/p1/0.jpg'"):
        open_cohort(data)


def test_a_column_of_splits_by_its_values(tmp_path: Path) -> None:
    """Whatever it is called: all its values are names of splits."""
    pictures(tmp_path, "a.png", "b.png", "c.png")
    file = table(tmp_path, "t.csv", "file,label,partition", "a.png,0,Training", "b.png,1,dev", "c.png,1,hold-out")
    assert column(open_cohort(file), "split") == {"a": "train", "b": "validation", "c": "test"}


def test_images_in_a_column_of_any_name(tmp_path: Path) -> None:
    pictures(tmp_path, "patches/a.png", "patches/b.png")
    file = table(tmp_path, "t.csv", "image_name,label", "a,0", "b.png,1")
    assert len(open_cohort(file)) == 2
    file = table(tmp_path, "t.csv", "roi,label", "a,0", "b.png,1")
    with pytest.raises(CohortError, match=r"none says where the images are.*--image-column"):
        open_cohort(file)
    assert len(open_cohort(file, image_column="ROI")) == 2
    assert image_column_of(["label", "img_path"]) == "img_path"


@situation(
    "folders",
    there="patients of train/ stand in test/ too",
    typed="tumortrace train DATA --allow groups-across-splits",
    right="refused without the option, which the remedy names; with it trained, on record",
)
def test_a_leak_that_the_data_bring_can_be_allowed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from tumortrace.cohorts.material import admit
    from tumortrace.records.run import Admission

    names = [
        f"{s}/{c}/{s}{c}{n}.png" for s in ("train", "val", "test") for c in ("benign", "malignant") for n in range(4)
    ]
    data = pictures(tmp_path / "d", *names)
    words = ["train", str(data), "--group-from-name", r"(\d)$", "--out", str(tmp_path / "runs")]
    assert run(words) == 1
    assert "--allow groups-across-splits goes on with the leak, on record" in capsys.readouterr().err

    def admitted(allow: list[str]) -> Admission:
        _, splits, admission = admit(
            data,
            lambda material: material.divide("group", 0, None),
            out=tmp_path / "runs",
            leave_out=None,
            split="group",
            allow=allow,
            policies=[],
            group_from_name=r"(\d)$",
        )
        assert splits.leakage.startswith("present")
        return admission

    assert "groups-across-splits" in admitted(["groups-across-splits"]).allowed


def test_a_split_folder_of_one_class_is_told_as_a_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    names = [f"train/{c}/{c}{n}.png" for c in ("benign", "malignant") for n in range(8)]
    data = pictures(tmp_path / "d", *names, *[f"val/benign/v{n}.png" for n in range(4)])
    assert run(["train", str(data), "--out", str(tmp_path / "runs")]) == 1
    said = capsys.readouterr().err
    assert "split 'validation' holds" in said
    assert "put images of both classes into it, or do without the split folders" in said
    assert "column" not in said


def test_tables_of_ids_for_each_split(tmp_path: Path) -> None:
    """train.csv and test.csv of ids beside train/ and test/, as competitions have them; the test has no labels."""
    data = pictures(tmp_path, *[f"train/{n}.png" for n in range(4)], "test/4.png", "test/5.png")
    table(data, "train.csv", "id,target", *[f"{n},{n % 2}" for n in range(4)])
    table(data, "test.csv", "id", "4", "5")
    table(data, "sample_submission.csv", "id,target", "4,0", "5,0")
    cohort = open_cohort(data)
    assert cohort.table["split"].value_counts().to_dict() == {"train": 4, "test": 2}
    assert column(cohort, "label") == {"0": 0, "1": 1, "2": 0, "3": 1, "4": None, "5": None}


def test_options_for_columns_are_never_passed_over(tmp_path: Path) -> None:
    data = pictures(tmp_path, "benign/a.png", "malignant/b.png")
    with pytest.raises(CohortError, match=r"--label-column for data that are read as class-folders"):
        open_cohort(data, label_column="tumor")
    loose = pictures(tmp_path / "loose", "a.png", "b.png")
    table(loose, "labels.csv", "name,cancer", "a.png,0", "b.png,1")
    assert any("not read: labels.csv (columns name, cancer)" in note for note in open_cohort(loose).notes)
    assert column(open_cohort(loose / "labels.csv", image_column="name"), "label") == {"a": 0, "b": 1}


def test_tables_in_a_folder_beside_the_images(tmp_path: Path) -> None:
    """annotations/labels.csv for images/: the refusal of the folder names the table, which opens."""
    data = pictures(tmp_path, *[f"images/{n}.png" for n in range(4)], "annotations/preview.png")
    file = table(data / "annotations", "labels.csv", "image,label", *[f"{n},{n % 2}" for n in range(4)])
    with pytest.raises(CohortError, match=r"name the table: .*annotations/labels.csv"):
        open_cohort(data)
    assert column(open_cohort(file), "label") == {str(n): n % 2 for n in range(4)}


def test_train_labels_beside_labels_of_other_splits(tmp_path: Path) -> None:
    """Not the competition, which has one table of labels: no split is lost."""
    data = pictures(tmp_path, "train/a.png", "train/b.png", "val/c.png", "val/d.png")
    table(data, "train_labels.csv", "id,label", "a,0", "b,1")
    table(data, "val_labels.csv", "id,label", "c,0", "d,1")
    assert column(open_cohort(data), "split") == {"a": "train", "b": "train", "c": "validation", "d": "validation"}
