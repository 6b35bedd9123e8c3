"""Data in files that hold many images each: Parquet, WebDataset, TFRecord; made as the real ones are laid out."""

from __future__ import annotations

import io
import json
import struct
import tarfile
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from tests.situations.situation import situation
from tumortrace.cli.main import run
from tumortrace.cohorts.layouts import open_cohort
from tumortrace.cohorts.store import open_store
from tumortrace.cohorts.tf_example import checksums
from tumortrace.errors import CohortError


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TUMORTRACE_CACHE", str(tmp_path / "cache"))


def pictures(count: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (count, 32, 32, 3), dtype=np.uint8)


def encoded(picture: np.ndarray, form: str = "PNG") -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, form)
    return buffer.getvalue()


def checked(data: Path, out: Path, *options: str) -> dict[str, Any]:
    """What `check` writes of data that it opens."""
    assert run(["check", str(data), "-o", str(out), *options]) in (0, 1)
    report: dict[str, Any] = json.loads((out / "audit.json").read_text())
    return report


# Hugging Face.


def hugging_face(
    root: Path, *, labels: pa.DataType | None = None, names: list[str] | None = None, struct: bool = True
) -> np.ndarray:
    """Shards as `datasets.Dataset.to_parquet` and the Hub write them: 1aurent/PatchCamelyon has `label` bool."""
    images = pictures(40)
    features = {"image": {"_type": "Image"}, "label": {"names": names, "_type": "ClassLabel"} if names else {}}
    schema = pa.schema(
        [
            ("image", pa.struct({"bytes": pa.binary(), "path": pa.string()}) if struct else pa.binary()),
            ("label", labels or pa.bool_()),
            ("patient", pa.string()),
        ],
        metadata={"huggingface": json.dumps({"info": {"features": features}})},
    )
    shards = {"train-00000-of-00002": 0, "train-00001-of-00002": 10, "valid-00000-of-00001": 20}
    (root / "data").mkdir(parents=True)
    for name, first in (shards | {"test-00000-of-00001": 30}).items():
        rows = range(first, first + 10)
        cells = [{"bytes": encoded(images[row]), "path": f"{row}.png"} for row in rows]
        column = pa.array(cells if struct else [cell["bytes"] for cell in cells], schema.field("image").type)
        label = pa.array([bool(row % 2) if labels is None else row % 2 for row in rows], schema.field("label").type)
        table = pa.table([column, label, [f"p{row // 5}" for row in rows]], schema=schema)
        pq.write_table(table, root / "data" / f"{name}.parquet", row_group_size=4)
    (root / "README.md").write_text("---\nlicense: cc0-1.0\n---\n")
    return images


