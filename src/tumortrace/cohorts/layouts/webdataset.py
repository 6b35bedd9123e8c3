"""WebDataset: tar archives of files that belong together by name: `key.png` with `key.cls`, `key.json` or `key.txt`.

Aizman et al., "High performance I/O for large scale deep learning", 2019; https://github.com/webdataset/webdataset. The
part of a name before its first dot is the key. Where nothing beside an image says what it is, its folder may, or its
archive's name. Archives are gone through once; where each image lies is kept in the cache.
"""

from __future__ import annotations

import json
import re
import tarfile
from pathlib import Path
from typing import BinaryIO

import pandas as pd

from tumortrace.cohorts.cache import unpacked
from tumortrace.cohorts.cohort import Cohort, Reading
from tumortrace.cohorts.files import Listing, is_image
from tumortrace.cohorts.labels import binary_labels
from tumortrace.cohorts.layouts import LAYOUTS, Layout
from tumortrace.cohorts.layouts.class_folders import placed_images
from tumortrace.cohorts.names import is_clutter, masks_among, split_of
from tumortrace.cohorts.shards import cohort_of_shards, indexed, label_field, label_note, plain_text, shards_of
from tumortrace.errors import CohortError, plain
from tumortrace.images.reference import ImageRef

_NAMES = re.compile(r".+\.(tar|tar\.gz|tgz)", re.IGNORECASE)
_VERSION = 1  # raised whenever the index holds something else
_COMPRESSED = (b"\x1f\x8b", b"BZh", b"\xfd7zXZ", b"\x28\xb5\x2f\xfd")  # gzip, bzip2, xz, Zstandard
_MOST = 1 << 20  # bytes of a label or of metadata
_IMAGE = "/image"  # columns of the index that no file beside an image can have
_TEXT = "/text"
_FOLDER = "/folder"


class WebDataset(Layout):
    """Images and their labels side by side in tar archives."""

    rank = 27
    looks_like = "WebDataset's shards (train-000000.tar of key.png and key.cls or key.json)"
    columns = ("label_column",)

    def recognises(self, path: Path) -> bool:
        """Whether it is a tar archive, or a folder with some and without images of its own."""
        if path.is_file():
            return _NAMES.fullmatch(path.name) is not None
        return bool(shards_of(path, _NAMES, depth=1)) and not any(is_image(entry.name) for entry in path.iterdir())

    def read(self, path: Path, reading: Reading) -> Cohort:
        """The cohort of all images in all archives, with what stands beside each as its label and columns."""
        shards = shards_of(path, _NAMES, depth=1)
        rows = indexed(shards, _index, path, "going through archives")
        if rows.empty:
            raise CohortError("no images in its archives", where=path, expected="images such as key.png and key.cls")
        fields = [str(name) for name in rows if name not in ("key", "shard", "split", _IMAGE)]
        column = label_field(fields, path, reading) or (_TEXT if _TEXT in fields else None)
        notes = ["labels are the .txt files"] if column == _TEXT else [label_note(column, fields, "field")]
        rows["id"] = rows.pop("key")
        rows, left_out = _without_others(rows, column)
        if column is None and reading.label_from_name is None:
            rows, told = _labelled_by_folder(rows, path, reading)
            column, notes = (_FOLDER if _FOLDER in rows else None), told or notes
        notes += left_out
        rows["path"] = [str(ImageRef(*row)) for row in zip(rows.pop("shard"), rows.pop(_IMAGE), strict=True)]
        rows["label"] = rows[column] if column else None
        further = rows.drop(columns=[name for name in (column, _TEXT) if name in rows and name != "label"])
        return cohort_of_shards(path, "webdataset", further, reading, notes)


LAYOUTS.register("webdataset")(WebDataset())


def _without_others(rows: pd.DataFrame, column: str | None) -> tuple[pd.DataFrame, list[str]]:
    """The rows without what systems keep, and without masks that have no label of their own; and notes of these."""
    ids = rows["id"].tolist()
    clutter = {key for key in ids if any(map(is_clutter, key.split("/")))}
    names = {f"{key}.png": key for key in ids if key not in clutter}  # keys have no ending
    unlabelled = set(ids if column is None else rows.loc[rows[column].isna(), "id"])
    masks = {names[name] for name in masks_among(list(names))} & unlabelled
    notes = Listing([], [], tuple(sorted(masks)), tuple(sorted(clutter))).notes()
    return rows[~rows["id"].isin(clutter | masks)].reset_index(drop=True), notes


