"""Tables and PatchCamelyon's HDF5 files open into cohorts, or say which line is wrong."""

from __future__ import annotations

import gzip
import os
from pathlib import Path

import h5py
import numpy as np
import pandas as pd
import pytest
from PIL import Image

from tumortrace.cohorts.audit import check
from tumortrace.cohorts.layouts import open_cohort
from tumortrace.errors import CohortError
from tumortrace.images.decoding import read_image


def table_with_files(root: Path, text: str, *names: str, table: str = "t.csv") -> Path:
    """A table and empty image files beside it."""
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    (root / table).write_text(text, encoding="utf-8")
    return root / table


def test_a_table_gives_everything_a_cohort_has(tmp_path):
    """Paths, labels, groups, splits, coordinates and the user's own columns."""
    text = "Path\tlabel\tPatient\tsplit\tx\ty\tscanner\n"
    text += "im/1.png\tTumour\tp1\tval\t3\t4\tA\nim\\2.png\tnormal\tp2\tTest\t\t5.5\tB\n"
    cohort = open_cohort(table_with_files(tmp_path, text, "im/1.png", "im/2.png"))
    assert cohort.layout == "table"
    assert cohort.classes == ("normal", "Tumour")
    rows = cohort.table.set_index("id")
    assert rows.loc["1", ["label", "group", "split", "x", "scanner"]].tolist() == [1, "p1", "validation", 3, "A"]
    assert rows["y"].tolist() == [4, 5.5]
    assert pd.isna(rows.loc["2", "x"])
    assert all(Path(path).is_absolute() and Path(path).exists() for path in rows["path"])
    assert "groups come from column 'patient': 2 groups; --group-column names another" in cohort.notes


def test_ids_of_the_table_stay_text(tmp_path):
    """ "007" and "NA" are ids like any other."""
    cohort = open_cohort(table_with_files(tmp_path, "id;file;label\n007;a.png;1\nNA;b.png;0\n", "a.png", "b.png"))
    assert cohort.table["id"].tolist() == ["007", "NA"]


def test_files_may_lie_in_the_folder_named_like_the_table(tmp_path):
    """This is said in a note; by id, endings may be missing."""
    cohort = open_cohort(table_with_files(tmp_path, "path,label\n0/a.png,0\n1/b.png,1\n", "t/0/a.png", "t/1/b.png"))
    assert cohort.table["id"].tolist() == ["a", "b"]
    assert "files were found in t/ beside the table" in cohort.notes
    by_id = table_with_files(tmp_path, "id,label\na,0\nb,1\n")
    assert open_cohort(by_id).table["path"].tolist() == [str(tmp_path / "t/0/a.png"), str(tmp_path / "t/1/b.png")]


def test_group_columns_named_known_and_unknown(tmp_path):
    """The named column counts, else the coarsest known one; an unknown one is refused with those there are."""
    file = table_with_files(
        tmp_path, "path,label,slide,patient,site\na.png,0,s1,p1,X\nb.png,1,s2,p1,Y\n", "a.png", "b.png"
    )
    assert open_cohort(file).table["group"].tolist() == ["p1", "p1"]
    assert open_cohort(file, group_column="Site").table["group"].tolist() == ["X", "Y"]
    with pytest.raises(CohortError, match="no column 'nope'; expected one of the columns slide, patient, site"):
        open_cohort(file, group_column="nope")
    partly = table_with_files(tmp_path, "path,label,group\na.png,0,\nb.png,1,g\n")
    cohort = open_cohort(partly)
    assert cohort.table["group"].isna().tolist() == [True, False]
    assert "groups come from column 'group': 1 group; 1 rows have none" in cohort.notes


