"""The cache: where it is, and images in one memory-mapped .npy file that survives interruption, damage and company."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from io import BytesIO
from pathlib import Path
from typing import BinaryIO

import numpy as np

from tumortrace.cohorts.cohort import Cohort
from tumortrace.errors import DataError
from tumortrace.records.files import FULL, replacing, write_json
from tumortrace.records.lock import locked
from tumortrace.records.remote import cache_folder

_ROOM = "free space, or set TUMORTRACE_CACHE to a folder on another disk"


def store_folder(cohort: Cohort, cache: Path | None = None) -> Path:
    """Where what is decoded of a cohort is kept, in `cache` or else in `cache_folder()`: named by its fingerprint."""
    return (cache or cache_folder()) / "stores" / cohort.fingerprint[:32]


def unpacked(file: Path, name: str, write: Callable[[BinaryIO], object]) -> Path:
    """A copy in the cache of what a packed file holds, made when first asked for.

    It has the packed file's time of change, so that a cohort's fingerprint outlives the cache.

    Args:
        file: The packed file.
        name: Name of the copy.
        write: Writes what is unpacked.
    """
    status = file.stat()
    key = hashlib.sha256(repr((os.path.abspath(file), status.st_size, status.st_mtime_ns)).encode()).hexdigest()[:16]
    target = cache_folder() / "unpacked" / f"{key}-{name}"
    if not target.is_file():
        with replacing(target) as temporary:
            with open(temporary, "wb") as copy:
                write(copy)
            os.utime(temporary, ns=(status.st_atime_ns, status.st_mtime_ns))
    return target


@dataclass
class Filling:
    """How far an array is: `rows` that are done, which of them were `resized`, and why others `failed`, by row."""

    rows: int = 0
    resized: list[int] = field(default_factory=list)
    failed: dict[str, str] = field(default_factory=dict)


class ArrayFile:
    """A uint8 array of shape (count, height, width, 3) in `images.npy`, and how far it is in `store.json`.

    Args:
        folder: Where both lie; made where missing.
        count: Images in the end.
        size: Height and width in pixels.

    Attributes:
        record: How far it is.

    Example:
        >>> import tempfile
        >>> array = ArrayFile(Path(tempfile.mkdtemp()), 3, (4, 4))
        >>> with array.filling() as file:
        ...     array.append(file, np.ones((3, 4, 4, 3), np.uint8))
        >>> array.complete, array.open().shape
        (True, (3, 4, 4, 3))
    """

    def __init__(self, folder: Path, count: int, size: tuple[int, int]) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder, self.count, self.size = folder, count, size
        self.file = folder / "images.npy"
        self._header = _header(count, size)
        self._image_bytes = size[0] * size[1] * 3
        self.record = self._sound_record()

    @property
    def rows(self) -> int:
        """How many images are done."""
        return self.record.rows

    @property
    def complete(self) -> bool:
        """Whether all are there."""
        return self.rows == self.count and not self.record.failed

    def open(self) -> np.ndarray:
        """The array, read-only and memory-mapped."""
        return np.load(self.file, mmap_mode="r")

    @contextmanager
    def locked(self, doing: str) -> Iterator[None]:
        """Hold the folder's lock, which the system drops when its holder ends, and read the record anew."""
        with locked(self.folder / "lock", waiting=f"another process is {doing} the same images: waiting for it"):
            self.record = self._sound_record()
            yield

    @contextmanager
    def filling(self) -> Iterator[BinaryIO]:
        """The file, open for `append`; with no room on the disk for the rest, DataError."""
        if not self.rows:
            self.file.unlink(missing_ok=True)  # and not overwritten: whoever has it mapped keeps what he sees
        needed = (self.count - self.rows) * self._image_bytes
        if shutil.disk_usage(self.folder).free < needed:
            raise DataError(f"no room for {needed / 1e9:.1f} GB of decoded images", where=self.folder, remedy=_ROOM)
        with open(self.file, "r+b" if self.rows else "wb") as file:
            file.write(self._header)
            yield file

    def append(self, file: BinaryIO, pixels: np.ndarray) -> None:
        """Write the next rows: pixels to disk first, then the record of them."""
        file.seek(len(self._header) + self.rows * self._image_bytes)
        file.write(np.ascontiguousarray(pixels).data)
        file.flush()
        os.fsync(file.fileno())
        self.record.rows += len(pixels)
        write_json(self.folder / "store.json", asdict(self.record))

    def _sound_record(self) -> Filling:
        """The record, or an empty one where the file does not hold what it promises."""
        try:
            record = Filling(**json.loads((self.folder / "store.json").read_text("utf-8")))
            length, promised = self.file.stat().st_size, len(self._header) + record.rows * self._image_bytes
        except (OSError, ValueError, TypeError):
            return Filling()
        return record if length == promised or (record.rows < self.count and length > promised) else Filling()


@contextmanager
def telling(home: Path) -> Iterator[None]:
    """Turn what the file system refuses into one line."""
    try:
        yield
    except OSError as error:
        remedy = _ROOM if error.errno in FULL else "set TUMORTRACE_CACHE to a folder that can be written"
        raise DataError(f"the patch store cannot be written ({error.strerror})", where=home, remedy=remedy) from None


def _header(count: int, size: tuple[int, int]) -> bytes:
    """The bytes that stand before the pixels in a .npy file."""
    buffer = BytesIO()
    description = {"descr": "|u1", "fortran_order": False, "shape": (count, *size, 3)}
    np.lib.format.write_array_header_1_0(buffer, description)
    return buffer.getvalue()
