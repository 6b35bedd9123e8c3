"""The folder of a synthetic cohort: written so that half of one is never taken as whole, and opened again."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np
import pandas as pd
from joblib import Parallel, delayed
from numpy.typing import NDArray
from PIL import Image

from tumortrace.cohorts.cohort import Cohort
from tumortrace.errors import CohortError, RunError
from tumortrace.records.data import SyntheticRecord
from tumortrace.records.progress import track
from tumortrace.records.tables import COHORT, SLIDES, Table

PROCEDURE = 1  # raised whenever the same seed gives other pictures
RECORD, UNFINISHED = SyntheticRecord.FILE, SyntheticRecord.UNFINISHED
_FOLDERS = ("patches", "masks", "Benign", "Malignant", "slides", "annotations")
_ENDINGS = (".png", ".tif", ".geojson")


def record(kind: str, classes: tuple[str, str], resolution: float | None, count: int, seed: int) -> SyntheticRecord:
    """What `cohort.json` says of a synthetic cohort: all that is needed to make it again."""
    return SyntheticRecord(
        layout="synthetic",
        kind=kind,
        classes=list(classes),
        resolution=resolution,
        seed=seed,
        count=count,
        procedure=PROCEDURE,
    )


@contextmanager
def refusing(where: Path) -> Iterator[None]:
    """Turn what the file system refuses into one line."""
    try:
        yield
    except OSError as error:
        reason = error.strerror or str(error)
        raise CohortError(
            f"cannot be written: {reason}", where=error.filename or where, remedy="choose another folder or free space"
        ) from error


def write_cohort(
    out: Path,
    made_by: SyntheticRecord,
    table: pd.DataFrame,
    folders: tuple[str, ...],
    tasks: Iterable[Callable[[], None]],
    workers: int,
    *,
    listed: Table = COHORT,
) -> None:
    """Write a synthetic cohort, in parallel, and declare it whole at the end.

    Args:
        out: Folder, made where missing; one that holds an earlier synthetic cohort is written over.
        made_by: The record.
        table: What `cohort.csv` holds, or the file that `listed` names.
        folders: Sub-folders to make.
        tasks: Each draws and writes one picture; must be picklable.
        workers: Processes.
        listed: The table's file.

    Raises:
        CohortError: When `out` holds anything else.
    """
    if out.exists() and not out.is_dir():
        raise CohortError("is a file", where=out, expected="a folder or a name not in use", remedy="choose another")
    if out.is_dir() and any(out.iterdir()):
        _clear(out)
    for folder in folders:
        (out / folder).mkdir(parents=True, exist_ok=True)
    made_by.write_file(out / UNFINISHED)
    # joblib's processes, unlike concurrent.futures', do not run the user's main module again.
    done = Parallel(n_jobs=workers, return_as="generator", batch_size=25)(delayed(task)() for task in tasks)
    for _ in track(done, f"Drawing {made_by.kind}", total=len(table)):
        pass
    listed.write(out, table)
    made_by.write(out)
    (out / UNFINISHED).unlink()


def _clear(out: Path) -> None:
    """Remove an earlier synthetic cohort, and nothing else, from `out`."""
    if not any(is_record(out / name) for name in (RECORD, UNFINISHED)):
        raise CohortError(
            "the folder is not empty and holds no synthetic cohort",
            where=out,
            expected="an empty or missing folder, or one written by synthesise",
            remedy="choose another folder; nothing was changed",
        )
    for name in (RECORD, COHORT.name, SLIDES.name):
        (out / name).unlink(missing_ok=True)
    for folder in _FOLDERS:
        for picture in (out / folder).glob("synthetic-*"):
            if picture.suffix in _ENDINGS:
                picture.unlink()
        with suppress(OSError):  # missing, or holds something of the user's, which stays
            (out / folder).rmdir()


def is_record(path: Path) -> bool:
    """Whether `path` is the record of synthetic data."""
    record = SyntheticRecord.recognise_file(path)
    return record is not None and record.layout == "synthetic"


def write_png(path: Path, picture: NDArray[np.uint8]) -> None:
    """Write a picture; not flushed one by one, as the record written last vouches for all of them."""
    Image.fromarray(picture).save(path, "PNG", compress_level=1)


def open_synthetic(folder: Path) -> Cohort:
    """The cohort in a folder that `synthesise` wrote.

    Args:
        folder: Folder with `cohort.json` and `cohort.csv`.

    Returns:
        Cohort with layout "synthetic"; paths are absolute. `mask` (absolute) and `scanner` are kept where there.

    Raises:
        CohortError: When the folder is half written, damaged, or not a synthetic cohort.

    Example:
        >>> import tempfile; from tumortrace.cohorts.synthetic import synthesise
        >>> folder = synthesise("patches", Path(tempfile.mkdtemp()), count=16)
        >>> cohort = open_synthetic(folder)
        >>> len(cohort), cohort.classes, cohort.resolution
        (16, ('normal', 'tumour'), 1.0)
    """
    folder = Path(folder).resolve()
    again = "write it again with tumortrace.synthesise"
    if (folder / UNFINISHED).exists():
        raise CohortError("a synthetic cohort that was not finished", where=folder, expected=RECORD, remedy=again)
    made_by = SyntheticRecord.recognise(folder)
    if made_by is None or made_by.layout != "synthetic":
        raise CohortError("no synthetic cohort", where=folder, expected=f"{RECORD} of layout synthetic", remedy=again)
    if made_by.kind == "slides":
        raise CohortError(
            "holds slides, not patches", where=folder, expected="patches", remedy=f"scan or tile {folder / SLIDES.name}"
        )
    try:
        table = COHORT.read(folder)
        for column in {"path", "mask"} & set(table.columns):
            table[column] = [str(folder / name) for name in table[column]]
        empty = [path for path in table["path"] if not Path(path).is_file() or Path(path).stat().st_size == 0]
        if empty:
            raise CohortError("missing or empty", where=empty[0], expected="a picture", remedy=again)
        return Cohort(
            name=f"synthetic-{made_by.kind}-{made_by.count}-{made_by.seed}",
            layout="synthetic",
            table=table,
            classes=(made_by.classes[0], made_by.classes[1]),
            class_names=tuple(made_by.class_names),
            positive_names=tuple(made_by.positive_names),
            resolution=made_by.resolution,
            notes=("pictures were generated, not taken from patients",),
        )
    except (RunError, OSError, ValueError, KeyError, IndexError, TypeError) as error:
        raise CohortError(f"damaged ({error})", where=folder, expected="a synthetic cohort", remedy=again) from error