def _labelled_by_folder(rows: pd.DataFrame, path: Path, reading: Reading) -> tuple[pd.DataFrame, list[str]]:
    """The rows with the folder of each key that names its class, and its split where one does; and notes.

    Classes are the first level of folders whose names are those of classes, or else the names of archives that are
    (`benign.tar`, `malignant-0001.tar`). Without any, rows stay as they are.

    Raises:
        CohortError: None is, and the user said which class is positive.
    """
    placed = {image.image: image for image in placed_images(rows["id"].tolist(), path)}
    folders = [placed[key].folders if key in placed else () for key in rows["id"]]
    levels = [
        ("folders", [parts[level] if len(parts) > level else "" for parts in folders])
        for level in range(max(map(len, folders), default=0))
    ]
    archives = [re.sub(r"[\W_]*\d*$", "", Path(shard).stem) for shard in rows["shard"]]
    levels += [] if any(map(split_of, set(archives))) else [("names", archives)]
    refusal = None
    for what, names in levels:
        if len({*names} - {""}) < 2:
            continue
        try:
            classes = binary_labels(names, positive=reading.positive, merge=reading.merge, where=path).classes
        except CohortError as error:
            refusal = refusal or error
            continue
        splits = pd.Series([placed[key].split if key in placed else None for key in rows["id"]], dtype=object)
        notes = [f"labels are the {what} of its archives ({' and '.join(classes)})"]
        outside = [key for key, name in zip(rows["id"], names, strict=True) if not name]
        if outside:
            notes.append(f"{len(outside):,} of {len(names):,} images lie in none of them: {plain(outside[0])}")
        rows = rows.assign(split=rows["split"].where(rows["split"].notna(), splits))
        rows[_FOLDER] = names
        return rows, notes
    if refusal is not None and reading.positive:
        raise refusal
    if refusal is None:
        return rows, []
    told = f"no field of labels, and its folders say no label ({refusal.found}): all images are unlabelled"
    return rows, [f"{told}; --positive NAME says which count as positive, where they are classes"]


def _index(shard: Path) -> pd.DataFrame:
    """Key, place of the image, and label and metadata of each sample of an archive, as text."""
    with open(shard, "rb") as file:
        compressed = file.read(8).startswith(_COMPRESSED)
    if compressed or not shard.name.lower().endswith(".tar"):
        found = "a compressed archive, of which no image can be read by itself"
        how = "into a folder: tar -xf" if shard.name.lower().endswith(".tar") else "it: gunzip"
        raise CohortError(found, where=shard, expected="a plain .tar", remedy=f"unpack {how} {shard.name}")

    def write(copy: BinaryIO) -> None:
        pd.DataFrame(_samples(shard)).to_parquet(copy)

    return pd.read_parquet(unpacked(shard, f"{shard.stem}.index-{_VERSION}.parquet", write))


def _samples(shard: Path) -> list[dict[str, str]]:
    samples: dict[str, dict[str, str]] = {}
    try:
        with tarfile.open(shard, "r:") as archive:
            for entry in archive:
                folder, _, name = entry.name.rpartition("/")
                stem, _, kind = name.partition(".")
                if not entry.isfile() or not stem or not kind:
                    continue
                sample = samples.setdefault(f"{folder}/{stem}".strip("/."), {})
                if is_image(name):
                    if "mask" in kind.split("."):
                        continue
                    if _IMAGE in sample:
                        found = f"two images of the key {stem!r}"
                        raise CohortError(found, where=shard, expected="one for each key", remedy="name it anew")
                    sample[_IMAGE] = f"{entry.offset_data}+{entry.size}"
                elif entry.size <= _MOST and (file := archive.extractfile(entry)) is not None:
                    sample |= _beside(kind, file.read(), f"{shard.name}: {entry.name}")
    except (tarfile.TarError, EOFError, OSError) as error:
        raise CohortError(f"not a complete tar archive ({error})", where=shard, remedy="download it again") from None
    return [{"key": key, **sample} for key, sample in samples.items() if _IMAGE in sample]


def _beside(kind: str, content: bytes, where: str) -> dict[str, str]:
    """What a file beside an image says, by field."""
    kind = kind.lower()
    if kind == "json":
        try:
            fields = json.loads(content)
        except ValueError as error:
            raise CohortError(f"not JSON ({error})", where=where, remedy="write the archive anew") from None
        pairs = fields.items() if isinstance(fields, dict) else [("label", fields)]
        texts = {str(name).lower(): plain_text(value) for name, value in pairs}
        return {name: text for name, text in texts.items() if text is not None and name not in ("key", "id", "path")}
    text = plain_text(content.strip())
    if text is None or kind.split(".")[0] not in ("cls", "label", "class", "txt", "text", "target"):
        return {}
    return {_TEXT if kind in ("txt", "text") else kind.split(".")[0]: text}
