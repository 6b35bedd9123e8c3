"""What an unfinished scan has found so far, so that a killed one goes on where it stopped."""

from __future__ import annotations

import json
import os
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pandas as pd
from filelock import FileLock, Timeout

from tumortrace.errors import RunError

JOURNAL, LOCK = "unfinished.jsonl", ".lock"


class Journal:
    """Rows of a table, appended batch by batch to `unfinished.jsonl` in a scan's folder.

    Every line carries its own checksum: what a kill or a power cut has torn is not read, nor anything after it. The
    first line says what is being scanned and how; a journal of anything else is begun anew.

    Args:
        folder: The scan's folder.
        request: What the rows depend on, as JSON takes it.

    Example:
        >>> import tempfile
        >>> folder = Path(tempfile.mkdtemp())
        >>> Journal(folder, {"slide": "a"}).append(pd.DataFrame({"probability": [0.1]}))
        >>> Journal(folder, {"slide": "a"}).rows["probability"].tolist(), Journal(folder, {"slide": "b"}).rows.empty
        ([0.1], True)
    """

    def __init__(self, folder: Path, request: dict[str, Any]) -> None:
        self.path = folder / JOURNAL
        self._request = json.loads(json.dumps(request))
        lines, self._whole = _read(self.path)
        self._known = bool(lines) and lines[0] == self._request
        frames = [pd.DataFrame(line) for line in lines[1:]] if self._known else []
        self.rows = pd.concat(frames, ignore_index=True) if frames else pd.DataFrame()

    def append(self, rows: pd.DataFrame) -> None:
        """Add rows, flushed to the disk before this returns.

        Raises:
            RunError: They cannot be written; what was written before stays.
        """
        try:
            self._append(rows)
        except OSError as error:
            raise RunError(
                f"cannot be written ({error.strerror})",
                where=self.path,
                remedy="make room; the same command goes on where it stopped",
            ) from error

    def _append(self, rows: pd.DataFrame) -> None:
        with open(self.path, "r+b" if self._known else "wb") as file:
            if not self._known:
                self._whole = file.write(_line(self._request))
                self._known = True
            file.seek(self._whole)
            file.truncate()  # a torn last line
            self._whole += file.write(_line(rows.to_dict("list")))
            file.flush()
            os.fsync(file.fileno())

    def remove(self) -> None:
        """Remove it: the scan is complete."""
        self.path.unlink(missing_ok=True)


def journalled_slide(folder: Path) -> str | None:
    """Name of the slide whose unfinished scan lies in a folder; None where there is none."""
    lines, _ = _read(folder / JOURNAL)
    return lines[0].get("slide") if lines and isinstance(lines[0], dict) else None


@contextmanager
def only_scan(folder: Path) -> Iterator[None]:
    """Keep other processes out of a scan's folder; the system drops the lock when its holder ends, however it ends.

    Raises:
        RunError: Another process is scanning into the folder.
    """
    lock = FileLock(folder / LOCK)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise RunError(
            "another scan is writing there", where=folder, remedy="wait for it, or name another -o"
        ) from None
    try:
        yield
    finally:
        with suppress(OSError):  # while it is held, so that nobody can hold a file that is gone
            (folder / LOCK).unlink()
        lock.release()


def _line(content: Any) -> bytes:
    text = json.dumps(content, allow_nan=False).encode()
    return b"%08x %s\n" % (zlib.crc32(text), text)


def _read(path: Path) -> tuple[list[Any], int]:
    """Contents of the whole lines at the beginning of a file, and how many bytes they take."""
    try:
        raw = path.read_bytes()
    except OSError:
        return [], 0
    found, whole = [], 0
    for line in raw.splitlines(keepends=True):
        checksum, _, text = line.rstrip(b"\n").partition(b" ")
        if not line.endswith(b"\n") or checksum != b"%08x" % zlib.crc32(text):
            break
        found.append(json.loads(text))
        whole += len(line)
    return found, whole
