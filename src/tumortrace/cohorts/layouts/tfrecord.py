"""TFRecord files of `tf.train.Example`, as TensorFlow Datasets writes them: PatchCamelyon among others.

`patch_camelyon/2.0.0/patch_camelyon-train.tfrecord-00000-of-00008`, beside `dataset_info.json` and `features.json`
(https://www.tensorflow.org/datasets/catalog/patch_camelyon, /external_tfrecord). Files are gone through once; where
each image lies is kept in the cache.
"""

from __future__ import annotations

import mmap
import re
from pathlib import Path
from typing import BinaryIO

import pandas as pd

from tumortrace.cohorts.cache import unpacked
from tumortrace.cohorts.cohort import Cohort, Reading
from tumortrace.cohorts.layouts import LAYOUTS, Layout
from tumortrace.cohorts.layouts.pcam_hdf5 import RESOLUTION
from tumortrace.cohorts.shards import (
    class_names_of,
    cohort_of_shards,
    indexed,
    label_field,
    label_note,
    lost_note,
    plain_text,
    read_json,
    shards_of,
)
from tumortrace.cohorts.tf_example import Span, features, records
from tumortrace.errors import CohortError
from tumortrace.images.reference import ImageRef

_NAMES = re.compile(r".+\.tfrecords?(-\d+-of-\d+)?", re.IGNORECASE)
_STARTS = (b"\x89PNG", b"\xff\xd8\xff", b"II*\0", b"MM\0*", b"BM", b"GIF8")  # of PNG, JPEG, TIFF, BMP, GIF
_VERSION = 1  # raised whenever the index holds something else
_IMAGE = "/image"
_LABELS = ("image/class/text", "image/class/label")  # as TensorFlow's own converters call them


class TfRecord(Layout):
    """Encoded images with their labels in records."""

    rank = 28
    looks_like = "TFRecord files (TensorFlow Datasets: patch_camelyon-train.tfrecord-00000-of-00008)"
    columns = ("label_column",)

    def recognises(self, path: Path) -> bool:
        """Whether there are files that are called so."""
        return bool(shards_of(path, _NAMES))

    def read(self, path: Path, reading: Reading) -> Cohort:
        """The cohort of all records; the split of a file is what its name says."""
        shards = shards_of(path, _NAMES)
        rows = indexed(shards, _index, path, "going through records")
        if rows.empty:
            raise CohortError("no records", where=path, remedy="download it again")
        fields = [str(name) for name in rows if name not in ("record", "shard", "split", _IMAGE)]
        column = label_field(fields, path, reading) or next((name for name in _LABELS if name in fields), None)
        notes = [*lost_note(path, shards), label_note(column, fields, "feature")]
        rows["path"] = [str(ImageRef(*row)) for row in zip(rows.pop("shard"), rows.pop(_IMAGE), strict=True)]
        names = class_names_of(shards[0].parent / f"{column}.labels.txt")
        rows["label"] = [_named(text, names) for text in rows[column]] if column else None
        known = "id" in rows and rows["id"].notna().all() and not rows["id"].duplicated().any()
        rows["id"] = rows["id"] if known else rows["record"]
        rows = rows.drop(columns=[name for name in ("record", column) if name in rows and name != "label"])
        pcam = read_json(shards[0].parent / "dataset_info.json").get("name") == "patch_camelyon"
        if pcam:
            notes.append(f"TensorFlow Datasets' PatchCamelyon: {RESOLUTION} um per pixel; its slides are not stated")
        return cohort_of_shards(path, "tfrecord", rows, reading, notes, RESOLUTION if pcam else None)


LAYOUTS.register("tfrecord")(TfRecord())


def _named(text: str | None, names: list[str]) -> str | None:
    return names[int(text)] if text is not None and text.isdecimal() and int(text) < len(names) else text


def _index(shard: Path) -> pd.DataFrame:
    """Number of each record, place of its image, and its other features as text."""

    def write(copy: BinaryIO) -> None:
        pd.DataFrame(_rows(shard)).to_parquet(copy)

    return pd.read_parquet(unpacked(shard, f"{shard.name}.index-{_VERSION}.parquet", write))


def _rows(shard: Path) -> list[dict[str, str]]:
    if shard.stat().st_size == 0:
        raise CohortError("the file is empty", where=shard, remedy="download it again")
    with open(shard, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as mapped:
        if mapped[:2] == b"\x1f\x8b":
            found = "a compressed TFRecord file, of which no image can be read by itself"
            raise CohortError(found, where=shard, remedy="unpack it with gunzip")
        content = memoryview(mapped)
        try:
            spans = records(content, shard)
            stem = re.sub(r"\.tfrecords?|-of-\d+$", "", shard.name)
            return [{"record": f"{stem}-{row:06d}", **_row(content, span, shard)} for row, span in enumerate(spans)]
        finally:
            content.release()


def _row(content: memoryview, message: Span, shard: Path) -> dict[str, str]:
    try:
        values = features(content, message)
    except (ValueError, UnicodeDecodeError) as error:
        raise CohortError(f"a record that is no tf.train.Example ({error})", where=shard) from None
    row: dict[str, str] = {}
    for name, value in values.items():
        if isinstance(value, Span):
            start = bytes(content[value.offset : value.offset + 4])
            if _IMAGE not in row and start.startswith(_STARTS):
                row[_IMAGE] = f"{value.offset}+{value.length}"
                continue
            text = plain_text(bytes(content[value.offset : sum(value)])) if value.length <= 200 else None
        else:
            text = plain_text(value)
        if text is not None:
            row[name.lower()] = text
    if _IMAGE not in row:
        found = f"a record without an encoded image (features {', '.join(values)[:160]})"
        raise CohortError(found, where=shard, expected="PNG, JPEG, TIFF, BMP or GIF")
    return row
