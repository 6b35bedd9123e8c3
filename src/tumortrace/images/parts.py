"""Images that are parts of a file: read without the rest of it.

Files that hold many images are kept open, as opening one costs more than reading an image. A file that has changed, and
a forked process, get handles of their own.
"""

from __future__ import annotations

import os
from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Iterator
from functools import lru_cache
from itertools import accumulate
from math import ceil, floor
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from tumortrace.errors import ImageError, SlideError
from tumortrace.images.reference import TABLES, ImageRef

if TYPE_CHECKING:  # readers read plain images through `decoding`, which reads parts here
    from tumortrace.images.readers import Reader

_CELL_NAMES = ("image", "img", "picture", "patch", "tile", "photo", "bytes", "png", "jpg", "jpeg")
_BATCH = 128  # cells decoded at a time
_KEPT = 8  # batches of a file that stay in memory, as several threads read neighbouring ones
_RESTORE = "restore it from its source, or remove it"


def content_of(ref: ImageRef) -> bytes:
    """The encoded image as its file holds it: the whole file, or the bytes of its part.

    Args:
        ref: A file, bytes of a file, or a cell of a Parquet file.

    Raises:
        ImageError: The file ends before, or the cell is missing or empty.

    Example:
        >>> import tempfile
        >>> file = tempfile.mkdtemp() + "/shard.tar"
        >>> _ = open(file, "wb").write(b"...PNG...")
        >>> content_of(ImageRef(file, "3+3"))
        b'PNG'
    """
    if ref.suffix in TABLES and ref.part:
        content = _cell(ref)
        if not content:
            raise ImageError("an empty cell", where=ref, expected="an encoded image", remedy=_RESTORE)
        return content
    offset, _, length = ref.part.partition("+")
    with open(ref.file, "rb") as file:
        file.seek(int(offset or 0))
        content = file.read(int(length) if length else -1)
    if length and len(content) < int(length):
        raise ImageError(f"the file ends before its {length} bytes do", where=ref, remedy=_RESTORE)
    return content


def row_of(ref: ImageRef) -> tuple[np.ndarray, str]:
    """A row of an array of images, and the format of its file.

    Args:
        ref: A row of an HDF5 file's array or of a NumPy file, of shape (count, height, width, 3), or (count, height,
            width) for grey images.

    Returns:
        uint8, shape (height, width, 3) or (height, width); `HDF5` or `NumPy`.

    Raises:
        ImageError: The file is damaged, has no such row, or holds something else.
    """
    open_array, form = (_numpy_images, "NumPy") if ref.suffix == ".npy" else (_hdf5_images, "HDF5")
    try:
        images = open_array(ref.file, os.stat(ref.file).st_mtime_ns, os.getpid())
        pixels = np.asarray(images[int(ref.part)]) if int(ref.part) < len(images) else None
    except Exception as error:  # damaged files make HDF5 raise nearly anything
        raise ImageError(f"cannot be read as {form} ({error})", where=ref, remedy=_RESTORE) from None
    if pixels is None:
        raise ImageError(f"no row {ref.part}", where=ref.file, expected=f"0 to {len(images) - 1}")
    if pixels.dtype != np.uint8 or (pixels.ndim != 2 and pixels.shape[2:] != (3,)):
        found = f"{pixels.dtype} of shape {pixels.shape}"
        raise ImageError(found, where=ref, expected="uint8 (height, width, 3) or (height, width)")
    return pixels, form


def square_of(ref: ImageRef) -> np.ndarray:
    """A square of a slide, as a patch of its size.

    It is read from the coarsest level that is fine enough, as whole pixels around it, and brought to its size once.

    Returns:
        uint8, shape (size, size, 3); white beyond the slide.

    Raises:
        ImageError: The slide cannot be read there.
    """
    x, y, side, size = map(int, ref.part.split(","))
    try:
        reader = _slide(ref.file, os.stat(ref.file).st_mtime_ns, os.getpid())
        fine = [number for number, level in enumerate(reader.levels) if level.across <= side / size * 1.001]
        level = max(fine or [0], key=lambda number: reader.levels[number].across)
        across, down = reader.levels[level][2:]
        box = x / across, y / down, (x + side) / across, (y + side) / down
        left, top = floor(box[0] + 1e-6), floor(box[1] + 1e-6)
        width, height = ceil(box[2] - left - 1e-6), ceil(box[3] - top - 1e-6)
        pixels = reader.read_region(level, left, top, width, height)
    except SlideError as error:
        raise ImageError(error.found, where=ref, expected=error.expected, remedy=error.remedy) from None
    if (height, width) == (size, size):
        return pixels
    within = (box[0] - left, box[1] - top, box[2] - left, box[3] - top)
    picture = Image.fromarray(pixels).resize((size, size), Image.Resampling.LANCZOS, box=within)
    return np.asarray(picture)


def images_of(handle: Any) -> Any:
    """The array of images in an opened HDF5 file: `x`, `imgs` or `images`, else the first of four dimensions."""
    named = next((handle[name] for name in ("x", "imgs", "images") if name in handle), None)
    return named if named is not None else next(array for array in handle.values() if getattr(array, "ndim", 0) == 4)


