"""What would be missed: labels in tables of other kinds or in names of archives, and pointers in the place of files."""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import tifffile
from PIL import Image

from tests.situations.models import made_model
from tests.situations.situation import situation
from tests.situations.test_layouts_shards import encoded, pictures, tar_of
from tumortrace.cli.main import run
from tumortrace.cohorts.layouts import open_cohort
from tumortrace.errors import ImageError
from tumortrace.images.decoding import read_image

CLASSES = ("benign", "malignant")
POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n"


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TUMORTRACE_CACHE", str(tmp_path / "cache"))


def images(folder: Path) -> Path:
    """`images/im0.png` to `im3.png`, of which the odd ones are malignant."""
    (folder / "images").mkdir(parents=True)
    for number, picture in enumerate(pictures(4)):
        Image.fromarray(picture).save(folder / "images" / f"im{number}.png")
    return folder


def rows(separator: str) -> str:
    return "".join(f"im{number}.png{separator}{number % 2}\n" for number in range(4))


@situation(
    "layouts",
    there="such archives with `a_mask.png` beside `a.png`, a `__MACOSX` folder, or an image outside of the classes",
    typed="tumortrace check FOLDER",
    right="masks and clutter are left out aloud, the image outside is unlabelled and told",
)
def test_what_else_lies_in_archives_hides_no_class(tmp_path: Path) -> None:
    names = [f"ds/{CLASSES[n % 2]}/{n}.png" for n in range(4)]
    masks = [f"ds/{CLASSES[n % 2]}/{n}_mask.png" for n in range(4)]
    tar_of(tmp_path / "a.tar", [*names, *masks, "__MACOSX/ds/benign/0.png", "ds/logo.png"])
    cohort = open_cohort(tmp_path / "a.tar")
    assert cohort.table["id"].tolist() == [*(name[:-4] for name in names), "ds/logo"]
    assert cohort.table["label"].tolist()[:4] == [0, 1, 0, 1]
    assert cohort.table["label"].isna().tolist() == [False] * 4 + [True]
    told = " ".join(cohort.notes)
    assert "left out 4 files named as masks" in told
    assert "passed over 1 file hidden or kept by the system, such as __MACOSX/ds/benign/0" in told
    assert "1 of 5 images lie in none of them: ds/logo" in told


@situation(
    "layouts",
    there="an archive for each class: `benign.tar`, `malignant-0001.tar`; or one that is compressed and called .tar",
    typed="tumortrace check FOLDER",
    right="the archives' names are the labels, said aloud; the compressed one is to be unpacked",
)
def test_archives_named_as_classes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name, start in (("benign-0000", 0), ("benign-0001", 2), ("malignant-0000", 4)):
        tar_of(tmp_path / "a" / f"{name}.tar", [f"{n}.png" for n in range(start, start + 2)])
    cohort = open_cohort(tmp_path / "a")
    assert cohort.table["label"].tolist() == [0] * 4 + [1] * 2
    assert "labels are the names of its archives (benign and malignant)" in cohort.notes
    for name in ("shard-0", "shard-1"):
        tar_of(tmp_path / "b" / f"{name}.tar", [f"{name}-{n}.png" for n in range(2)])
    assert open_cohort(tmp_path / "b").table["label"].isna().all()
    packed = tar_of(tmp_path / "c" / "0.tar", ["benign/0.png", "malignant/1.png"])
    packed.write_bytes(gzip.compress(packed.read_bytes()))
    assert run(["check", str(packed.parent), "-o", str(tmp_path / "out")]) == 1
    assert "a compressed archive" in capsys.readouterr().err


@situation(
    "layouts",
    there="a Parquet file whose labels pandas saved as categories (a dictionary column)",
    typed="tumortrace check FILE",
    right="they are the labels",
)
def test_categories_are_labels(tmp_path: Path) -> None:
    labels = pa.array([CLASSES[n % 2] for n in range(4)]).dictionary_encode()
    table = pa.table({"image": [encoded(picture) for picture in pictures(4)], "label": labels})
    pq.write_table(table, tmp_path / "train.parquet")
    assert open_cohort(tmp_path / "train.parquet").table["label"].tolist() == [0, 1, 0, 1]


