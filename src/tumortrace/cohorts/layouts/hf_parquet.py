"""Parquet files with images in them, as Hugging Face distributes data sets, and Arrow files, as it saves them.

Shards `data/train-00000-of-00001.parquet`, or `train.parquet`; `train/data-00000-of-00001.arrow` (`save_to_disk`). A
column of images (a struct of `bytes` and `path`, or plain binary) and one of labels: bool, text, or a whole number
whose names stand in the schema's metadata under `huggingface`. https://huggingface.co/docs/datasets/image_load and
/about_dataset_features.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pandas as pd

from tumortrace.cohorts.cohort import Cohort, Reading
from tumortrace.cohorts.configurations import chosen
from tumortrace.cohorts.layouts import LAYOUTS, Layout
from tumortrace.cohorts.shards import (
    cohort_of_shards,
    label_field,
    label_note,
    lost_note,
    plain_text,
    refuse_stand_in,
    shards_of,
    split_of_shard,
    with_split,
)
from tumortrace.errors import CohortError
from tumortrace.images.parts import arrow_table, column_of_numbers, image_column
from tumortrace.images.reference import ImageRef

_NAMES = re.compile(r"(?!cache-).+\.(parquet|pq|arrow)", re.IGNORECASE)


class HuggingFaceParquet(Layout):
    """Encoded images and labels in the columns of Parquet files."""

    rank = 26
    looks_like = "Parquet files with images in them (Hugging Face: data/train-00000-of-00001.parquet)"
    columns = ("label_column", "image_column")

    def recognises(self, path: Path) -> bool:
        """Whether the first Parquet file there holds a column of images, encoded or number by number."""
        shards = shards_of(path, _NAMES)
        if not shards or (schema := _schema(shards[0])) is None:
            return False
        return image_column(schema) is not None or column_of_numbers(schema) is not None

    def read(self, path: Path, reading: Reading) -> Cohort:
        """The rows of a configuration's shards; the split of a shard is what its name, or README.md, says."""
        configuration, told = chosen(path, shards_of(path, _NAMES))
        shards = configuration.shards
        first = _schema(shards[0])
        assert first is not None  # as `recognises` has found
        if image_column(first) is None:
            raise CohortError(
                f"pictures as lists of numbers in column {column_of_numbers(first)!r}",
                where=shards[0],
                expected="encoded pictures: a struct of bytes and path, or binary",
                remedy="write it anew with the feature `datasets.Image()`",
            )
        column = str(image_column(first)).removesuffix(".bytes")
        if reading.image_column not in (None, column):
            found = f"--image-column {reading.image_column}"
            raise CohortError(found, where=path, expected=f"{column}, which holds the images", remedy="leave it out")
        notes = [*told, *lost_note(path, shards), f"images are the column {column!r} of {_count(len(shards))}"]
        tables = [_rows(shard, path, first, reading, configuration.splits.get(shard)) for shard in shards]
        rows = pd.concat(tables, ignore_index=True)
        fields = [field.name for field in first if field.name != column]
        notes.append(label_note(label_field(fields, path, reading), fields, "column"))
        return cohort_of_shards(path, "hf-parquet", rows, reading, notes)


LAYOUTS.register("hf-parquet")(HuggingFaceParquet())


def _count(shards: int) -> str:
    return "a file" if shards == 1 else f"{shards} files"


def _schema(shard: Path) -> Any:
    """The schema of a Parquet or Arrow file, or None where it is neither."""
    import pyarrow.parquet

    try:
        return arrow_table(shard).schema if _is_arrow(shard) else pyarrow.parquet.read_schema(shard)
    except (OSError, ValueError):  # pyarrow's errors are ValueErrors too
        return None


def _is_arrow(shard: Path) -> bool:
    return shard.suffix.lower() == ".arrow"


def _columns(shard: Path, names: list[str]) -> tuple[dict[str, list[Any]], int]:
    """Columns of a file as lists, and how many rows it has."""
    import pyarrow.parquet

    if _is_arrow(shard):
        table = arrow_table(shard)
        return {name: table.column(name).to_pylist() for name in names}, table.num_rows
    file = pyarrow.parquet.ParquetFile(shard)
    return {name: file.read(columns=[name]).column(0).to_pylist() for name in names}, file.metadata.num_rows


def _rows(shard: Path, root: Path, first: Any, reading: Reading, split: str | None) -> pd.DataFrame:
    """Id, path, label, split and plain columns of each row of a shard; images are not read.

    Args:
        shard: The file.
        root: The data.
        first: Schema of the first shard.
        reading: How to read them.
        split: That README.md names, where the name of the file says none.
    """
    import pyarrow as pa

    refuse_stand_in(shard)
    schema = _schema(shard)
    if schema is None:
        raise CohortError("not a Parquet or Arrow file", where=shard, remedy="download it again")
    if image_column(schema) != image_column(first):
        found = f"columns {', '.join(schema.names)[:160]}"
        raise CohortError(found, where=shard, expected=f"{', '.join(first.names)[:160]}, as in the others")
    types = {field.name: field.type for field in schema}
    types = {name: kind.value_type if pa.types.is_dictionary(kind) else kind for name, kind in types.items()}
    kinds = (pa.types.is_string, pa.types.is_large_string, pa.types.is_boolean, pa.types.is_integer)
    plain = [name for name in types if any(is_kind(types[name]) for is_kind in (*kinds, pa.types.is_floating))]
    label = label_field([field.name for field in schema], shard, reading)
    if label is not None and label not in plain:
        found = f"labels of type {str(schema.field(label).type)[:80]} in column {label!r}"
        expected = "one text, truth value or whole number for each image"
        raise CohortError(found, where=shard, expected=expected, remedy="name another with --label-column")
    try:
        columns, count = _columns(shard, plain)
    except (OSError, ValueError) as error:
        raise CohortError(
            f"cannot be read as Parquet or Arrow ({error})", where=shard, remedy="download it again"
        ) from None
    names = _class_names(schema, label)
    texts = {name: [None if value is None else plain_text(value) for value in columns[name]] for name in plain}
    parts = shard.relative_to(root).parts[:-1] if shard != root else ()
    stem = "-".join([*(part for part in parts if part not in ("data", "default")), re.sub(r"-of-\d+$", "", shard.stem)])
    further = {name.lower(): texts[name] for name in plain if name != label and name.lower() not in ("id", "path")}
    values: list[Any] = columns[label] if label else [None] * count
    rows = pd.DataFrame(
        {
            **further,
            "id": [f"{stem}-{row:06d}" for row in range(count)],
            "path": [str(ImageRef(str(shard.absolute()), str(row))) for row in range(count)],
            "label": [_label(value, names, shard) for value in values],
        },
        dtype=object,
    )
    return with_split(rows, shard, root) if split is None or split_of_shard(shard, root) else rows.assign(split=split)


def _class_names(schema: Any, label: str | None) -> list[str]:
    """Names of a `ClassLabel` by number, from the schema's metadata; none where it has none."""
    try:
        features = json.loads((schema.metadata or {})[b"huggingface"])["info"]["features"]
        return [str(name) for name in features[label]["names"]]
    except (KeyError, TypeError, ValueError):
        return []


def _label(value: object, names: list[str], shard: Path) -> str | None:
    if value is None or not names or isinstance(value, bool | str):
        return None if value is None else plain_text(value)
    if isinstance(value, int) and value == -1:  # how Hugging Face writes that there is no label
        return None
    if isinstance(value, int) and 0 <= value < len(names):
        return names[value]
    raise CohortError(f"label {value!r}", where=shard, expected=f"0 to {len(names) - 1}, as its metadata name them")