def image_column(schema: Any) -> str | None:
    """The column of a Parquet file that holds encoded images, as the path of its bytes; None where there is none.

    It is a struct with a field `bytes`, as Hugging Face writes it, or plain binary: of several the one that is called
    like a picture.

    Args:
        schema: A `pyarrow.Schema`.

    Example:
        >>> import pyarrow as pa
        >>> image = pa.struct({"bytes": pa.binary(), "path": pa.string()})
        >>> image_column(pa.schema({"label": pa.int64(), "image": image})), image_column(pa.schema({"a": pa.binary()}))
        ('image.bytes', 'a')
    """
    import pyarrow as pa

    def binary(kind: Any) -> bool:
        return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind))

    columns = {
        field.name: f"{field.name}.bytes"
        for field in schema
        if pa.types.is_struct(field.type) and any(one.name == "bytes" and binary(one.type) for one in field.type)
    }
    plain = {field.name: field.name for field in schema if binary(field.type)}
    for candidates in (columns, plain):
        named = [name for name in candidates if name.lower() in _CELL_NAMES]
        if named or len(candidates) == 1:
            return candidates[(named or list(candidates))[0]]
    return None


def column_of_numbers(schema: Any) -> str | None:
    """The column called like a picture that holds lists of numbers, as `datasets.Array3D` does; None without one.

    Args:
        schema: A `pyarrow.Schema`.

    Example:
        >>> import pyarrow as pa
        >>> column_of_numbers(pa.schema({"image": pa.list_(pa.list_(pa.list_(pa.uint8()))), "label": pa.int64()}))
        'image'
    """
    import pyarrow as pa

    nested = (pa.types.is_list, pa.types.is_large_list, pa.types.is_fixed_size_list)
    lists = [field.name for field in schema if any(is_kind(field.type) for is_kind in nested)]
    return next((name for name in lists if name.lower() in _CELL_NAMES), None)


def arrow_table(file: str | os.PathLike[str]) -> Any:
    """The table of an Arrow file, a stream as Hugging Face's `save_to_disk` writes it or not, mapped into memory.

    Raises:
        ValueError: It is none (pyarrow's errors are ValueErrors).
    """
    import pyarrow as pa

    mapped = pa.memory_map(os.fspath(file))
    try:
        return pa.ipc.open_stream(mapped).read_all()
    except pa.ArrowInvalid:
        return pa.ipc.open_file(mapped).read_all()


class _ArrowCells:
    """Encoded images of an Arrow file by row."""

    def __init__(self, file: str) -> None:
        table = arrow_table(file)
        column, _, self._field = str(image_column(table.schema)).partition(".")
        self._cells = table.column(column)

    def __len__(self) -> int:
        return len(self._cells)

    def __getitem__(self, row: int) -> bytes | None:
        cell = self._cells[row]
        content: bytes | None = (cell[self._field] if self._field and cell.is_valid else cell).as_py()
        return content


class _ParquetCells:
    """Encoded images of a Parquet file by row, read in batches: a group of rows may be as large as the file."""

    def __init__(self, file: str) -> None:
        import pyarrow.parquet

        self._file = pyarrow.parquet.ParquetFile(file, memory_map=True)
        groups = range(self._file.num_row_groups)
        self._column = image_column(self._file.schema_arrow)
        self._starts = [0, *accumulate(self._file.metadata.row_group(group).num_rows for group in groups)]
        self._lock = Lock()
        self._batches: OrderedDict[int, tuple[int, Any]] = OrderedDict()  # first row to last row and cells
        self._reading: tuple[int, int, Iterator[Any]] = (-1, 0, iter(()))  # group, next row, and what is left of it

    def __len__(self) -> int:
        return self._starts[-1]

    def __getitem__(self, row: int) -> bytes | None:
        with self._lock:
            first, cells = next(
                ((first, cells) for first, (last, cells) in self._batches.items() if first <= row <= last),
                (0, None),
            )
            if cells is None:
                first, cells = self._read_to(row)
        content: bytes | None = cells[row - first].as_py()
        return content

    def _read_to(self, row: int) -> tuple[int, Any]:
        """The batch that holds a row: going on where the last reading stopped, or from the start of its group."""
        group = bisect_right(self._starts, row) - 1
        reading, start, batches = self._reading
        if reading != group or row < start:
            start = self._starts[group]
            batches = self._file.iter_batches(_BATCH, row_groups=[group], columns=[self._column])
        for batch in batches:
            column = batch.column(0)
            cells = column.field("bytes") if hasattr(column, "field") else column
            self._batches[start] = start + len(cells) - 1, cells
            first, start = start, start + len(cells)
            self._reading = group, start, batches
            while len(self._batches) > _KEPT:
                self._batches.popitem(last=False)
            if row < start:
                return first, cells
        raise IndexError(row)


def _cell(ref: ImageRef) -> bytes | None:
    try:
        cells = _cells(ref.file, os.stat(ref.file).st_mtime_ns, os.getpid())
        if int(ref.part) < len(cells):
            return cells[int(ref.part)]
    except Exception as error:  # damaged files make pyarrow raise nearly anything
        raise ImageError(
            f"cannot be read as {'Arrow' if ref.suffix == '.arrow' else 'Parquet'} ({error})",
            where=ref,
            remedy=_RESTORE,
        ) from None
    raise ImageError(f"no row {ref.part}", where=ref.file, expected=f"0 to {len(cells) - 1}")


@lru_cache(maxsize=4)
def _slide(file: str, changed: int, process: int) -> Reader:
    from tumortrace.images.readers import open_reader

    return open_reader(Path(file))


@lru_cache(maxsize=16)
def _cells(file: str, changed: int, process: int) -> _ParquetCells | _ArrowCells:
    return _ArrowCells(file) if file.lower().endswith(".arrow") else _ParquetCells(file)


@lru_cache(maxsize=16)
def _hdf5_images(file: str, changed: int, process: int) -> Any:
    import h5py

    return images_of(h5py.File(file, "r"))


@lru_cache(maxsize=16)
def _numpy_images(file: str, changed: int, process: int) -> Any:
    return np.load(file, mmap_mode="r")
