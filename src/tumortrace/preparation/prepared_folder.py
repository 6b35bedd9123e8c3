"""The folder that `prepare` fills: which images are done, and who may write to it."""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from tumortrace.cohorts.layouts.prepared import RECORD
from tumortrace.errors import DataError, RunError
from tumortrace.runs.files import write_json

JOURNAL, LOCK = ".progress.jsonl", ".lock"
_END_OF_PNG = b"\x00\x00\x00\x00IEND\xaeB`\x82"


class PreparedFolder:
    """A folder of prepared images, its record `prepared.json`, and a journal of the images that are done.

    Args:
        folder: New, empty, or begun by a call for the same `request`.
        request: What the outcome depends on: the data and the steps.

    Attributes:
        outcomes: By row of the cohort: {"unchanged": bool, "resized": bool}, or {"failed": reason}.

    Raises:
        RunError: The folder holds something else, or was prepared otherwise; nothing in it is changed.
    """

    def __init__(self, folder: Path, request: dict[str, Any]) -> None:
        self.folder, self.images, self.request = folder, folder / "images", request
        self._refuse_others()
        if not (folder / RECORD).exists():
            self.write_record({"status": "unfinished"})
        self.images.mkdir(exist_ok=True)
        self.outcomes: dict[int, dict[str, Any]] = {}

    def write_record(self, content: dict[str, Any]) -> None:
        """Write `prepared.json`; only "status": "complete" makes the folder open as a cohort."""
        write_json(self.folder / RECORD, {"layout": "prepared", "format": 1, **content, "request": self.request})

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Keep other processes out; the system drops the lock when its holder ends, however it ends."""
        lock = FileLock(self.folder / LOCK)
        try:
            lock.acquire(timeout=0)
        except Timeout:
            raise RunError("another process is preparing it", where=self.folder, remedy="wait for it to end") from None
        try:
            yield
        finally:
            lock.release()

    def resume(self, names: Sequence[str]) -> None:
        """Take over what an earlier call has done: journalled, and each picture whole to its last byte."""
        self.outcomes = {
            row: outcome
            for row, outcome in _journalled(self.folder / JOURNAL)
            if row < len(names) and ("failed" in outcome or is_whole(self.images / names[row]))
        }

    def add(self, rows: Sequence[int], outcomes: Sequence[dict[str, Any]]) -> None:
        """Put down the outcomes of rows whose pictures are written."""
        new = dict(zip(rows, outcomes, strict=True))
        self.outcomes |= new
        with open(self.folder / JOURNAL, "a", encoding="utf-8") as journal:
            journal.writelines(json.dumps([row, outcome]) + "\n" for row, outcome in new.items())

    def _refuse_others(self) -> None:
        if self.folder.exists() and not self.folder.is_dir():
            raise RunError("is a file", where=self.folder, expected="a folder or a name not in use")
        if not self.folder.exists() or not any(self.folder.iterdir()):
            return
        try:
            before = json.loads((self.folder / RECORD).read_text("utf-8"))["request"]
        except (OSError, ValueError, KeyError, TypeError):
            found = "the folder is not empty and holds no prepared images"
            raise RunError(
                found, where=self.folder, remedy="choose another folder with OUT; nothing was changed"
            ) from None
        if before != self.request:
            differing = [name for name in self.request if before.get(name) != self.request[name]]
            raise RunError(
                f"images prepared otherwise are there: another {' and '.join(differing) or 'request'}",
                where=self.folder,
                expected="the data and steps of this call",
                remedy="choose another folder; nothing was changed",
            )


def safe_names(ids: Sequence[str]) -> list[str]:
    """A file name for each id that every file system takes, unique also where upper and lower case are one.

    Example:
        >>> safe_names(["a1", "b/2"])
        ['a1.png', 'b_2-22e379eb.png']
    """
    taken: set[str] = set()
    names = []
    for row, identity in enumerate(ids):
        stem = re.sub(r"[^A-Za-z0-9._-]", "_", identity)[:100].lstrip(".-")
        if stem != identity or stem.lower() in taken:
            salt = identity if f"{stem}-{_digest(identity)}".lower() not in taken else f"{identity}\0{row}"
            stem = f"{stem}-{_digest(salt)}"
        taken.add(stem.lower())
        names.append(f"{stem}.png")
    return names


def is_whole(picture: Path) -> bool:
    """Whether a PNG file is there to its last byte."""
    try:
        with open(picture, "rb") as file:
            file.seek(-len(_END_OF_PNG), os.SEEK_END)
            return file.read() == _END_OF_PNG
    except OSError:
        return False


def refuse_inside(out: Path, data: object) -> None:
    """Refuse a folder within the data, which would become part of them."""
    if isinstance(data, str | os.PathLike) and Path(data).is_dir():
        home = Path(data).resolve()
        if out.resolve().is_relative_to(home):
            raise DataError("lies within the data", where=out, expected="a folder elsewhere", remedy="choose another")


def _digest(text: str) -> str:
    return hashlib.blake2b(text.encode(), digest_size=4).hexdigest()


def _journalled(journal: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    try:
        lines = journal.read_text("utf-8", errors="replace").splitlines()
    except OSError:
        return
    for line in lines:
        try:
            row, outcome = json.loads(line)
        except (ValueError, TypeError):  # written in part when the process was killed
            continue
        yield row, outcome
