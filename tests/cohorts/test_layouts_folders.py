"""Folders of images, with and without classes, splits and a label table, open by being looked at."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tumortrace.cohorts.layouts import LAYOUTS, open_cohort
from tumortrace.cohorts.layouts.kaggle import submission_ids
from tumortrace.errors import CohortError


def touch(root: Path, *names: str) -> Path:
    """Empty files below `root`: opening a cohort reads no image."""
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    return root


def by_id(cohort, column: str) -> dict:
    values = cohort.table[column].astype(object)
    return dict(zip(cohort.table["id"], values.where(values.notna(), None), strict=True))


def real(name: str) -> Path:
    if "TUMORTRACE_DATA" not in os.environ:
        pytest.skip("TUMORTRACE_DATA is not set")
    return Path(os.environ["TUMORTRACE_DATA"]) / name


def test_every_layout_is_found_and_has_a_rank_of_its_own():
    """Adding a file is adding a layout; which is tried first is never left to chance."""
    assert {"class-folders", "kaggle", "pcam-hdf5", "prepared", "synthetic", "table", "unlabelled"} <= set(LAYOUTS)
    ranks = [LAYOUTS[name].rank for name in LAYOUTS]
    assert len(set(ranks)) == len(ranks)


def test_class_folders_label_by_folder_at_any_depth(tmp_path):
    """Endings of any case, nested folders; paths are absolute and there."""
    touch(tmp_path, "Benign/1.png", "Benign/deep/er/2.TIF", "Malignant/ü.jpeg")
    cohort = open_cohort(tmp_path)
    assert (cohort.layout, cohort.classes) == ("class-folders", ("Benign", "Malignant"))
    assert by_id(cohort, "label") == {"1": 0, "2": 0, "ü": 1}
    assert all(Path(path).is_absolute() and Path(path).exists() for path in cohort.table["path"])
    assert cohort.table["split"].isna().all()
    assert cohort.table["group"].isna().all()


def test_split_folders_are_mapped_to_our_names(tmp_path):
    """valid, val and training are understood; images straight in a split folder are unlabelled."""
    touch(tmp_path, "Training/0/a.png", "val/1/b.png", "val/0/c.png", "calibration/1/d.png", "test/e.png")
    cohort = open_cohort(tmp_path)
    splits = {"a": "train", "b": "validation", "c": "validation", "d": "calibration", "e": "test"}
    assert by_id(cohort, "split") == splits
    assert by_id(cohort, "label") == {"a": 0, "b": 1, "c": 0, "d": 1, "e": None}


def test_only_some_splits_are_enough(tmp_path):
    """A folder of test/ alone, with its classes below."""
    cohort = open_cohort(touch(tmp_path, "test/benign/a.png", "test/malignant/b.png"))
    assert by_id(cohort, "split") == {"a": "test", "b": "test"}


def test_clutter_is_passed_over_and_other_files_are_noted(tmp_path):
    """What file managers leave behind is nobody's image and not worth a word."""
    touch(tmp_path, "0/a.png", "1/b.png", "0/._a.png", "__MACOSX/0/a.png", "1/Thumbs.db", ".git/c.png", "0/x.xml")
    touch(tmp_path, "README.txt", "stray.png")
    cohort = open_cohort(tmp_path)
    assert sorted(cohort.table["id"]) == ["a", "b"]
    assert "left out 2 files that are not images, such as 0/x.xml" in cohort.notes
    assert "left out 1 images outside the class folders, such as stray.png" in cohort.notes


def test_three_class_folders_are_refused(tmp_path):
    """The refusal names them."""
    with pytest.raises(CohortError, match=r"3 classes \(a, b, c\) as folders; .* expected two.*--positive"):
        open_cohort(touch(tmp_path, "a/1.png", "b/1.png", "c/1.png"))


def test_unknown_classes_need_the_positive_one_named(tmp_path):
    """The message says how."""
    touch(tmp_path, "luad/1.png", "lusc/2.png")
    with pytest.raises(CohortError, match="--positive NAME"):
        open_cohort(tmp_path)
    assert open_cohort(tmp_path, positive="luad").classes == ("lusc", "luad")


