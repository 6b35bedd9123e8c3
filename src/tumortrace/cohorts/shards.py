"""Data in shards: files that hold many images each, whose names say which split they are of."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import pandas as pd

from tumortrace.cohorts.cohort import SPLITS, Cohort, Reading
from tumortrace.cohorts.labels import binary_labels
from tumortrace.cohorts.names import SPLIT_NAMES
from tumortrace.cohorts.tables import standard_columns
from tumortrace.errors import CohortError, plain
from tumortrace.records.progress import track
from tumortrace.records.stand_ins import stand_in

LABEL_FIELDS = ("label", "labels", "class", "cls", "target", "tumor", "tumour", "is_tumor", "is_tumour", "diagnosis")
"""Fields of a record that hold the label, the first that is there being taken."""

_LONGEST = 200  # characters of a text that are kept: longer ones are captions or reports


def shards_of(path: Path, pattern: re.Pattern[str], depth: int = 4) -> list[Path]:
    """The files that a pattern matches by name: the path itself, or those in a folder and below, sorted.

    Args:
        path: A file or folder.
        pattern: Of whole names.
        depth: Folders below that are looked into.
    """
    if path.is_file():
        return [path] if pattern.fullmatch(path.name) else []
    if not path.is_dir() or depth < 0:
        return []
    with os.scandir(path) as entries:  # a quarter of a million files are gone through without a look at each
        seen = sorted((entry.name, entry.is_dir()) for entry in entries if not entry.name.startswith("."))
    shards = [path / name for name, folder in seen if not folder and pattern.fullmatch(name)]
    folders = [path / name for name, folder in seen if folder][:50]
    return shards + [shard for folder in folders for shard in shards_of(folder, pattern, depth - 1)]


def refuse_stand_in(file: Path) -> None:
    """Refuse a file in whose place a pointer or a web page lies, or nothing.

    Raises:
        CohortError: It does, with what to do.
    """
    if there := stand_in(file):
        raise CohortError(there.found, where=file, expected="the data themselves", remedy=there.remedy)


def lost_shards(shards: Sequence[Path]) -> list[str]:
    """The shards that are not there, of those that are numbered `train-00000-of-00002`.

    Example:
        >>> lost_shards([Path("data/train-00001-of-00002.parquet"), Path("data/test-00000-of-00001.parquet")])
        ['train-00000-of-00002.parquet']
    """
    numbered = [match for shard in shards if (match := re.fullmatch(r"(.*\D|)(\d+)(-of-)(\d+)(.*)", shard.name))]
    names = {shard.name for shard in shards}
    series = {(start, len(number), of, total, end) for start, number, of, total, end in (m.groups() for m in numbered)}
    expected = [
        f"{start}{number:0{digits}d}{of}{total}{end}"
        for start, digits, of, total, end in sorted(series)
        for number in range(min(int(total), 100_000))
    ]
    return [name for name in expected if name not in names]


def lost_note(path: Path, shards: Sequence[Path]) -> list[str]:
    """One line where a folder lacks shards that the names of others count."""
    lost = lost_shards(shards) if path.is_dir() else []
    which = ", ".join(map(plain, lost[:3])) + (", ..." if len(lost) > 3 else "")
    told = f"warning: {len(lost):,} of its shards {'is' if len(lost) == 1 else 'are'} not there ({which})"
    return [f"{told}: download them again"] if lost else []


def split_of_shard(shard: Path, root: Path) -> str | None:
    """The split that the name of a shard says, or else that of a folder between it and the data; None where none does.

    Example:
        >>> root = Path("/d")
        >>> split_of_shard(root / "data/valid-00000-of-00001.parquet", root), split_of_shard(root / "test/0.tar", root)
        ('validation', 'test')
    """
    parts = shard.relative_to(root).parts if shard != root else (shard.name,)
    for part in reversed(parts):
        words = re.split(r"[^a-z]+", part.lower())
        splits = {SPLIT_NAMES[word] for word in words if word in SPLIT_NAMES}
        if len(splits) == 1:
            return splits.pop()
    return None


def with_split(rows: pd.DataFrame, shard: Path, root: Path) -> pd.DataFrame:
    """The rows of a shard with the split that its name says, or else the one that they say themselves."""
    split = split_of_shard(shard, root)
    return rows if split is None and "split" in rows else rows.assign(split=split)


def indexed(
    shards: Sequence[Path], index: Callable[[Path], pd.DataFrame], root: Path, description: str
) -> pd.DataFrame:
    """What all shards hold, each as `index` lists it, with the columns `split` and `shard` (its whole path)."""
    tables = []
    for shard in track(shards, description, total=len(shards)):
        refuse_stand_in(shard)
        tables.append(with_split(index(shard), shard, root).assign(shard=str(shard.absolute())))
    return pd.concat(tables, ignore_index=True)


def plain_text(value: object) -> str | None:
    """A scalar as a cell of a table; None for what is none, such as a list, pixels or a long text."""
    if isinstance(value, bool):
        return str(int(value))
    if isinstance(value, bytes):
        try:
            value = value.decode()
        except UnicodeDecodeError:
            return None
    text = str(value) if isinstance(value, str | int | float) else ""
    return text if 0 < len(text) <= _LONGEST else None


def label_field(names: Sequence[str], where: object, reading: Reading) -> str | None:
    """The field that holds the label: the one asked for with `--label-column`, else the first of `LABEL_FIELDS`."""
    asked = reading.label_column
    lower = {name.lower(): name for name in names}
    if asked is not None and asked.lower() not in lower:
        found = f"no field {asked!r}"
        raise CohortError(found, where=where, expected=f"one of {', '.join(names)[:160]}", remedy="correct it")
    return lower[asked.lower()] if asked is not None else next((lower[n] for n in LABEL_FIELDS if n in lower), None)


def label_note(column: str | None, fields: Sequence[str], what: str) -> str:
    """Which field the labels are, or that there are none and which could be."""
    if column is not None:
        return f"labels are the {what} {column!r}"
    others = f" among {', '.join(fields)[:120]}; --label-column names one" if fields else ""
    return f"no {what} of labels{others}: all images are unlabelled"


def cohort_of_shards(
    path: Path, layout: str, rows: pd.DataFrame, reading: Reading, notes: Sequence[str], resolution: float | None = None
) -> Cohort:
    """The cohort of rows that stand in shards.

    Args:
        path: The data.
        layout: Name of the layout.
        rows: `id`, `path`, `label` (text, missing or blank where there is none), `split` in our words, and further
            columns as text.
        reading: How to read them.
        notes: What was assumed.
        resolution: Micrometres per pixel where the data state it.

    Raises:
        CohortError: The labels cannot be read.
    """
    if rows.empty:
        raise CohortError("no images in its files", where=path, remedy="download them again")
    order = rows["split"].map({name: number for number, name in enumerate(SPLITS)})
    rows = rows.loc[order.sort_values(kind="stable").index].reset_index(drop=True)
    texts = rows["label"].astype("string").fillna("").tolist()
    labels = binary_labels(texts, positive=reading.positive, merge=reading.merge, where=path)
    rows = standard_columns(rows.drop(columns="label").assign(id=_unique(rows)), path)
    table = labels.into(rows)
    told = [*notes, *([labels.note] if labels.note else [])]
    if rows["split"].isna().all():
        told.append("the names of its files say no split")
    elif (rows["split"] == "train").all():  # what Hugging Face calls data that are not divided
        told.append("all of it is called train, which divides nothing: splits are made")
        table = table.assign(split=None)
    name = path.stem if path.is_file() else path.resolve().name
    return Cohort(name, layout, table, resolution=resolution, notes=tuple(told), **labels.naming)


def class_names_of(file: Path) -> list[str]:
    """Names of classes in a text file, one a line, as TensorFlow Datasets writes them; none where it is not there."""
    return [line.strip() for line in file.read_text("utf-8").splitlines() if line.strip()] if file.is_file() else []


def read_json(file: Path) -> Mapping[str, object]:
    """An object in a JSON file; empty where there is none that can be read."""
    try:
        content = json.loads(file.read_text("utf-8"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def _unique(rows: pd.DataFrame) -> pd.Series:
    """Ids, with the split before those that repeat across splits."""
    if not rows["id"].duplicated().any():
        return rows["id"]
    return rows["split"].fillna("image").astype(str) + "-" + rows["id"].astype(str)
