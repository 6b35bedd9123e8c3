"""Slides of a folder or a table: each with its label, patient and split, and what does not fit in one line."""

from pathlib import Path

import pandas as pd
import pytest

from tumortrace.errors import TumorTraceError
from tumortrace.slides.cohort import SlideEntry, join, open_slides


def touched(folder: Path, *names: str) -> Path:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"II*")
    return folder


def table(folder: Path, text: str, name: str = "slides.csv") -> Path:
    (folder / name).write_text(text)
    return folder / name


def told(entries: tuple[SlideEntry, ...]) -> list[tuple[object, ...]]:
    return [(entry.id, entry.label, entry.group, entry.split) for entry in entries]


def test_a_table_says_all(tmp_path: Path) -> None:
    """Paths are relative to the table; blank cells are not known; other columns are left alone."""
    touched(tmp_path, "a/one.svs", "two.tif", "two.geojson")
    text = "slide,label,patient,split,annotations,class\na/one.svs,1,p1,train,,macro\ntwo.tif,,,Testing,two.geojson,\n"
    cohort = open_slides(table(tmp_path, text.replace("label", "Label")), positive=None)
    assert told(cohort.entries) == [("one", 1, "p1", "train"), ("two", None, "two", "test")]
    assert [entry.path for entry in cohort.entries] == [tmp_path / "a/one.svs", tmp_path / "two.tif"]
    assert [entry.annotations for entry in cohort.entries] == [None, tmp_path / "two.geojson"]


@pytest.mark.parametrize("column", ["slide", "path", "image", "file"])
@pytest.mark.parametrize("kind", ["csv", "tsv", "parquet"])
def test_each_name_of_the_column_and_each_kind_of_table(tmp_path: Path, column: str, kind: str) -> None:
    """Names without ending are sought among the slides below the table."""
    touched(tmp_path, "deep/007.svs", "deep/x.svs")
    rows = pd.DataFrame({column: ["007", "x"], "case": ["0", "1"], "label": ["normal", "tumor"]})
    file = tmp_path / f"list.{kind}"
    rows.to_parquet(file) if kind == "parquet" else rows.to_csv(file, sep="\t" if kind == "tsv" else ",", index=False)
    cohort = open_slides(file)
    assert told(cohort.entries) == [("007", 0, "0", None), ("x", 1, "1", None)]
    assert cohort.classes == ("normal", "tumor")


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("slide\na.svs\nb.svs\nc.svs\n", "1 of 3 slides are not there: 'c.svs' (line 4)"),
        ("name,label\na.svs,1\n", "of which none says where the slides are"),
        ("slide,label\na.svs,0\nb.svs,1\nd.svs,2\n", "3 classes (0, 1, 2)"),
        ("slide,patient,split\na.svs,p,train\nb.svs,p,test\n", "'p' in train (a) and test (b)"),
        ("slide,split\na.svs,train\nb.svs,fold3\n", "line 3, column 'split': 'fold3'"),
        ("slide,label\na.svs,0\n./a.svs,1\n", "a slide stands in several rows"),
        ("slide,annotations\na.svs,a.xml\n", "1 files of annotations are not there: 'a.xml' (line 2)"),
        ("slide,id\na.svs,1\nb.svs,1\n", "ids stand in several rows"),
        ("slide\n", "a table without rows"),
    ],
)
def test_what_does_not_fit_is_one_line(tmp_path: Path, text: str, line: str) -> None:
    file = table(touched(tmp_path, "a.svs", "b.svs", "d.svs"), text)
    with pytest.raises(TumorTraceError) as refusal:
        open_slides(file)
    assert line in str(refusal.value)
    assert "slides.csv" in str(refusal.value)
    assert "\n" not in str(refusal.value)


