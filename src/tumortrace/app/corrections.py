"""Labels that people have given, in a CSV that opens as a cohort and loses none of them.

A label is appended as one line by one write that is flushed to disk before the caller is answered; taking one back, or
changing it, writes the file anew, whole or not at all. A line torn by a kill was never answered, and is cut off when
the file is next opened. A lock beside the file keeps other processes out meanwhile.
"""

from __future__ import annotations

import csv
import io
import os
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields
from pathlib import Path

from tumortrace.errors import DataError
from tumortrace.records.files import append, write_bytes
from tumortrace.records.lock import locked

_MOMENT = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ")


@dataclass(frozen=True)
class Correction:
    """One line of the file.

    Attributes:
        id: As in the cohort that is reviewed.
        path: Absolute path of the image, or `file.h5::row`.
        label: The label given.
        group: Slide or patient, blank where not known.
        split: As in the cohort, blank where it has none.
        previous_label: The label that the data had, blank where none.
        probability: What the model said, as text with every digit.
        model: Name of the model.
        reviewer: Who gave the label, as they call themselves; may be blank.
        reviewed: When, in UTC. The last column: what ends in it is a whole line.

    Example:
        >>> Correction("a", "/a.png", "tumour", "", "", "normal", "0.52", "cnn", "", "2026-11-21T14:12:00Z").label
        'tumour'
    """

    id: str
    path: str
    label: str
    group: str
    split: str
    previous_label: str
    probability: str
    model: str
    reviewer: str
    reviewed: str


COLUMNS = tuple(field.name for field in fields(Correction))


class Corrections:
    """The file of corrections, read once and kept up with what other processes do to it.

    Args:
        file: The CSV; made with the first correction.

    Raises:
        DataError: The file is there and is something else, or is damaged.

    Example:
        >>> import tempfile
        >>> file = Path(tempfile.mkdtemp()) / "corrections.csv"
        >>> given = Correction("a", "/a.png", "tumour", "", "", "", "0.52", "cnn", "", "2026-11-21T14:12:00Z")
        >>> Corrections(file).give(given) == given, len(Corrections(file).given())
        (True, 1)
    """

    def __init__(self, file: Path) -> None:
        self.file = file
        self._rows: dict[str, Correction] = {}
        self._seen: tuple[int, int, int] | None = None
        self._here = threading.Lock()
        file.parent.mkdir(parents=True, exist_ok=True)
        self._lock = file.with_name(f".{file.name}.lock")
        with self._alone():
            pass

    def given(self) -> dict[str, Correction]:
        """What stands in the file, by id, in the order in which it was given."""
        with self._here:
            if _stamp(self.file) == self._seen:
                return dict(self._rows)
        with self._alone():
            return dict(self._rows)

    def give(self, correction: Correction, expected: str | None = "") -> Correction:
        """Write one label down; it is on the disk when this returns.

        Args:
            correction: The row.
            expected: The label that the caller believes to stand, blank for none; None where it does not matter.

        Returns:
            The row that stands now: `correction`, or another's where it was not as `expected`.

        Raises:
            OSError: It cannot be written; then nothing has changed.
        """
        with self._alone():
            there = self._rows.get(correction.id)
            if there is not None and expected is not None and there.label != expected:
                return there
            if there is None:
                self._append(correction)
                self._rows[correction.id] = correction
            else:
                rows = {key: row for key, row in self._rows.items() if key != correction.id}
                self._rewrite(rows | {correction.id: correction})
            self._seen = _stamp(self.file)
        return correction

    def take_back(self, identity: str, expected: str | None = None) -> Correction | None:
        """Remove a label.

        Args:
            identity: Id of the image.
            expected: The label that the caller believes to stand; None where it does not matter.

        Returns:
            The row removed, or None where there is none or it is not as `expected`.

        Raises:
            OSError: It cannot be written; then nothing has changed.
        """
        with self._alone():
            there = self._rows.get(identity)
            if there is None or (expected is not None and there.label != expected):
                return None
            self._rewrite({key: row for key, row in self._rows.items() if key != identity})
            self._seen = _stamp(self.file)
        return there

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """No other thread and no other process; what others wrote meanwhile is read."""
        with self._here, locked(self._lock):
            if _stamp(self.file) != self._seen:
                self._read()
            yield

    def _read(self) -> None:
        content = self.file.read_bytes() if self.file.is_file() else b""
        whole, tail = content[: content.rfind(b"\n") + 1], content[content.rfind(b"\n") + 1 :]
        if tail and whole:
            whole = self._mend(whole, tail)
        self._rows = _parse(whole or content, self.file)
        self._seen = _stamp(self.file)

    def _mend(self, whole: bytes, tail: bytes) -> bytes:
        """End a last line that is whole but for its end, as spreadsheets leave it; cut off one that is not."""
        try:
            row = next(csv.reader([tail.decode()], strict=True))
            complete = len(row) == len(COLUMNS) and _MOMENT.fullmatch(row[-1]) is not None
        except (UnicodeDecodeError, csv.Error):
            complete = False
        mended = whole + tail + b"\n" if complete else whole
        write_bytes(self.file, mended)
        return mended

    def _append(self, correction: Correction) -> None:
        if not self._rows:
            self._rewrite({correction.id: correction})
            return
        append(self.file, _line(asdict(correction).values()))

    def _rewrite(self, rows: dict[str, Correction]) -> None:
        write_bytes(self.file, _line(COLUMNS) + b"".join(_line(asdict(row).values()) for row in rows.values()))
        self._rows = rows


def _stamp(file: Path) -> tuple[int, int, int] | None:
    try:
        stat = os.stat(file)
    except FileNotFoundError:
        return None
    return stat.st_ino, stat.st_size, stat.st_mtime_ns


def _line(values: object) -> bytes:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerow(values)  # type: ignore[arg-type]
    return text.getvalue().encode()


def _parse(content: bytes, file: Path) -> dict[str, Correction]:
    if not content:
        return {}
    remedy = "restore it, or move it away and begin a new one"
    try:
        lines = list(csv.reader(io.StringIO(content.decode("utf-8-sig"), newline=""), strict=True))
    except (UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"not readable ({error})", where=file, expected="a CSV of corrections", remedy=remedy) from None
    if tuple(lines[0]) != COLUMNS:
        raise DataError(
            "not a file of corrections", where=file, expected=f"the columns {','.join(COLUMNS)}", remedy=remedy
        )
    rows: dict[str, Correction] = {}
    for number, line in enumerate(lines[1:], 2):
        if len(line) != len(COLUMNS):
            raise DataError(
                f"line {number} has {len(line)} fields",
                where=file,
                expected=f"{len(COLUMNS)} as in the header",
                remedy=remedy,
            )
        row = Correction(*line)
        rows.pop(row.id, None)
        rows[row.id] = row
    return rows
