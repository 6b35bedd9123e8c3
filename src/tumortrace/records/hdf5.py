"""HDF5 files that appear whole or not at all, also on a full disk."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from io import RawIOBase
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from tumortrace.records.files import replacing

if TYPE_CHECKING:
    import h5py


@contextmanager
def replacing_hdf5(target: Path) -> Iterator[h5py.File]:
    """Yield an HDF5 file to be filled that replaces `target` when the block ends without an error.

    Raises:
        OSError: It cannot be written whole.

    Example:
        >>> import h5py, tempfile
        >>> target = Path(tempfile.mkdtemp()) / "a.h5"
        >>> with replacing_hdf5(target) as opened:
        ...     opened["numbers"] = [1, 2]
        >>> h5py.File(target)["numbers"][:].tolist()
        [1, 2]
    """
    import h5py

    with replacing(target) as temporary, open(temporary, "w+b", buffering=0) as opened:
        sink = _Sink(opened)
        try:
            with h5py.File(sink, "w") as file:
                yield file
        except Exception as error:
            raise sink.refused or error from None
        if sink.refused is not None:
            raise sink.refused


class _Sink(RawIOBase):
    """A file that takes all that it is given, and remembers what the disk has refused.

    A file that HDF5 cannot write cannot be closed either: h5py ends the process by a segmentation fault.
    """

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self.refused: OSError | None = None

    def write(self, content: Any) -> int:
        left = memoryview(content).cast("B")
        size = len(left)
        try:
            while len(left) and self.refused is None:
                left = left[self._file.write(left) :]
        except OSError as error:
            self.refused = error
        return size

    def truncate(self, size: int | None = None) -> int:
        try:
            return self._file.truncate(size)
        except OSError as error:
            self.refused = self.refused or error
            return size or 0

    def readinto(self, target: Any) -> int:
        return self._file.readinto(target)  # type: ignore[attr-defined]

    def seek(self, place: int, whence: int = 0) -> int:
        return self._file.seek(place, whence)

    def tell(self) -> int:
        return self._file.tell()