def test_folders_are_classes_where_it_is_plain(tmp_path: Path) -> None:
    """Two sub-folders of known spelling are labels, with splits above them too; two scanners are none."""
    touched(tmp_path, "c/normal/1.svs", "c/tumor/2.svs", "s/train/normal/1.svs", "s/train/tumor/2.svs")
    touched(tmp_path, "s/test/tumor/3.svs", "x/leica/1.svs", "x/hamamatsu/2.ndpi", "flat/1.svs")
    assert told(open_slides(tmp_path / "c").entries) == [("1", 0, "1", None), ("2", 1, "2", None)]
    assert {(entry.label, entry.split) for entry in open_slides(tmp_path / "s").entries} == {
        (0, "train"),
        (1, "train"),
        (1, "test"),
    }
    assert {entry.label for entry in open_slides(tmp_path / "x").entries} == {None}
    assert {entry.label for entry in open_slides(tmp_path / "x", positive="leica").entries} == {0, 1}
    assert told(open_slides(tmp_path / "flat").entries) == [("1", None, "1", None)]


@pytest.mark.parametrize(("word", "label"), [("1", 1), ("0", 0), ("Tumor", 1), ("benign", 0), ("", None)])
def test_one_class_alone_is_known_by_its_spelling(tmp_path: Path, word: str, label: int | None) -> None:
    """A table of tumour slides only is a cohort too; a word that says nothing is refused."""
    touched(tmp_path, "a.svs", "b.svs")
    cohort = open_slides(table(tmp_path, f"slide,label\na.svs,{word}\nb.svs,{word}\n"))
    assert [entry.label for entry in cohort.entries] == [label, label]
    with pytest.raises(TumorTraceError, match="1 class"):
        open_slides(table(tmp_path, "slide,label\na.svs,blue\n"))


def test_patients_by_a_pattern(tmp_path: Path) -> None:
    """The first group of the pattern, in every name or one line says in which not."""
    touched(tmp_path, "p1_a.svs", "p1_b.svs", "other.svs")
    with pytest.raises(TumorTraceError, match="no patient in 'other'"):
        open_slides(tmp_path, patient_pattern=r"(p\d+)_")
    with pytest.raises(TumorTraceError, match="no pattern"):
        open_slides(tmp_path, patient_pattern="(")
    (tmp_path / "other.svs").unlink()
    assert {entry.group for entry in open_slides(tmp_path, patient_pattern=r"(p\d+)_").entries} == {"p1"}


def test_slides_named_together_are_each_once(tmp_path: Path) -> None:
    """A slide of a folder that is named by itself too is one; names that repeat get their folder's."""
    touched(tmp_path, "a/1.svs", "b/1.svs", "b/2.svs")
    cohort = join([open_slides(tmp_path / "a/1.svs"), open_slides(tmp_path / "b"), open_slides(tmp_path / "b/2.svs")])
    assert [entry.id for entry in cohort.entries] == ["a/1.svs", "b/1.svs", "2"]


def test_a_table_in_the_folder_is_told(tmp_path: Path) -> None:
    """A folder is named where a table of its slides lies in it; other tables are none of our business."""
    (tmp_path / "a.svs").touch()
    (tmp_path / "b.svs").touch()
    (tmp_path / "slides.csv").write_text("slide,label\na,1\nb,0\n")
    (tmp_path / "stains.csv").write_text("stain,day\nHE,1\n")
    notes = open_slides(tmp_path).notes
    assert [note for note in notes if ".csv" in note] == [
        f"slides.csv in it is not read: name {tmp_path / 'slides.csv'} in place of the folder for its labels, patients "
        "and annotations"
    ]


def test_masks_beside_slides_are_no_slides(tmp_path: Path) -> None:
    """Of a folder they are left out, aloud, by every verb; a mask without its slide is one that was named so."""
    touched(tmp_path, "a.svs", "a_mask.png", "b-labelled.tif", "c.tif", "c_mask.tif")
    cohort = open_slides(tmp_path)
    assert [entry.path.name for entry in cohort.entries] == ["a.svs", "b-labelled.tif", "c.tif"]
    assert any("2 masks" in note for note in cohort.notes)


def test_a_slide_that_is_named_twice_is_one(tmp_path: Path) -> None:
    """By its folder and by itself, however the path is written; the first naming holds."""
    touched(tmp_path, "a.svs", "b.svs")
    cohort = join([open_slides(tmp_path / "b.svs"), open_slides(tmp_path), open_slides(tmp_path / "." / "a.svs")])
    assert [entry.id for entry in cohort.entries] == ["b", "a"]