def test_repeated_file_names_take_their_path_as_id(tmp_path):
    """Ids are unique; where even that repeats, the ending stays on."""
    cohort = open_cohort(touch(tmp_path / "one", "0/007.png", "1/007.png"))
    assert sorted(cohort.table["id"]) == ["0/007", "1/007"]
    assert any("file names repeat" in note for note in cohort.notes)
    cohort = open_cohort(touch(tmp_path / "two", "0/1.png", "0/1.jpg", "1/2.png"))
    assert sorted(cohort.table["id"]) == ["0/1.jpg", "0/1.png", "1/2.png"]


def test_groups_and_labels_come_from_file_names(tmp_path):
    """One capturing group, or all that matches."""
    touch(tmp_path, "p1_benign_0.png", "p1_malignant_1.png", "p2_benign_2.png")
    cohort = open_cohort(tmp_path, group_from_name=r"^(p\d+)_", label_from_name="benign|malignant")
    assert by_id(cohort, "group") == {"p1_benign_0": "p1", "p1_malignant_1": "p1", "p2_benign_2": "p2"}
    assert cohort.table["label"].tolist() == [0, 1, 0]
    assert cohort.has_groups
    assert any("2 groups" in note for note in cohort.notes)


def test_labels_from_names_go_before_folders(tmp_path):
    """Folders may then stand for something else, such as patients."""
    touch(tmp_path, "p1/0_a.png", "p2/1_b.png", "p3/1_c.png")
    assert open_cohort(tmp_path, label_from_name="^([01])_").table["label"].tolist() == [0, 1, 1]


@pytest.mark.parametrize(
    ("pattern", "message"),
    [("(", "not a regular expression"), ("(a)(b)", "2 capturing groups"), (r"^(\d+)_", "nothing in 1 of 2 file names")],
)
def test_patterns_that_do_not_fit_are_refused(tmp_path, pattern, message):
    """With the option that they came by; no image is left without a group in silence."""
    touch(tmp_path, "1_a.png", "b.png")
    with pytest.raises(CohortError, match=f"--group-from-name: .*{message}"):
        open_cohort(tmp_path, group_from_name=pattern)


def test_a_group_column_needs_a_table(tmp_path):
    """An option that cannot apply is refused instead of ignored."""
    with pytest.raises(CohortError, match="no column 'patient'; expected data with a table"):
        open_cohort(touch(tmp_path, "a.png"), group_column="patient")


def test_unlabelled_folders_and_single_images(tmp_path):
    """Flat or nested; a single image by ending or by content."""
    from PIL import Image

    cohort = open_cohort(touch(tmp_path / "all", "images/a.png", "images/more/b.png"))
    assert (cohort.layout, sorted(cohort.table["id"])) == ("unlabelled", ["a", "b"])
    assert cohort.table["label"].isna().all()
    assert open_cohort(tmp_path / "all/images/a.png").table["id"].tolist() == ["a"]
    Image.new("RGB", (2, 2)).save(tmp_path / "scan", format="png")
    assert open_cohort(tmp_path / "scan").table["id"].tolist() == ["scan"]


@pytest.mark.parametrize("kind", ["empty", "text"])
def test_what_no_layout_fits_is_refused_with_the_layouts_known(tmp_path, kind):
    """One line that lists them all."""
    if kind == "empty":
        (tmp_path / kind).mkdir()
    elif kind == "text":
        (tmp_path / kind).write_text("hello")
    with pytest.raises(CohortError, match=r"expected one of: .*train_labels\.csv.*class folders") as refusal:
        open_cohort(tmp_path / kind)
    assert "\n" not in str(refusal.value)


@pytest.mark.skipif(os.name == "nt", reason="needs links and free file names")
def test_links_in_circles_end_and_invalid_names_are_refused(tmp_path):
    """A folder linked into itself is listed once; a name that is not text cannot be an id."""
    touch(tmp_path, "0/a.png", "1/b.png")
    (tmp_path / "0/again").symlink_to(tmp_path)
    assert sorted(open_cohort(tmp_path).table["id"]) == ["a", "b"]
    with open(os.fsencode(tmp_path) + b"/0/\xff.png", "wb"):
        pass
    with pytest.raises(CohortError, match="not valid text"):
        open_cohort(tmp_path)


