"""Files of many images that no layout knows because they are damaged, and not because of what they hold."""

from __future__ import annotations

import re
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from tumortrace.cohorts.shards import refuse_stand_in, shards_of
from tumortrace.errors import CohortError, plain
from tumortrace.images.parts import arrow_table


class _Form(NamedTuple):
    """A format by the endings of its files, and what opens one, which raises OSError or ValueError where it cannot."""

    name: str
    endings: tuple[str, ...]
    open: Callable[[Path], object]


def _open_parquet(file: Path) -> object:
    import pyarrow.parquet

    return pyarrow.parquet.read_schema(file)


def _open_hdf5(file: Path) -> object:
    import h5py

    with h5py.File(file, "r") as opened:
        return list(opened)


def _open_zip(file: Path) -> object:
    try:
        with zipfile.ZipFile(file) as archive:
            return archive.namelist()
    except zipfile.BadZipFile as error:
        raise ValueError(error) from None


_FORMS = (
    _Form("Parquet", (".parquet", ".pq"), _open_parquet),
    _Form("Arrow", (".arrow",), arrow_table),
    _Form("HDF5", (".h5", ".hdf5"), _open_hdf5),
    _Form("NumPy .npz", (".npz",), _open_zip),
)
_NAMES = re.compile(r"(?!cache-).+\.(parquet|pq|arrow|h5|hdf5|npz|tar|tfrecords?)", re.IGNORECASE)

_TABLES = re.compile(r".+\.(csv|tsv)", re.IGNORECASE)


def refuse_damaged(path: Path, depth: int = 4) -> None:
    """Refuse a file of many images, or a folder with one, that is damaged, cut off, or only stands for the data.

    Args:
        path: What the user named.
        depth: Folders below that are looked into.

    Raises:
        CohortError: The first of them that is, by name.
    """
    for file in shards_of(path, _NAMES, depth):
        refuse_stand_in(file)
        for form in _FORMS:
            if file.suffix.lower() in form.endings:
                _refuse_unopened(file, form)


def refuse_lost_tables(path: Path) -> None:
    """Refuse a table, or a folder with one, in whose place a pointer or a web page lies: its labels would be missed.

    Raises:
        CohortError: The first of them, by name.
    """
    for file in shards_of(path, _TABLES, 0)[:20]:
        if file.stat().st_size:  # an empty one holds nothing that could be missed
            refuse_stand_in(file)


def _refuse_unopened(file: Path, form: _Form) -> None:
    try:
        form.open(file)
    except (OSError, ValueError) as error:  # pyarrow's errors are ValueErrors
        raise CohortError(
            f"no {form.name} file, or one that is damaged or cut off ({plain(error)})",
            where=file,
            expected="a complete file",
            remedy="download it again, or restore it from its source",
        ) from None
