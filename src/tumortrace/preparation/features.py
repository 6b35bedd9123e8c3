"""The verb `features`: texture descriptors of every image as a table, and pictures of them."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Unpack

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from joblib import Parallel, cpu_count, delayed

from tumortrace.cohorts.cohort import Cohort, ReadingOptions
from tumortrace.cohorts.layouts import open_cohort
from tumortrace.cohorts.store import PatchStore, open_store
from tumortrace.cohorts.telling import tell
from tumortrace.errors import DataError, RunError
from tumortrace.records.data import FeaturesData, FeaturesRecord
from tumortrace.records.files import replacing
from tumortrace.records.lock import locked
from tumortrace.records.output import require_file, require_same_images
from tumortrace.records.progress import say, track
from tumortrace.records.provenance import RESEARCH_USE, versions
from tumortrace.records.record import Open
from tumortrace.records.remote import cache_folder
from tumortrace.records.tables import read_table
from tumortrace.texture.descriptor import SMALLEST, choose, describe

FORMATS = (".parquet", ".csv")
_CHUNK_PIXELS = 2_400_000  # what an interruption loses at most, per worker
_ROWS_AT_ONCE = 4096  # rows of a table in memory
_METADATA = b"tumortrace"


def features(
    data: str | Path | Cohort,
    *,
    out: str | Path = "features.parquet",
    descriptors: Sequence[str] | None = None,
    changes: Sequence[str] = (),
    pictures: int = 0,
    workers: int | None = None,
    **reading: Unpack[ReadingOptions],
) -> Path:
    """Compute texture descriptors of every image of a cohort and write them as one table.

    Columns are `id, group, split, label` and then one per feature, named `<descriptor>_<...>`, float64, never missing;
    rows stand in the cohort's order. Which descriptors, with which arguments, of which data: Parquet holds it as JSON
    under the key `tumortrace` of its schema, a CSV file has it beside it, with `.json` added to its name. A call
    that was interrupted is taken up where it stopped; the table appears whole or not at all.

    Args:
        data: Any known layout, or an opened cohort.
        out: Table to write: `.parquet` or `.csv`.
        descriptors: Names, default all; see `tumortrace.texture.descriptor.DESCRIPTORS`.
        changes: Arguments of descriptors, as in `glcm.distances=[1,2]`.
        pictures: For how many images of each class to draw the descriptors, into the folder `<out>-pictures`.
        workers: Processes; default one per core.
        **reading: How the data are read: options of `open_cohort`.

    Returns:
        The table's path.

    Raises:
        DataError: The table's extension is not known, images are smaller than 8x8 px or cannot be decoded.
        RecipeError: A change is not valid.
        RunError: `out` holds a table of other images, or cannot be written.
        TumorTraceError: There is no such descriptor, or the data do not open.
    """
    out = Path(out)
    if out.suffix.lower() not in FORMATS:
        raise DataError(f"no table format {out.suffix!r}", where=out, expected=" or ".join(FORMATS))
    if pictures < 0:
        raise DataError(f"{pictures} pictures", expected="0 or more of each class")
    require_file(out, inputs=[data])
    chosen = choose(descriptors, changes)
    cohort = open_cohort(data, **reading)
    for note in cohort.notes:
        say(f"note: {note}")
    require_same_images(out, cohort.table["id"])
    store = open_store(cohort)
    for note in store.notes:
        say(f"note: {note}")
    told = tell(cohort, store.looks, store.size)
    if min(store.size) < SMALLEST:
        raise DataError(f"images of {store.size[1]}x{store.size[0]} px", where=cohort.name, expected="8x8 px or more")
    names, _ = describe(store.images[:1], chosen)
    record = _record(cohort, store, chosen, len(names), told)
    key = hashlib.sha256(
        json.dumps([record.as_json(), cohort.table["id"].tolist()], sort_keys=True).encode()
    ).hexdigest()[:32]
    parts = cache_folder() / "features" / key
    parts.mkdir(parents=True, exist_ok=True)
    with locked(parts.with_suffix(".lock")):
        chunks = _compute(store.images, chosen, parts, workers)
        _write(out, _tables(cohort, names, chunks), record)
        shutil.rmtree(parts, ignore_errors=True)
    if pictures:
        folder = out.with_name(f"{out.stem}-pictures")
        _draw(cohort, store, pictures, folder)
        say(f"features: pictures in {folder}")
    say(f"features: {len(cohort):,} rows, {len(names):,} features in {out}. {RESEARCH_USE}")
    return out


def read_features(path: str | Path) -> tuple[pd.DataFrame, FeaturesRecord]:
    """The table that `features` wrote, and the record of how.

    Raises:
        DataError: There is no such table, or `features` did not write it.
    """
    path = Path(path)
    expected = "a table written by `tumortrace features`"
    try:
        if path.suffix.lower() == ".csv":
            table = read_table(path)
            record = FeaturesRecord.model_validate_json(Path(f"{path}.json").read_bytes())
            return table.astype({"label": "Int64"}), record
        return pd.read_parquet(path), FeaturesRecord.model_validate_json(
            (pq.read_schema(path).metadata or {})[_METADATA]
        )
    except (OSError, ValueError, KeyError, RunError) as error:  # Arrow's errors are among these
        raise DataError(f"cannot be read as features ({error})", where=path, expected=expected) from None


def _record(cohort: Cohort, store: PatchStore, chosen: dict[str, Open], count: int, told: list[str]) -> FeaturesRecord:
    """How the features came to be."""
    data = FeaturesData(
        name=cohort.name,
        layout=cohort.layout,
        fingerprint=cohort.fingerprint,
        images=len(cohort),
        classes=list(cohort.classes),
        positive_class=cohort.positive_class,
        resolution=cohort.resolution,
        size=store.size,
        notes=[*cohort.notes, *store.notes, *told],
    )
    return FeaturesRecord(
        descriptors=json.loads(json.dumps(chosen)),
        features=count,
        data=data,
        versions=versions(),
        research_use=RESEARCH_USE,
    )


def _compute(images: np.ndarray, chosen: dict[str, Open], folder: Path, workers: int | None) -> list[Path]:
    """The files of all chunks in order, each computed unless it is there from an interrupted call."""
    step = max(1, _CHUNK_PIXELS // (images.shape[1] * images.shape[2]))
    starts = range(0, len(images), step)
    chunks = [folder / f"{start:09d}.npy" for start in starts]
    missing = [(start, chunk) for start, chunk in zip(starts, chunks, strict=True) if not chunk.exists()]
    if len(missing) < len(chunks):
        say(f"features: continuing, {len(chunks) - len(missing)} of {len(chunks)} chunks are there")
    parallel = Parallel(min(workers or cpu_count(), max(1, len(missing))), return_as="generator_unordered")
    todo = (delayed(_compute_chunk)(images[start : start + step], chosen, chunk) for start, chunk in missing)
    for _ in track(parallel(todo), "describing images", len(missing)):
        pass
    return chunks


def _compute_chunk(images: np.ndarray, chosen: dict[str, Open], target: Path) -> None:
    values = describe(images, chosen)[1]
    with replacing(target) as temporary, open(temporary, "wb") as file:
        np.save(file, values)


def _tables(cohort: Cohort, names: list[str], chunks: list[Path]) -> Iterator[pd.DataFrame]:
    """The table in pieces of a few thousand rows."""
    about = cohort.table[["id", "group", "split", "label"]]
    waiting: list[np.ndarray] = []
    start = 0
    for number, chunk in enumerate(chunks, 1):
        waiting.append(np.load(chunk))
        rows = sum(map(len, waiting))
        if rows >= _ROWS_AT_ONCE or number == len(chunks):
            values = pd.DataFrame(np.concatenate(waiting), columns=names)
            yield pd.concat([about.iloc[start : start + rows].reset_index(drop=True), values], axis=1)
            start, waiting = start + rows, []


def _write(out: Path, tables: Iterator[pd.DataFrame], record: FeaturesRecord) -> None:
    with replacing(out) as temporary:
        if out.suffix.lower() == ".csv":
            record.write_file(Path(f"{out}.json"))
            with open(temporary, "w", encoding="utf-8", newline="") as file:
                for number, table in enumerate(tables):
                    table.to_csv(file, index=False, header=number == 0, lineterminator="\n")
            return
        writer: pq.ParquetWriter | None = None
        for table in tables:
            arrow = pa.Table.from_pandas(table, preserve_index=False)
            if writer is None:
                metadata = {
                    **(arrow.schema.metadata or {}),
                    _METADATA: json.dumps(record.as_json(), ensure_ascii=False),
                }
                writer = pq.ParquetWriter(temporary, arrow.schema.with_metadata(metadata), compression="zstd")
            writer.write_table(arrow.cast(writer.schema))
        if writer is not None:
            writer.close()


def _draw(cohort: Cohort, store: PatchStore, count: int, folder: Path) -> None:
    """Draw `count` images of each class, spread evenly over the cohort."""
    from tumortrace.reports.texture_figure import draw_texture  # here, as each process would wait for matplotlib

    label = cohort.table["label"]
    kinds = {name: label == number for number, name in enumerate(cohort.classes)} | {"unlabelled": label.isna()}
    chosen = []
    for name, member in kinds.items():
        rows = np.flatnonzero(member.fillna(False))
        if len(rows):
            spread = np.unique(np.linspace(0, len(rows) - 1, min(count, len(rows))).astype(int))
            chosen += [(name, number, rows[each]) for number, each in enumerate(spread)]
    for name, number, row in track(chosen, "drawing", len(chosen)):
        identity = cohort.table["id"].iloc[row]
        file = re.sub(r"[^\w.-]+", "_", f"{name}-{number:02d}-{identity}")[:120]
        draw_texture(folder / f"{file}.png", np.array(store.images[row]), f"{identity} ({name})")