def test_missing_files_are_left_out_and_noted_and_all_missing_refused(tmp_path):
    """With the first three, by line."""
    file = table_with_files(tmp_path, "path,label\na.png,0\nx.png,1\nb.png,1\n", "a.png", "b.png")
    cohort = open_cohort(file)
    assert len(cohort) == 2
    assert "left out 1 rows without a file in the table's folder: 'x.png' (line 3)" in cohort.notes
    file = table_with_files(tmp_path, "path,label\n" + "".join(f"x{row}.png,1\n" for row in range(5)))
    with pytest.raises(
        CohortError, match=r"none of its 5 files is there: 'x0.png' \(line 2\).*'x2.png' \(line 4\), \.\.\."
    ):
        open_cohort(file)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "path,label,split\na.png,0,train\nb.png,1,later\n",
            "line 3, column 'split': 'later'; expected one of train",
        ),
        ("path,label,x\na.png,0,1\nb.png,1,left\n", "line 3, column 'x': 'left'; expected a number"),
        ("name,label\na.png,0\n", "none says where the images are; expected a column path"),
        ("path,label\na.png,0\na.png,1\n", "'a.png' in lines 2, 3"),
        ("id,path,label\n1,a.png,0\n1,b.png,1\n", "'1' in lines 2, 3"),
        ("path,label\na.png\n", "line 2 has 1 fields"),
        ('path,label\n"a.png,0\n', "not a CSV table"),
    ],
)
def test_wrong_tables_are_refused_by_line_and_field(tmp_path, text, message):
    """File, line and field stand in the message."""
    with pytest.raises(CohortError, match=rf"t\.csv: .*{message}"):
        open_cohort(table_with_files(tmp_path, text, "a.png", "b.png"))


def test_tables_in_other_encodings_are_refused(tmp_path):
    """Guessing an encoding would garble names."""
    (tmp_path / "t.csv").write_bytes("path,label\nä.png,0\n".encode("latin-1"))
    with pytest.raises(CohortError, match="not UTF-8"):
        open_cohort(tmp_path / "t.csv")
    (tmp_path / "v.parquet").write_bytes(b"nothing of the kind")
    with pytest.raises(CohortError, match="no Parquet file"):
        open_cohort(tmp_path / "v.parquet")


def test_parquet_opens_like_csv(tmp_path):
    """Numbers, missing values and an index by id."""
    table_with_files(tmp_path, "", "a.png", "b.png", "c.png", table="empty.txt")
    frame = pd.DataFrame({"id": ["1", "2", "3"], "path": ["a.png", "b.png", "c.png"], "label": [0.0, 1.0, np.nan]})
    frame.set_index("id").to_parquet(tmp_path / "t.parquet")
    cohort = open_cohort(tmp_path / "t.parquet")
    assert cohort.classes == ("0", "1")
    assert cohort.table["id"].tolist() == ["1", "2", "3"]
    assert cohort.table["label"].isna().tolist() == [False, False, True]


def test_a_folder_with_one_table_of_files_opens_by_it(tmp_path):
    """The table knows more than the folders."""
    table_with_files(tmp_path, "path,label,patient\n0/a.png,0,p\n1/b.png,1,q\n", "0/a.png", "1/b.png")
    cohort = open_cohort(tmp_path)
    assert (cohort.layout, cohort.has_groups) == ("table", True)
    assert "opened by its table t.csv" in cohort.notes


def test_the_real_carcinoma_table_opens():
    """5,273 patches of 95 patients, found in the folder named like the table."""
    if "TUMORTRACE_DATA" not in os.environ:
        pytest.skip("TUMORTRACE_DATA is not set")
    cohort = open_cohort(Path(os.environ["TUMORTRACE_DATA"]) / "idc.csv")
    assert len(cohort) == 5273
    assert cohort.table["group"].nunique() == 95
    assert cohort.table["id"].is_unique


def write_pcam(root: Path, split: str, count: int, *, pack: bool = False, meta: bool = True) -> np.ndarray:
    """PatchCamelyon's files of one split, with `count` random patches."""
    stem = root / f"camelyonpatch_level_2_split_{split}"
    images = np.random.default_rng(count).integers(0, 256, (count, 96, 96, 3), np.uint8)
    arrays = {"x": images, "y": (np.arange(count) % 2).astype(np.uint8).reshape(-1, 1, 1, 1)}
    for name, array in arrays.items():
        file = Path(f"{stem}_{name}.h5")
        with h5py.File(file, "w") as handle:
            handle[name] = array
        if pack:
            Path(f"{file}.gz").write_bytes(gzip.compress(file.read_bytes(), 1))
            file.unlink()
    if meta:
        slides = [f"camelyon16_{split}_{row // 2:03d}" for row in range(count)]
        rows = pd.DataFrame({"coord_y": 7, "coord_x": range(count), "tumor_patch": False, "wsi": slides})
        rows.to_csv(f"{stem}_meta.csv")
    return images