@situation(
    "tables",
    there="a table whose first line is Excel's `sep=;`",
    typed="tumortrace check DATA",
    right="the table is read as if that line were not there",
)
@pytest.mark.parametrize("line", ["sep=;\r\n", '"sep=;"\n', "SEP=,\n"])
def test_excel_says_the_separator(line: str, tmp_path: Path) -> None:
    separator = ";" if ";" in line else ","
    (images(tmp_path) / "labels.csv").write_text(f"{line}image{separator}label\n{rows(separator)}", newline="")
    assert open_cohort(tmp_path).table["label"].tolist() == [0, 1, 0, 1]


@situation(
    "tables",
    there="labels.xlsx, labels.csv.gz, or a table without a line of column names beside the images",
    typed="tumortrace check DATA",
    right="told by its name, with what to do; named itself, it is refused so",
)
def test_tables_that_are_not_read_are_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("labels.xlsx", "labels.csv.gz", "labels.csv"):
        folder = images(tmp_path / name.replace(".", "-"))
        (folder / name).write_bytes(rows(",").encode() if name.endswith(".csv") else b"PK\3\4")
        what = "write image,label above" if name.endswith(".csv") else "save it as CSV"
        assert any(f"not read: {name}" in note and what in note for note in open_cohort(folder).notes)
        assert run(["check", str(folder / name), "-o", str(tmp_path / "out")]) == 1
        error = capsys.readouterr().err
        assert str(folder / name) in error
        assert "image,label" in error or "save it as CSV" in error


@situation(
    "tables",
    there="labels.csv that is a pointer of Git LFS or a web page, beside images or class folders",
    typed="tumortrace train DATA",
    right="refused, with `git lfs pull` or to download it again: its labels and patients would be missed",
)
@pytest.mark.parametrize(("text", "remedy"), [(POINTER, "git lfs pull"), ("<!DOCTYPE html>", "download it again")])
def test_a_pointer_in_place_of_a_table_is_refused(
    text: str, remedy: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plain = images(tmp_path / "plain")
    for name in CLASSES:
        (tmp_path / "classes" / name).mkdir(parents=True)
        Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(tmp_path / "classes" / name / "a.png")
    for folder in (plain, tmp_path / "classes"):
        (folder / "patients.csv").write_text(text)
        for data in (folder, folder / "patients.csv"):
            assert run(["train", str(data)]) == 1
            error = capsys.readouterr().err
            assert str(folder / "patients.csv") in error
            assert remedy in error


@situation(
    "runs",
    there="a bundle's weights, a table of predictions or a mask of tissue that is a pointer of Git LFS",
    typed="tumortrace predict RUN DATA, evaluate --predictions FILE, or scan --tissue-mask FILE",
    right="refused by what it is, with `git lfs pull`",
)
def test_other_pointers_are_told_too(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = made_model(tmp_path / "model", resolution=1.0)
    image = images(tmp_path) / "images" / "im0.png"
    for name in ("predictions.csv", "mask.png"):
        (tmp_path / name).write_text(POINTER)
    scan = ["scan", str(model), str(image), "--resolution", "1", "--tissue-mask", str(tmp_path / "mask.png")]
    calls = [scan, ["evaluate", "--predictions", str(tmp_path / "predictions.csv")]]
    for call in calls:
        assert run(call) == 1
        assert f"{call[-1]}: a pointer of Git LFS" in (error := capsys.readouterr().err)
        assert "git lfs pull" in error
    (model / "weights.safetensors").write_text(POINTER)
    assert run(["predict", str(model), str(image)]) == 1
    assert "weights.safetensors: a pointer of Git LFS" in capsys.readouterr().err


@situation(
    "folders",
    there="a folder without anything that is read, such as .heic and README.txt; or a path that is not there",
    typed="tumortrace check DATA",
    right="told by how many files there are and one of them; the text file is not taken for data",
)
def test_folders_of_nothing_known(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "a").mkdir()
    for name in ("a.heic", "README.txt"):
        (tmp_path / "a" / name).write_bytes(b"x")
    told = {"a": "no images or tables that are known here, but 2 files such as README", "b": "there is no such file"}
    for name, words in told.items():
        assert run(["check", str(tmp_path / name), "-o", str(tmp_path / "out")]) == 1
        assert words in capsys.readouterr().err


@situation(
    "pixels",
    there="a TIFF of complex numbers",
    typed="tumortrace predict RUN DATA",
    right="refused: its imaginary part would be lost",
)
def test_complex_numbers_are_no_picture(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "a.tif", np.ones((8, 8), np.complex64), metadata=None)
    with pytest.raises(ImageError, match="numbers of type complex64"):
        read_image(tmp_path / "a.tif")
