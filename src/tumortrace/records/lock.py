"""Keeping other processes out; the system drops a lock when its holder ends, however it ends."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from tumortrace.records.progress import say

if TYPE_CHECKING:
    from filelock import FileLock


def take(file: Path) -> FileLock | None:
    """The lock of a file, taken until its `release`; None where another process holds it.

    Raises:
        OSError: It cannot be made there.
    """
    from filelock import FileLock, Timeout

    lock = FileLock(file)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        return None
    return lock


@contextmanager
def locked(
    file: Path, *, busy: Exception | None = None, waiting: str | None = None, remove: bool = False
) -> Iterator[None]:
    """Hold the lock of a file.

    Args:
        file: Made where it is missing.
        busy: Raised where another process holds it; without it, that one is waited for.
        waiting: Said before one waits.
        remove: Leave no file behind. Only where nobody waits for the lock: who does would hold a file that is gone.

    Example:
        >>> import tempfile
        >>> file = Path(tempfile.mkdtemp()) / ".lock"
        >>> with locked(file):
        ...     take(file) is None
        True
    """
    from filelock import FileLock

    lock = take(file)
    if lock is None:
        if busy is not None:
            raise busy
        if waiting is not None:
            say(waiting)
        lock = FileLock(file)
        lock.acquire()
    try:
        yield
    finally:
        if remove:
            with suppress(OSError):  # while it is held, so that nobody can hold a file that is gone
                file.unlink()
        lock.release()