def test_pcam_hdf5_files_open_with_slides_and_resolution(tmp_path):
    """Rows of the arrays, in the order of the splits; the slide is the group."""
    pixels = {split: write_pcam(tmp_path, split, count) for split, count in (("valid", 3), ("train", 4), ("test", 2))}
    cohort = open_cohort(tmp_path)
    assert (cohort.layout, cohort.resolution, cohort.classes) == ("pcam-hdf5", 0.97, ("0", "1"))
    assert cohort.table["split"].tolist() == ["train"] * 4 + ["validation"] * 3 + ["test"] * 2
    assert cohort.table["id"].tolist()[3:5] == ["train-0000003", "validation-0000000"]
    assert cohort.table["label"].tolist() == [0, 1, 0, 1, 0, 1, 0, 0, 1]
    assert cohort.table["group"].tolist()[:3] == ["camelyon16_train_000"] * 2 + ["camelyon16_train_001"]
    assert cohort.table["x"].tolist()[:4] == [0, 1, 2, 3]
    assert cohort.has_groups
    assert np.array_equal(read_image(cohort.table["path"][4]), pixels["valid"][0])


def test_packed_pcam_files_are_unpacked_once_into_the_cache(tmp_path, monkeypatch):
    """A second opening finds them there; the originals stay as they are."""
    monkeypatch.setenv("TUMORTRACE_CACHE", str(tmp_path / "cache"))
    pixels = write_pcam(tmp_path, "train", 3, pack=True, meta=False)
    cohort = open_cohort(tmp_path / "camelyonpatch_level_2_split_train_x.h5.gz")
    assert np.array_equal(read_image(cohort.table["path"][2]), pixels[2])
    assert cohort.table["group"].isna().all()
    assert any("slides of its patches are not known" in note for note in cohort.notes)
    files = sorted((tmp_path / "cache").rglob("*.h5"))
    assert len(files) == 2
    times = [file.stat().st_mtime_ns for file in files]
    assert open_cohort(tmp_path).fingerprint == cohort.fingerprint
    assert [file.stat().st_mtime_ns for file in files] == times
    assert not list((tmp_path / "cache").rglob("*.tmp"))


def test_damaged_pcam_files_are_refused(tmp_path, monkeypatch):
    """Cut short, not HDF5, labels or slides that do not fit the images; nothing half-made stays in the cache."""
    monkeypatch.setenv("TUMORTRACE_CACHE", str(tmp_path / "cache"))
    data = tmp_path / "data"
    data.mkdir()
    write_pcam(data, "train", 3, pack=True)
    packed = data / "camelyonpatch_level_2_split_train_x.h5.gz"
    packed.write_bytes(packed.read_bytes()[:-200])
    with pytest.raises(CohortError, match="cannot be unpacked"):
        open_cohort(data)
    assert not list((tmp_path / "cache").rglob("*.*"))
    file = data / "camelyonpatch_level_2_split_train_x.h5"
    file.write_text("no")
    with pytest.raises(CohortError, match="not an HDF5 file with an array x"):
        open_cohort(data)
    with h5py.File(file, "w") as handle:
        handle["x"] = np.zeros((4, 96, 96, 3), np.uint8)
    with pytest.raises(CohortError, match="3 labels from 0 to 1; expected 4 labels"):
        open_cohort(data)


def test_a_single_file_of_images_without_labels(tmp_path):
    """Its rows are unlabelled and of no split, and that is said."""
    with h5py.File(tmp_path / "mine_x.h5", "w") as handle:
        handle["x"] = np.zeros((2, 8, 8, 3), np.uint8)
    cohort = open_cohort(tmp_path / "mine_x.h5")
    assert cohort.table["id"].tolist() == ["mine-0000000", "mine-0000001"]
    assert cohort.table["label"].isna().all()
    assert cohort.table["split"].isna().all()
    assert "no mine_y.h5: its patches are unlabelled" in cohort.notes