@situation(
    "layouts",
    there="Hugging Face's Parquet shards: `image` of bytes and path, `label` bool",
    typed="tumortrace check FOLDER",
    right="splits from the files' names, patients from their column, pictures read by row",
)
def test_hugging_face_shards(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """As https://huggingface.co/datasets/1aurent/PatchCamelyon: data/train-00000-of-00006.parquet and so on."""
    images = hugging_face(tmp_path / "PatchCamelyon")
    cohort = open_cohort(tmp_path / "PatchCamelyon")
    assert cohort.layout == "hf-parquet"
    assert cohort.table["split"].tolist() == ["train"] * 20 + ["validation"] * 10 + ["test"] * 10
    assert cohort.table["label"].tolist() == [row % 2 for row in range(40)]
    assert cohort.table["group"].nunique() == 8
    assert np.array_equal(open_store(cohort).images, images)
    assert checked(tmp_path / "PatchCamelyon", tmp_path / "out")["images"] == 40
    captured = capsys.readouterr()
    assert max(map(len, (captured.out + captured.err).splitlines())) < 400


def test_classes_are_called_as_the_metadata_say(tmp_path: Path) -> None:
    """Also where the positive one is 0; a number beyond the names is refused, and -1 is no label."""
    hugging_face(tmp_path / "a", labels=pa.int64(), names=["tumor", "normal"])
    cohort = open_cohort(tmp_path / "a")
    assert (cohort.classes, cohort.table["label"].tolist()[:2]) == (("normal", "tumor"), [1, 0])
    shard = tmp_path / "a" / "data" / "test-00000-of-00001.parquet"
    table = pq.read_table(shard)
    for value, told in ((7, "label 7"), (-1, None)):
        labels = pa.array([value] + [0] * 9, pa.int64())
        pq.write_table(table.set_column(1, table.schema.field("label"), labels), shard)
        if told:
            with pytest.raises(CohortError, match=told):
                open_cohort(tmp_path / "a")
        else:
            assert open_cohort(tmp_path / "a").table["label"].isna().sum() == 1


CONFIGS = """---
license: cc-by-4.0
configs:
- config_name: 40X
  data_files:
  - {split: train, path: 40X/train-*}
  - {split: test, path: ["40X/held-*"]}
- config_name: 100X
  data_dir: 100X
  default: true
---
# BreakHis
"""


@situation(
    "layouts",
    there="a Hugging Face data set of several configurations: `40X/` and `100X/`, or `configs` in its README.md",
    typed="tumortrace check FOLDER",
    right="the default one is taken aloud; without a default the folders are named",
)
def test_configurations_are_not_taken_together(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Folders alone, then README.md with a default, then without one; each opens by its folder."""
    root = tmp_path / "BreakHis"
    for name in ("40X", "100X"):
        hugging_face(root / name)
        (root / name / "data" / "train-00000-of-00002.parquet").rename(root / name / "train-00000-of-00001.parquet")
        (root / name / "data" / "test-00000-of-00001.parquet").rename(root / name / "held-00000-of-00001.parquet")
        for file in (root / name / "data").iterdir():
            file.unlink()
        (root / name / "README.md").unlink()
    assert run(["check", str(root), "-o", str(tmp_path / "none")]) == 1
    line = capsys.readouterr().err.strip().splitlines()[-1]
    assert "2 configurations (100X, 40X)" in line
    assert str(root / "100X") in line
    (root / "README.md").write_text(CONFIGS)
    cohort = open_cohort(root)
    assert len(cohort) == 20
    assert all("/100X/" in path for path in cohort.table["path"])
    assert any(f"configuration 100X of 2 (40X, 100X) is taken; another is {root / '40X'}" in n for n in cohort.notes)
    assert len(open_cohort(root / "40X")) == 20
    (root / "README.md").write_text(CONFIGS.replace("  default: true\n", ""))
    with pytest.raises(CohortError, match=r"2 configurations \(40X, 100X\).*name one, such as .*40X"):
        open_cohort(root)
    (root / "README.md").write_text(CONFIGS.split("- config_name: 100X")[0] + "---\n")
    for file in (root / "100X").glob("*.parquet"):
        file.unlink()
    assert open_cohort(root).table["split"].tolist() == ["train"] * 10 + ["test"] * 10


def test_folders_of_hospitals_are_no_configurations(tmp_path: Path) -> None:
    """Files of the same names that say no split, and folders of splits, are taken together."""
    hugging_face(tmp_path / "a")
    shards = sorted((tmp_path / "a" / "data").glob("*.parquet"))
    for name, shard in zip(("h1", "h2"), shards, strict=False):
        (tmp_path / "b" / name).mkdir(parents=True)
        shard.rename(tmp_path / "b" / name / "0000.parquet")
    assert len(open_cohort(tmp_path / "b")) == 20


def test_one_file_and_plain_binary(tmp_path: Path) -> None:
    """`train.parquet` alone; a column of bytes."""
    images = hugging_face(tmp_path / "a", struct=False)
    file = tmp_path / "a" / "data" / "valid-00000-of-00001.parquet"
    file = file.rename(tmp_path / "validation.parquet")
    cohort = open_cohort(file)
    assert set(cohort.table["split"]) == {"validation"}
    assert np.array_equal(open_store(cohort).images, images[20:30])
    cohort = open_cohort(file.rename(tmp_path / "train.parquet"))
    assert cohort.table["split"].isna().all()
    assert any("called train" in note for note in cohort.notes)


@situation(
    "layouts",
    there="Parquet with pictures as lists of numbers (`datasets.Array3D`)",
    typed="tumortrace check FOLDER",
    right="refused: how they are to be written, and no number of a picture",
)
def test_pictures_as_lists_of_numbers(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cells = [picture.tolist() for picture in pictures(4)]
    pq.write_table(pa.table({"image": cells, "label": [0, 1, 0, 1]}), tmp_path / "train.parquet")
    assert run(["check", str(tmp_path), "-o", str(tmp_path / "out")]) == 1
    said = capsys.readouterr().err
    assert "pictures as lists of numbers in column 'image'" in said
    assert "array(" not in said


def test_arrow_files_that_were_saved(tmp_path: Path) -> None:
    """`DatasetDict.save_to_disk`: train/data-00000-of-00001.arrow, a stream; caches beside it are passed over."""
    images = hugging_face(tmp_path / "a", labels=pa.int64(), names=["normal", "tumor"])
    for split, first in (("train", 0), ("test", 10)):
        folder = tmp_path / "saved" / split
        folder.mkdir(parents=True)
        shard = tmp_path / "a" / "data" / f"train-0000{first // 10}-of-00002.parquet"
        table = pq.read_table(shard)
        for name in ("data-00000-of-00001", "cache-1234"):
            with (
                pa.OSFile(str(folder / f"{name}.arrow"), "wb") as file,
                pa.ipc.new_stream(file, table.schema) as writer,
            ):
                writer.write_table(table, max_chunksize=3)
        (folder / "dataset_info.json").write_text("{}")
        (folder / "state.json").write_text("{}")
    (tmp_path / "saved" / "dataset_dict.json").write_text('{"splits": ["train", "test"]}')
    cohort = open_cohort(tmp_path / "saved")
    assert (cohort.layout, cohort.classes) == ("hf-parquet", ("normal", "tumor"))
    assert cohort.table["split"].tolist() == ["train"] * 10 + ["test"] * 10
    assert np.array_equal(open_store(cohort).images, images[:20])


def test_no_message_shows_a_picture(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Columns that differ, labels that are none: in one line without bytes."""
    hugging_face(tmp_path / "a")
    pq.write_table(pa.table({"image": [encoded(pictures(1)[0])], "label": [[1, 2]]}), tmp_path / "b.parquet")
    assert run(["check", str(tmp_path / "b.parquet"), "-o", str(tmp_path / "out")]) == 1
    pq.write_table(pa.table({"other": [encoded(pictures(1)[0])], "label": [1]}), tmp_path / "a/data/z.parquet")
    assert run(["check", str(tmp_path / "a"), "-o", str(tmp_path / "out")]) == 1
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 2
    assert "labels of type list" in lines[0]
    assert "as in the others" in lines[1]
    assert max(map(len, lines)) < 500


# WebDataset.


def webdataset(root: Path, *, kind: str = "cls", form: str = "PNG") -> np.ndarray:
    """Shards as `webdataset.ShardWriter` writes them: `%06d.png` and its label under one key."""
    images = pictures(12)
    root.mkdir(parents=True)
    for shard, rows in {"train-000000": range(8), "val-000000": range(8, 12)}.items():
        with tarfile.open(root / f"{shard}.tar", "w") as archive:
            for row in rows:
                beside = {
                    "cls": ("cls", str(row % 2)),
                    "json": (
                        "json",
                        json.dumps({"label": "tumor" if row % 2 else "normal", "patient": f"p{row // 4}"}),
                    ),
                    "txt": ("txt", "malignant" if row % 2 else "benign"),
                }[kind]
                ending = {"PNG": "png", "TIFF": "tif", "JPEG": "jpg"}[form]
                for name, content in ((ending, encoded(images[row], form)), (beside[0], beside[1].encode())):
                    entry = tarfile.TarInfo(f"slide.3/{row:06d}.{name}")
                    entry.size = len(content)
                    archive.addfile(entry, io.BytesIO(content))
    return images


@situation(
    "layouts",
    there="WebDataset's shards: train-000000.tar of key.png and key.cls, key.json or key.txt",
    typed="tumortrace check FOLDER",
    right="labels and patients from beside the picture, splits from the shards' names, nothing unpacked",
)
@pytest.mark.parametrize(("kind", "form"), [("cls", "PNG"), ("json", "TIFF"), ("txt", "PNG")])
def test_webdataset(kind: str, form: str, tmp_path: Path) -> None:
    """As https://github.com/webdataset/webdataset#the-webdataset-format describes them."""
    images = webdataset(tmp_path / "wds", kind=kind, form=form)
    cohort = open_cohort(tmp_path / "wds")
    assert cohort.layout == "webdataset"
    assert cohort.table["split"].tolist() == ["train"] * 8 + ["validation"] * 4
    assert cohort.table["label"].tolist() == [row % 2 for row in range(12)]
    assert cohort.has_groups == (kind == "json")
    assert np.array_equal(open_store(cohort).images, images)
    assert checked(tmp_path / "wds", tmp_path / "out")["images"] == 12


def tar_of(file: Path, names: list[str]) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(file, "w") as archive:
        for name, picture in zip(names, pictures(len(names)), strict=True):
            entry = tarfile.TarInfo(name)
            entry.size = len(content := encoded(picture))
            archive.addfile(entry, io.BytesIO(content))
    return file


@situation(
    "layouts",
    there="tar archives of class folders (train/benign/0001.png), with no label beside the images",
    typed="tumortrace check FOLDER",
    right="the folder is the label, split and patient folders too; other folders are told and no label",
)
def test_archives_of_class_folders(tmp_path: Path) -> None:
    """As `tar -cf data.tar data/` makes them of class folders."""
    classes = ("benign", "malignant")
    tar_of(tmp_path / "a" / "0.tar", [f"{c}/patient_{n // 2}/{n:04d}.png" for c in classes for n in range(4)])
    cohort = open_cohort(tmp_path / "a")
    assert (cohort.classes, cohort.table["label"].tolist()) == (classes, [0] * 4 + [1] * 4)
    assert cohort.table["group"].tolist() == [f"patient_{n // 2}" for _ in classes for n in range(4)]
    assert any("labels are the folders of its archives (benign and malignant)" in note for note in cohort.notes)
    splits = ("train", "test")
    tar_of(tmp_path / "b.tar", [f"data/{s}/{c}/{n:04d}.png" for s in splits for c in classes for n in range(2)])
    table = open_cohort(tmp_path / "b.tar").table
    assert table["split"].tolist() == ["train"] * 4 + ["test"] * 4
    assert table["label"].tolist() == [0, 0, 1, 1] * 2
    tar_of(tmp_path / "c.tar", [f"{c}/{n:04d}.png" for c in ("ductal", "lobular", "healthy") for n in range(2)])
    cohort = open_cohort(tmp_path / "c.tar")
    assert cohort.table["label"].isna().all()
    assert any("its folders say no label (3 classes (ductal, healthy, lobular))" in note for note in cohort.notes)
    assert open_cohort(tmp_path / "c.tar", positive="ductal,lobular").table["label"].tolist() == [1, 1, 1, 1, 0, 0]
    tar_of(tmp_path / "d.tar", [f"benign/{n:04d}.png" for n in range(2)])
    assert open_cohort(tmp_path / "d.tar").table["label"].isna().all()


@situation(
    "layouts",
    there="a Parquet, Arrow, HDF5 or .npz file that is cut off, or a pointer of Git LFS in its place",
    typed="tumortrace check DATA",
    right="refused, naming the file and that it is damaged, or `git lfs pull`",
)
def test_damaged_files_are_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Alone in a folder, or named themselves; of several shards the damaged one."""
    hugging_face(tmp_path / "hf")
    shards = sorted((tmp_path / "hf" / "data").iterdir())
    whole = pq.read_table(shards[0])
    (tmp_path / "one").mkdir()
    (tmp_path / "arrow").mkdir()
    pq.write_table(whole, tmp_path / "one" / "train.parquet")
    arrow = tmp_path / "arrow" / "data-00000-of-00001.arrow"
    with pa.OSFile(str(arrow), "wb") as sink, pa.ipc.new_stream(sink, whole.schema) as stream:
        stream.write_table(whole)
    np.savez(tmp_path / "breastmnist.npz", train_images=pictures(2))
    hdf5 = tmp_path / "camelyonpatch_level_2_split_test_x.h5"
    with h5py.File(hdf5, "w") as file:
        file["x"] = pictures(4)
    cut = [tmp_path / "one" / "train.parquet", arrow, tmp_path / "breastmnist.npz", hdf5, shards[-1]]
    for file in cut:
        file.write_bytes(file.read_bytes()[: file.stat().st_size * 2 // 3])
    for data, file in [(cut[0].parent, cut[0]), (arrow.parent, arrow), (tmp_path / "hf", shards[-1])]:
        assert run(["check", str(data), "-o", str(tmp_path / "out")]) == 1
        line = capsys.readouterr().err
        assert str(file) in line
        assert "damaged" in line or "not a Parquet" in line
    for file in cut:
        assert run(["train", str(file)]) == 1
        line = capsys.readouterr().err
        assert "file, or one that is damaged or cut off" in line
        assert "download it again" in line
    shards[-1].write_text("version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n")
    tar = tar_of(tmp_path / "wds" / "train-000000.tar", ["0.png"])
    tar.write_text("<!DOCTYPE html><html>404</html>")
    for data, told in ((tmp_path / "hf", "git lfs pull"), (shards[-1], "git lfs pull"), (tar.parent, "a web page")):
        assert run(["check", str(data), "-o", str(tmp_path / "out")]) == 1
        assert told in capsys.readouterr().err


def test_a_field_of_labels_can_be_named(tmp_path: Path) -> None:
    """As the note of a cohort without labels says."""
    hugging_face(tmp_path / "hf")
    for shard in (tmp_path / "hf" / "data").iterdir():
        table = pq.read_table(shard)
        pq.write_table(table.rename_columns(["image", "grade", "patient"]), shard)
    assert open_cohort(tmp_path / "hf").table["label"].isna().all()
    assert open_cohort(tmp_path / "hf", label_column="grade").table["label"].tolist() == [row % 2 for row in range(40)]


def test_archives_that_cannot_be_used(tmp_path: Path) -> None:
    """Compressed, cut off, or without labels, which is said aloud."""
    webdataset(tmp_path / "wds")
    whole = (tmp_path / "wds" / "train-000000.tar").read_bytes()
    (tmp_path / "wds" / "train-000000.tar").write_bytes(whole[:5000])
    with pytest.raises(CohortError, match="tar archive"):
        open_cohort(tmp_path / "wds")
    (tmp_path / "a.tar.gz").write_bytes(b"\x1f\x8b")
    with pytest.raises(CohortError, match="gunzip"):
        open_cohort(tmp_path / "a.tar.gz")
    with tarfile.open(tmp_path / "bare.tar", "w") as archive:
        entry = tarfile.TarInfo("1.png")
        entry.size = len(content := encoded(pictures(1)[0]))
        archive.addfile(entry, io.BytesIO(content))
    cohort = open_cohort(tmp_path / "bare.tar")
    assert cohort.table["label"].isna().all()
    assert any("unlabelled" in note for note in cohort.notes)


# TFRecord.


def varint(number: int) -> bytes:
    number &= (1 << 64) - 1
    low = bytes([number & 127 | (128 if number > 127 else 0)])
    return low if number < 128 else low + varint(number >> 7)


def field(number: int, content: bytes) -> bytes:
    return varint(number << 3 | 2) + varint(len(content)) + content


def example(**values: bytes | int | float) -> bytes:
    """`tf.train.Example`, serialised by hand; numbers are packed, as protocol buffers of version 3 do."""
    entries = b""
    for name, value in values.items():
        if isinstance(value, bytes):
            feature = field(1, field(1, value))
        elif isinstance(value, int):
            feature = field(3, field(1, varint(value)))
        else:
            feature = field(2, field(1, struct.pack("<f", value)))
        entries += field(1, field(1, name.encode()) + field(2, feature))
    return field(1, entries)


def framed(message: bytes) -> bytes:
    length = struct.pack("<Q", len(message))
    sums = checksums([length, message])
    return length + struct.pack("<I", sums[0]) + message + struct.pack("<I", sums[1])


def tfds(root: Path) -> np.ndarray:
    """PatchCamelyon as TensorFlow Datasets prepares it: patch_camelyon/2.0.0/, features id, image (PNG), label."""
    images, folder = pictures(12), root / "patch_camelyon" / "2.0.0"
    folder.mkdir(parents=True)
    splits = {"train-{}-of-00002": range(8), "validation-{}-of-00001": range(8, 10), "test-{}-of-00001": range(10, 12)}
    for name, rows in splits.items():
        split, _, _ = name.partition("-")
        shards = np.array_split(list(rows), int(name[-1]))
        for number, shard in enumerate(shards):
            file = folder / f"patch_camelyon-{split}.tfrecord-{number:05d}{name[-9:]}"
            content = [
                framed(example(id=f"{split}_{row}".encode(), image=encoded(images[row]), label=int(row % 2)))
                for row in shard
            ]
            file.write_bytes(b"".join(content))
    info = {"name": "patch_camelyon", "version": "2.0.0", "fileFormat": "tfrecord", "splits": []}
    (folder / "dataset_info.json").write_text(json.dumps(info))
    (folder / "features.json").write_text("{}")
    return images


@situation(
    "layouts",
    there="TensorFlow Datasets' PatchCamelyon: patch_camelyon/2.0.0/*.tfrecord-00000-of-00008",
    typed="tumortrace check patch_camelyon",
    right="read without TensorFlow, checksums looked at, .97 um per pixel",
)
def test_tensorflow_datasets(tmp_path: Path) -> None:
    """As https://www.tensorflow.org/datasets/catalog/patch_camelyon names files and features."""
    images = tfds(tmp_path)
    cohort = open_cohort(tmp_path / "patch_camelyon")
    assert (cohort.layout, cohort.resolution) == ("tfrecord", 0.97)
    cohort = open_cohort(tmp_path / "patch_camelyon" / "2.0.0")
    table = cohort.table.set_index("id")
    assert table.loc["validation_9", ["label", "split"]].tolist() == [1, "validation"]
    assert table["split"].value_counts().to_dict() == {"train": 8, "validation": 2, "test": 2}
    order = [int(name.rpartition("_")[2]) for name in cohort.table["id"]]
    assert np.array_equal(open_store(cohort).images, images[order])
    assert checked(tmp_path / "patch_camelyon", tmp_path / "out")["images"] == 12


def test_the_messages_are_those_of_protocol_buffers(tmp_path: Path) -> None:
    """Against Google's own library: names, negative numbers, floats, texts; its own encoding."""
    pytest.importorskip("google.protobuf")
    from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

    proto = descriptor_pb2.FileDescriptorProto(name="e.proto", package="t", syntax="proto3")
    kinds = {"BytesList": ("TYPE_BYTES", 1), "FloatList": ("TYPE_FLOAT", 2), "Int64List": ("TYPE_INT64", 3)}
    feature = descriptor_pb2.DescriptorProto(name="Feature")
    for name, (kind, number) in kinds.items():
        message = proto.message_type.add(name=name)
        message.field.add(name="value", number=1, type=kind, label="LABEL_REPEATED")
        feature.field.add(
            name=name.lower(), number=number, type="TYPE_MESSAGE", type_name=f".t.{name}", label="LABEL_OPTIONAL"
        )
    proto.message_type.append(feature)
    features = proto.message_type.add(name="Features")
    entry = features.nested_type.add(name="FeatureEntry")
    entry.options.map_entry = True
    entry.field.add(name="key", number=1, type="TYPE_STRING", label="LABEL_OPTIONAL")
    entry.field.add(name="value", number=2, type="TYPE_MESSAGE", type_name=".t.Feature", label="LABEL_OPTIONAL")
    features.field.add(
        name="feature", number=1, type="TYPE_MESSAGE", type_name=".t.Features.FeatureEntry", label="LABEL_REPEATED"
    )
    whole = proto.message_type.add(name="Example")
    whole.field.add(name="features", number=1, type="TYPE_MESSAGE", type_name=".t.Features", label="LABEL_OPTIONAL")
    pool = descriptor_pool.DescriptorPool()
    pool.Add(proto)
    message = message_factory.GetMessageClass(pool.FindMessageTypeByName("t.Example"))()
    message.features.feature["label"].int64list.value.extend([-3, 5])
    message.features.feature["share"].floatlist.value.append(0.5)
    message.features.feature["slide"].byteslist.value.append("ä".encode())
    message.features.feature["none"].byteslist.value.extend([])

    from tumortrace.cohorts.tf_example import Span, records
    from tumortrace.cohorts.tf_example import features as read

    content = memoryview(framed(message.SerializeToString()))
    (span,) = records(content, "x")
    values = read(content, span)
    slide = values.pop("slide")
    assert isinstance(slide, Span)
    assert bytes(content[slide.offset : sum(slide)]).decode() == "ä"
    assert values == {"label": -3, "share": 0.5}


def test_checksums_of_many_lengths() -> None:
    """RFC 3720, B.4: 32 bytes of zeros, of ones, rising, falling; together, in one call."""
    rising = bytes(range(32))
    messages = [bytes(32), b"\xff" * 32, rising, rising[::-1], b"", b"123456789"]
    plain = [0x8A9136AA, 0x62A8AB43, 0x46DD794E, 0x113FDB5C, 0, 0xE3069283]
    masked = [((value >> 15 | value << 17 & 0xFFFFFFFF) + 0xA282EAD8) & 0xFFFFFFFF for value in plain]
    assert checksums(messages).tolist() == masked


def test_damaged_records_are_refused(tmp_path: Path) -> None:
    """A flipped bit, an end that is missing, another kind of file: one line each."""
    tfds(tmp_path)
    shard = next((tmp_path / "patch_camelyon" / "2.0.0").glob("*train*00000-of*"))
    whole = shard.read_bytes()
    flipped = bytearray(whole)
    flipped[500] ^= 4
    for content, told in (
        (flipped, "checksum of record 0"),
        (whole[:-9], "cut off in record 3"),
        (b"text" * 9, "TFRecord"),
        (b"\x1f\x8b" * 9, "gunzip"),
    ):
        shard.write_bytes(content)
        with pytest.raises(CohortError, match=told):
            open_cohort(tmp_path / "patch_camelyon")


@situation(
    "layouts",
    there="Parquet shards numbered -of-00003 of which one is not there; or shards without a row",
    typed="tumortrace check DATA",
    right="the missing shard is named in a warning; without images, refused",
)
def test_shards_that_are_not_there_are_named(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    Image.new("RGB", (16, 16)).save(buffer, "png")
    picture = pa.struct([("bytes", pa.binary()), ("path", pa.string())])

    def table(count: int) -> pa.Table:
        images = pa.array([{"bytes": buffer.getvalue(), "path": None}] * count, picture)
        return pa.table({"image": images, "label": pa.array([row % 2 for row in range(count)], pa.int64())})

    for number in (0, 2):
        pq.write_table(table(4), tmp_path / f"train-0000{number}-of-00003.parquet")
    notes = open_cohort(tmp_path).notes
    assert any("1 of its shards is not there (train-00001-of-00003.parquet)" in note for note in notes)
    empty = tmp_path / "empty"
    empty.mkdir()
    pq.write_table(table(0), empty / "train-00000-of-00001.parquet")
    with pytest.raises(CohortError, match="no images in its files"):
        open_cohort(empty)