def kaggle(root: Path, table: str) -> Path:
    touch(root, *(f"train/{name}.tif" for name in ("001", "b", "é")), "test/t1.tif", "test/t0.tif")
    (root / "train_labels.csv").write_bytes(table.encode())
    return root


def test_kaggle_folder_with_windows_line_ends_and_numbers_for_ids(tmp_path):
    """Labelled rows, then unlabelled test images; "001" stays "001", an accent is found in either spelling."""
    cohort = open_cohort(kaggle(tmp_path, "\ufeffId;LABEL\r\n001 ;1\r\nb.tif;0\r\ne\u0301;0\r\n"))
    assert (cohort.layout, cohort.classes) == ("kaggle", ("0", "1"))
    assert list(by_id(cohort, "label").values()) == [1, 0, 0, None, None]
    assert cohort.table["id"].tolist()[0] == "001"
    assert cohort.table["split"].isna().tolist() == [True, True, True, False, False]
    assert all(Path(path).exists() for path in cohort.table["path"])
    assert cohort.resolution is None


def test_kaggle_ids_and_files_without_a_partner_are_left_out_and_noted(tmp_path):
    """Neither is lost in silence."""
    cohort = open_cohort(kaggle(tmp_path, "id,label\n001,1\nb,0\nnope,0\nalso,1\n"))
    assert cohort.labelled.table["id"].tolist() == ["001", "b"]
    assert any("left out 2 rows without a file in train/: 'nope' (line 4)" in note for note in cohort.notes)
    assert any("left out 1 files in train/ without a row" in note and "é.tif" in note for note in cohort.notes)


def test_kaggle_tables_that_cannot_be_right_are_refused(tmp_path):
    """Contradicting rows, wrong columns, no file at all, ragged rows."""
    for table, message in (
        ("id,label\n001,1\nb,0\n001,0\n", "'001' in lines 2, 4"),
        ("id,label\n,1\nb,0\n", "line 2, column 'id': blank"),
        ("name,class\n001,1\n", "expected columns id,label"),
        ("id,label\nx,1\ny,0\n", "none of the 2 ids has a file"),
        ("id,label\n001,1,7\nb,0\n", "line 2 has 3 fields; expected 2"),
        ("id,label\n", "without rows"),
        ("", "without rows"),
        ("id,id\n001,1\n", "two columns named 'id'"),
        ("id,label\n001,1\nb,2\né,0\n", "3 classes"),
    ):
        with pytest.raises(CohortError, match=message):
            open_cohort(kaggle(tmp_path, table))


def test_kaggle_rows_that_repeat_are_dropped_and_noted(tmp_path):
    """Exact repeats are harmless."""
    cohort = open_cohort(kaggle(tmp_path, "id,label\n001,1\nb,0\n001,1\n"))
    assert len(cohort.labelled) == 2
    assert any("1 rows that repeat" in note for note in cohort.notes)


def test_submission_ids_keep_their_order_and_zeros(tmp_path):
    """They are text, in the order of the file."""
    assert submission_ids(tmp_path) is None
    (tmp_path / "sample_submission.csv").write_text("id,label\n010,0\n002,0\nNA,0\n")
    assert submission_ids(tmp_path) == ["010", "002", "NA"]


def test_the_real_competition_files_open():
    """15 labelled and 11 unlabelled images in the competition's own layout."""
    cohort = open_cohort(real("kaggle"))
    assert (cohort.layout, len(cohort), len(cohort.labelled), cohort.resolution) == ("kaggle", 26, 15, 0.97)
    assert all(Path(path).is_file() for path in cohort.table["path"])


def test_real_class_folders_open():
    """PatchCamelyon's splits and counts, and the 95 patients of the carcinoma patches."""
    cohort = open_cohort(real("pcam"))
    counts = cohort.table.groupby(["split", "label"]).size().to_dict()
    expected = {("train", 0): 10_000, ("train", 1): 10_000, ("validation", 0): 1_500, ("validation", 1): 1_500}
    assert counts == expected
    assert cohort.table["id"].is_unique
    assert open_cohort(real("idc"), group_from_name=r"^(\d+)_").table["group"].nunique() == 95