def test_synthetic_tissue_opens_by_name_and_by_folder(tmp_path, monkeypatch):
    """The same cohort either way."""
    monkeypatch.setenv("TUMORTRACE_CACHE", str(tmp_path))
    cohort = open_cohort("synthetic:patches?count=16&seed=3")
    assert (cohort.layout, len(cohort)) == ("synthetic", 16)
    folder = next(file.parent for file in tmp_path.rglob("cohort.json"))
    assert open_cohort(folder).fingerprint == cohort.fingerprint
    with pytest.raises(CohortError, match="nonsense"):
        open_cohort("synthetic:nonsense")


def test_a_resolution_can_be_stated(tmp_path: Path) -> None:
    """`resolution` fills in what the data do not say; nonsense is refused, and so are options for an open cohort."""
    for name in ("benign", "malignant"):
        (tmp_path / name).mkdir()
        Image.new("RGB", (8, 8)).save(tmp_path / name / f"{name}.png")
    cohort = open_cohort(tmp_path, resolution=0.97)
    assert cohort.resolution == 0.97
    assert open_cohort(cohort) is cohort
    with pytest.raises(CohortError, match="micrometres per pixel"):
        open_cohort(tmp_path, resolution=-1)
    with pytest.raises(CohortError, match="open already"):
        open_cohort(cohort, resolution=0.5)


def labels_beside_images(folder, rows, name="labels.csv", images="images"):
    (folder / images).mkdir(parents=True, exist_ok=True)
    for identity, _ in rows:
        Image.new("RGB", (8, 8)).save(folder / images / f"{identity}.png")
    (folder / name).write_text("id,label\n" + "".join(f"{identity},{label}\n" for identity, label in rows))
    return folder


def test_a_folder_with_one_table_of_ids_and_labels_opens_by_it(tmp_path):
    """Labels beside `images/` and `masks/` are read although the folder alone is named."""
    folder = labels_beside_images(tmp_path / "data", [("a", 0), ("b", 1)])
    (folder / "masks").mkdir()
    cohort = open_cohort(folder)
    assert (cohort.layout, cohort.table["label"].tolist()) == ("table", [0, 1])
    assert check(folder, quick=True).images == 2


def test_class_folders_and_predictions_are_not_taken_for_a_table_of_labels(tmp_path):
    """Class folders stay class folders beside such a table, and predictions beside images are no labels."""
    folder = labels_beside_images(tmp_path / "data", [("a", 0), ("b", 1)], images="benign")
    labels_beside_images(folder, [("c", 1)], images="malignant")
    assert open_cohort(folder).layout == "class-folders"
    images = labels_beside_images(tmp_path / "images", [("a", 0)], name="predictions.csv")
    (images / "predictions.csv").write_text("id,label,probability\na,,0.4\n")
    assert open_cohort(images).layout == "unlabelled"


def test_labels_in_one_of_several_tables_are_named(tmp_path):
    """Where two tables could be meant, none is guessed; a note says so."""
    folder = labels_beside_images(tmp_path / "data", [("a", 0), ("b", 1)])
    (folder / "old.csv").write_text("id,label\na,1\n")
    cohort = open_cohort(folder)
    assert cohort.layout == "unlabelled"
    assert any("are not read: name that table" in note for note in cohort.notes)


def test_images_without_a_label_are_counted_aloud(tmp_path):
    """NaN is no label, for reading as for the audit; what is left out of training is said."""
    folder = labels_beside_images(tmp_path / "data", [("a", 0), ("b", 1), ("c", "NaN")])
    labelled = open_cohort(folder).labelled
    assert len(labelled) == 2
    assert labelled.notes[-1] == "1 of 3 images carry no label and are left out"
    assert labelled.labelled.notes == labelled.notes
    names = [finding.name for finding in check(folder, quick=True).findings]
    assert "labels-missing" in names
    assert "labels-not-binary" not in names
