"""Files that appear whole or not at all.

Each writer makes a temporary file in the target's own folder, flushes it to disk, renames it over the target
and flushes the folder, so that a reader (or a restart after a power cut) sees the old file or the new one.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tumortrace.errors import ModelError
from tumortrace.records.stand_ins import stand_in

if TYPE_CHECKING:
    import pandas as pd

FULL = frozenset((errno.ENOSPC, errno.EFBIG, getattr(errno, "EDQUOT", errno.ENOSPC)))
"""Numbers of the errors that say that there is no room: on the disk, in a file, by quota."""


@contextmanager
def replacing(target: Path) -> Iterator[Path]:
    """Yield a temporary path beside `target` that replaces it when the block ends without an error.

    Example:
        >>> from pathlib import Path; import tempfile
        >>> target = Path(tempfile.mkdtemp()) / "a.txt"
        >>> with replacing(target) as temporary:
        ...     _ = temporary.write_text("whole")
        >>> target.read_text(), len(list(target.parent.iterdir()))
        ('whole', 1)
    """
    target = Path(target)
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        handle, name = tempfile.mkstemp(prefix=f".{target.name[:200]}.", suffix=".tmp", dir=target.parent)
    except OSError as error:
        raise _told(error, target) from error
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        with open(temporary, "rb") as written:
            os.fsync(written.fileno())
        temporary.chmod(0o644)
        os.replace(temporary, target)
        with suppress(OSError):  # some file systems do not flush folders
            folder = os.open(target.parent, os.O_RDONLY)
            try:
                os.fsync(folder)
            finally:
                os.close(folder)
    except OSError as error:
        if error.errno is None or error.filename not in (None, name):
            raise
        raise _told(error, target) from error
    finally:
        temporary.unlink(missing_ok=True)


def _told(error: OSError, target: Path) -> OSError:
    """The error as the user is told it, who knows the target alone; libraries say more than fits into a line."""
    return OSError(error.errno, os.strerror(error.errno or 0), str(target))


def write_bytes(target: Path, content: bytes) -> None:
    """Write `content` to `target`, whole or not at all."""
    with replacing(target) as temporary:
        temporary.write_bytes(content)


def write_text(target: Path, content: str) -> None:
    """Write `content` to `target` as UTF-8, whole or not at all."""
    write_bytes(target, content.encode())


def write_json(target: Path, content: Any) -> None:
    """Write `content` to `target` as strict JSON (NaN and infinity are refused), whole or not at all."""
    write_text(target, json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def write_csv(target: Path, table: pd.DataFrame) -> None:
    """Write `table` to `target` without its index; floats keep every digit, so that reading gives them back."""
    with replacing(target) as temporary:
        table.to_csv(temporary, index=False, lineterminator="\n")


def append(file: Path, content: bytes, at: int | None = None) -> int:
    """Append `content`, on the disk when this returns; the file's length then, in bytes.

    Args:
        file: Made where it is missing.
        content: What to append.
        at: The length that is whole; what lies behind it, torn by a kill, is cut off. Default all of it.

    Raises:
        OSError: It cannot be written whole; the file is left as it was.
    """
    descriptor = os.open(file, os.O_RDWR | os.O_CREAT | getattr(os, "O_BINARY", 0), 0o666)
    with open(descriptor, "r+b", buffering=0) as opened:
        end = os.fstat(descriptor).st_size if at is None else at
        opened.truncate(end)
        opened.seek(end)
        try:
            if opened.write(content) != len(content):
                raise OSError(errno.ENOSPC, "")
            os.fsync(descriptor)
        except OSError as error:
            opened.truncate(end)
            raise _told(error, file) from error
    return end + len(content)


def sha256(path: Path) -> str:
    """SHA-256 of a file's bytes, in hexadecimal."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def require_sha256(file: Path, expected: str, record: str, remedy: str) -> None:
    """Refuse a file that is not the one on `record`: a flipped bit would load silently.

    Raises:
        ModelError: The file is missing, or was changed.
    """
    actual = sha256(file) if file.is_file() else "no file"
    if actual != expected and file.is_file() and (there := stand_in(file)):
        raise ModelError(there.found, where=file, expected=f"what {record} says", remedy=there.remedy)
    if actual != expected:
        raise ModelError(f"SHA-256 is {actual}", where=file, expected=f"{expected} as {record} says", remedy=remedy)
