"""What a scan in the background is, and its record on disk."""

from __future__ import annotations

import json
import re
import secrets
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from tumortrace.records.files import write_json

SUFFIXES = frozenset(
    (".bif", ".dcm", ".jpeg", ".jpg", ".mrxs", ".ndpi", ".png", ".scn", ".svs", ".svslide", ".tif", ".tiff", ".vms")
)
"""Endings, in lower case, by which slides are found in the served folder."""

SEVERAL_FILES = frozenset((".mrxs", ".vms", ".vmu"))
"""Endings, in lower case, of slides that are an index beside the files that hold the pixels."""

UPLOAD, OVERVIEW = "slide", "overview.jpg"
RECORD = "job.json"

Status = Literal["queued", "running", "done", "failed"]


@dataclass
class Job:
    """One scan that was asked for.

    Attributes:
        id: Random, in hexadecimal.
        name: The slide's name as it is shown; never a path.
        model: Name of the model.
        options: `overlap`, `resolution` and `patch_resolution` as `scan` takes them, where given.
        uploaded: Whether the slide lies in the job's folder; else its name is that of one in the served folder.
        created: Seconds since 1970.
        status: Where it stands.
        error: Cause and remedy of a failure.
        file: Bytes and time of change of the slide's file when its scan began, by which it is known again.
        done: Tiles done.
        total: All tiles; 0 until they are known.
    """

    id: str
    name: str
    model: str
    options: dict[str, float]
    uploaded: bool
    created: float
    status: Status = "queued"
    error: dict[str, str] | None = None
    file: list[int] | None = None
    done: int = field(default=0, compare=False)
    total: int = field(default=0, compare=False)

    def save(self, folder: Path) -> None:
        """Write job.json into the job's folder."""
        kept = ("id", "name", "model", "options", "uploaded", "created", "status", "error", "file")
        write_json(folder / RECORD, {name: getattr(self, name) for name in kept})


def identity(file: Path) -> list[int]:
    """Bytes and time of the last change of a file, by which another under the same name is told from it.

    Raises:
        OSError: It is not there.
    """
    stat = file.stat()
    return [stat.st_size, stat.st_mtime_ns]


def new_id() -> str:
    """A random id that nobody can guess."""
    return secrets.token_hex(16)


def is_id(text: str) -> bool:
    """Whether a text can be an id.

    Example:
        >>> is_id(new_id()), is_id("../../etc")
        (True, False)
    """
    return re.fullmatch(r"[0-9a-f]{32}", text) is not None


def read_job(folder: Path) -> Job | None:
    """The job whose folder it is; what was running waits again."""
    if not is_id(folder.name):
        return None
    try:
        job = Job(**json.loads((folder / RECORD).read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return None
    if job.id != folder.name:
        return None
    if job.status == "running":
        job.status = "queued"
    return job
