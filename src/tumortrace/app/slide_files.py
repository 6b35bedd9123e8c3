"""Where slides and the results of their scans lie: the served folder, and a folder per scan in the workspace."""

from __future__ import annotations

import re
import secrets
import shutil
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from tumortrace.errors import RunError, SlideError
from tumortrace.images.readers import slide_suffixes
from tumortrace.records.scans import ScanJob, ScanRecord

SEVERAL_FILES = frozenset((".mrxs", ".vms", ".vmu"))
"""Endings, in lower case, of slides that are an index beside the files that hold the pixels."""

UPLOAD = "slide"


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


def read_job(folder: Path) -> ScanJob | None:
    """The job whose folder it is; what was running waits again."""
    job = ScanJob.recognise(folder) if is_id(folder.name) else None
    if job is None or job.id != folder.name:
        return None
    if job.status == "running":
        job.status = "queued"
    return job


class SlideFiles:
    """The files of scans: `ID/` in the workspace holds job.json, the uploaded slide, and `scan/`.

    Args:
        workspace: Folder for all of them.
        slides: Folder whose slides can be chosen, or None.
        kept_bytes: Of uploaded slides together.

    Raises:
        LookupError: Of a method, that what is asked for is not there: not yet, or no longer.
    """

    def __init__(self, workspace: Path, slides: Path | None, kept_bytes: int) -> None:
        self.workspace, self._slides, self._kept_bytes = workspace, slides, kept_bytes
        self._received = 0  # bytes of all uploads since the start

    def folder(self, job_id: str) -> Path:
        """The folder of a scan."""
        return self.workspace / job_id

    def served(self) -> dict[str, int]:
        """Bytes of the slides in the served folder, by name."""
        sizes = {}
        for name, path in self._served().items():
            with suppress(FileNotFoundError):  # removed meanwhile
                sizes[name] = path.stat().st_size
        return sizes

    def room_for_upload(self) -> Callable[[int], bool]:
        """A function that is told of bytes as they come in, and says whether they fit beside all other uploads.

        What others under way bring meanwhile counts too, even where nothing comes of it.
        """
        before, room = self._received, self._kept_bytes
        for path in self.workspace.glob(f"*/{UPLOAD}.*"):
            with suppress(FileNotFoundError):  # deleted meanwhile
                room -= path.stat().st_size

        def fits(count: int) -> bool:
            self._received += count
            return self._received - before <= room

        return fits

    def upload_target(self, name: str) -> tuple[str, Path]:
        """A new id, and where the bytes of a slide of this shown name go before `SlideJobs.add` is called with the id.

        Raises:
            SlideError: A file of that kind is not the whole slide.
        """
        suffix = Path(name).suffix.lower()
        if suffix in SEVERAL_FILES:
            raise SlideError(
                f"a {suffix} slide is several files, of which an upload brings one",
                where=Path(name).name,
                remedy="put all of them into the folder that the server is given by --slides, or convert it to TIFF",
            )
        job_id = new_id()
        folder = self.folder(job_id)
        folder.mkdir()
        return job_id, folder / f"{UPLOAD}{suffix if suffix in slide_suffixes() else '.bin'}"

    def discard(self, job_id: str) -> None:
        """Remove all that is kept of a scan, or of an upload that became none."""
        shutil.rmtree(self.folder(job_id), ignore_errors=True)

    def slide(self, job: ScanJob) -> Path:
        """The file of a job's slide."""
        if not job.uploaded:
            served = self._served()
            if job.name not in served:
                raise LookupError(f"no slide named {job.name[:200]!r} in the served folder")
            return served[job.name]
        path = next(self.folder(job.id).glob(f"{UPLOAD}.*"), None)
        if path is None:
            raise LookupError("the uploaded slide is gone")
        return path

    def scanned_slide(self, job: ScanJob) -> Path:
        """The file of a job's slide, as it was when it was scanned.

        Raises:
            LookupError: It is no longer there.
            SlideError: Another file has taken its place: the heat map is not that one's.
        """
        path = self.slide(job)
        with suppress(FileNotFoundError):
            if job.scanned in (None, identity(path)):
                return path
        raise SlideError("has been replaced or changed since it was scanned", where=job.name, remedy="scan it again")

    def result(self, job: ScanJob, name: str) -> Path:
        """A file of a finished scan."""
        if job.status != "done":
            raise LookupError(f"the scan is {job.status}")
        path = self.folder(job.id) / "scan" / name
        if not path.is_file():
            raise LookupError("the scan's result is gone")
        return path

    def record(self, job: ScanJob) -> ScanRecord:
        """What a finished scan found."""
        try:
            return ScanRecord.read(self.result(job, ScanRecord.FILE).parent)
        except RunError:  # deleted between the look and the reading
            raise LookupError("the scan's result is gone") from None

    def _served(self) -> dict[str, Path]:
        if self._slides is None or not self._slides.is_dir():
            return {}
        slides = (path for path in self._slides.iterdir() if path.suffix.lower() in slide_suffixes())
        named = (path for path in slides if path.name.isprintable())  # a name that is no text cannot be asked for
        return {path.name: path for path in sorted(named) if path.is_file() and not path.name.startswith(".")}
