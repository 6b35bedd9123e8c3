"""What unfinished work has come to so far, so that a killed one goes on where it stopped."""

from __future__ import annotations

import json
import re
import zlib
from pathlib import Path
from typing import Any, Generic, TypeVar

from tumortrace.records.files import append

Entry = TypeVar("Entry")


class Journal(Generic[Entry]):
    """Entries that are appended one by one to a file, each flushed to the disk.

    Every line carries its own checksum: what a kill or a power cut has torn is not read, nor anything after it. The
    first line says what is being done; a journal of anything else is begun anew.

    Args:
        file: Its file.
        request: What the entries depend on, as JSON takes it.

    Attributes:
        entries: What was found in the file and appended since.

    Example:
        >>> import tempfile
        >>> file = Path(tempfile.mkdtemp()) / "unfinished.jsonl"
        >>> Journal(file, {"slide": "a"}).append([0.1])
        >>> Journal(file, {"slide": "a"}).entries, Journal(file, {"slide": "b"}).entries, Journal.request_of(file)
        ([[0.1]], [], {'slide': 'a'})
    """

    def __init__(self, file: Path, request: object) -> None:
        self.file = file
        self._request = json.loads(json.dumps(request))
        lines, self._whole = _read(file)
        self._known = bool(lines) and lines[0] == self._request
        self.entries: list[Entry] = lines[1:] if self._known else []

    @staticmethod
    def request_of(file: Path) -> Any:
        """What the journal in a file is of; None where there is none."""
        lines, _ = _read(file)
        return lines[0] if lines else None

    @staticmethod
    def torn(file: Path) -> bool:
        """Whether a kill or a full disk has ended it within its first line, so that nothing is lost with it."""
        try:
            return re.fullmatch(rb"[0-9a-f]{0,8}|[0-9a-f]{8} [^\n]*", file.read_bytes()) is not None
        except OSError:
            return False

    def append(self, *entries: Entry) -> None:
        """Add entries, on the disk when this returns.

        Raises:
            OSError: They cannot be written; what was written before stays.
        """
        told = entries if self._known else (self._request, *entries)
        self._whole = append(self.file, b"".join(map(_line, told)), at=self._whole if self._known else 0)
        self._known = True
        self.entries += entries

    def remove(self) -> None:
        """Remove it: the work is complete."""
        self.file.unlink(missing_ok=True)


def _line(content: object) -> bytes:
    text = json.dumps(content, allow_nan=False).encode()
    return b"%08x %s\n" % (zlib.crc32(text), text)


def _read(file: Path) -> tuple[list[Any], int]:
    """Contents of the whole lines at the beginning of a file, and how many bytes they take."""
    try:
        raw = file.read_bytes()
    except OSError:
        return [], 0
    contents, whole = list[Any](), 0
    for line in raw.splitlines(keepends=True):
        checksum, _, text = line.rstrip(b"\n").partition(b" ")
        if not line.endswith(b"\n") or checksum != b"%08x" % zlib.crc32(text):
            break
        contents.append(json.loads(text))
        whole += len(line)
    return contents, whole
