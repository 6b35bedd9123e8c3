"""Scans of slides in the background, one at a time, which outlast a restart of the server."""

from __future__ import annotations

import json
import logging
import shutil
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from tumortrace.app.scan_apart import Tell, scan_apart
from tumortrace.app.slide_job import SUFFIXES, UPLOAD, Job, Status, is_id, new_id, read_job
from tumortrace.app.slide_reader import Busy, SlideReader
from tumortrace.errors import ServeError

_BATCH = 64  # tiles: fewer than `scan` takes, so that progress is seen on small slides too
_LOG = logging.getLogger("tumortrace.app.slides")


class SlideJobs:
    """Scans in the background; their folders `ID/` in the workspace hold job.json, the uploaded slide, and `scan/`.

    Args:
        workspace: Folder for all of them.
        models: Run folder or bundle of each model by its name; the first is the default.
        slides: Folder whose slides can be chosen, or None.
        device: As for `scan`.
        waiting: Scans that may wait.
        kept_bytes: Of uploaded slides together.
        run: Scans one slide: takes the arguments of `scan`, a function that is told tiles done and all tiles, and
            an event that asks it to stop; returns cause and remedy of a failure, or None.
    """

    def __init__(
        self,
        workspace: Path,
        models: Mapping[str, Path],
        *,
        slides: Path | None = None,
        device: str = "auto",
        waiting: int = 8,
        kept_bytes: int = 20 << 30,
        run: Callable[[dict[str, Any], Tell, threading.Event], dict[str, str] | None] | None = None,
    ) -> None:
        self.workspace, self._models, self._slides, self._device = workspace, dict(models), slides, device
        self._waiting, self._kept_bytes = waiting, kept_bytes
        self._run = run or scan_apart
        self._viewer = SlideReader()
        self._probes = threading.BoundedSemaphore(2)
        self._jobs: dict[str, Job] = {}
        self._changed = threading.Condition()
        self._ending, self._stop = False, threading.Event()
        self._running: str | None = None
        self._received = 0  # bytes of all uploads since the start
        self._thread: threading.Thread | None = None
        self._lock = FileLock(workspace / ".lock")

    def start(self) -> None:
        """Take up what an earlier server left, and begin to scan.

        Raises:
            ServeError: Another server uses the workspace, or it cannot be made.
        """
        try:
            self.workspace.mkdir(parents=True, exist_ok=True)
            self._lock.acquire(timeout=0)
        except Timeout:
            raise ServeError(
                "another server uses it", where=self.workspace, remedy="end that one, or choose another --workspace"
            ) from None
        except OSError as error:
            raise ServeError(
                f"cannot be written ({error.strerror})", where=self.workspace, remedy="choose another --workspace"
            ) from error
        for folder in sorted(self.workspace.iterdir()):
            job = read_job(folder)
            if job is not None:
                self._jobs[job.id] = job
            elif is_id(folder.name):  # an upload that never was a job
                shutil.rmtree(folder, ignore_errors=True)
        self._thread = threading.Thread(target=self._work, name="slide scans", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Stop the scan under way, which the next server goes on with, and end."""
        with self._changed:
            self._ending = True
            self._stop.set()
            self._changed.notify_all()
        if self._thread is not None:
            self._thread.join()
        self._viewer.close()
        self._lock.release()

    def served(self) -> list[dict[str, Any]]:
        """`name` and `bytes` of the slides in the served folder, by name."""
        found = []
        for name, path in self._served().items():
            with suppress(FileNotFoundError):  # removed meanwhile
                found.append({"name": name, "bytes": path.stat().st_size})
        return found

    @property
    def jobs(self) -> list[Job]:
        """All jobs, the latest first."""
        with self._changed:
            return sorted(self._jobs.values(), key=lambda job: -job.created)

    def get(self, job_id: str) -> Job:
        """The job of this id.

        Raises:
            LookupError: There is none.
        """
        with self._changed:
            return self._jobs[job_id]

    def require_room(self) -> None:
        """Refuse early what would be refused once it is here.

        Raises:
            Busy: As many scans wait as may.
        """
        with self._changed:
            if sum(job.status == "queued" for job in self._jobs.values()) >= self._waiting:
                raise Busy(f"{self._waiting} scans wait already")

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
        """A new id, and where the bytes of a slide of this shown name go before `add` is called with that id."""
        job_id = new_id()
        suffix = Path(name).suffix.lower()
        folder = self.workspace / job_id
        folder.mkdir()
        return job_id, folder / f"{UPLOAD}{suffix if suffix in SUFFIXES else '.bin'}"

    def discard(self, job_id: str) -> None:
        """Remove the folder of an upload that became no job."""
        shutil.rmtree(self.workspace / job_id, ignore_errors=True)

    def add(
        self,
        name: str,
        *,
        model: str | None = None,
        options: Mapping[str, float] | None = None,
        uploaded: str | None = None,
    ) -> Job:
        """Queue a scan, once another process has opened the slide.

        Args:
            name: Of a slide in the served folder; or of the uploaded one, to be shown.
            model: Name of the model; the first where None.
            options: `overlap`, `resolution`, `patch_resolution`.
            uploaded: Id from `upload_target`, where the slide was uploaded.

        Raises:
            LookupError: There is no such slide or model.
            SlideError: The slide cannot be read.
            Busy: As many scans wait as may.
        """
        chosen = next(iter(self._models)) if model is None else model
        if chosen not in self._models:
            raise LookupError(f"no model named {chosen[:200]!r}")
        job_id = uploaded or new_id()
        job = Job(job_id, name, chosen, dict(options or {}), uploaded is not None, time.time())
        self.require_room()
        if not self._probes.acquire(blocking=False):
            raise Busy("too many slides are being opened")
        try:
            with SlideReader() as probe:
                probe.facts(self.slide(job), name)
        finally:
            self._probes.release()
        with self._changed:
            self.require_room()
            job.save(self.workspace / job.id)
            self._jobs[job.id] = job
            self._changed.notify_all()
        return job

    def delete(self, job_id: str) -> None:
        """Cancel a scan where it waits or runs, and remove all that is kept of it.

        Raises:
            LookupError: There is none of this id.
        """
        with self._changed:
            del self._jobs[job_id]
            if self._running == job_id:
                self._stop.set()
                self._changed.wait_for(lambda: self._running != job_id, timeout=30)
        self.discard(job_id)

    def slide(self, job: Job) -> Path:
        """The file of a job's slide.

        Raises:
            LookupError: It is no longer there.
        """
        if not job.uploaded:
            served = self._served()
            if job.name not in served:
                raise LookupError(f"no slide named {job.name[:200]!r} in the served folder")
            return served[job.name]
        found = next((self.workspace / job.id).glob(f"{UPLOAD}.*"), None)
        if found is None:
            raise LookupError("the uploaded slide is gone")
        return found

    def result(self, job: Job, name: str) -> Path:
        """A file of a finished scan.

        Raises:
            LookupError: It is not finished, or deleted.
        """
        if job.status != "done":
            raise LookupError(f"the scan is {job.status}")
        path = self.workspace / job.id / "scan" / name
        if not path.is_file():
            raise LookupError("the scan's result is gone")
        return path

    def record(self, job: Job) -> dict[str, Any]:
        """What scan.json of a finished scan holds.

        Raises:
            LookupError: It is not finished, or deleted.
        """
        try:
            found: dict[str, Any] = json.loads(self.result(job, "scan.json").read_text(encoding="utf-8"))
        except FileNotFoundError:  # deleted between the look and the reading
            raise LookupError("the scan's result is gone") from None
        return found

    def descriptor(self, job: Job) -> str:
        """The Deep Zoom descriptor of a job's slide; raises what `SlideReader.facts` does."""
        return str(self._viewer.facts(self.slide(job), job.name)["descriptor"])

    def tile(self, job: Job, level: int, column: int, row: int) -> bytes:
        """A Deep Zoom tile of a job's slide; raises what `SlideReader.tile` does."""
        return self._viewer.tile(self.slide(job), job.name, level, column, row)

    def _served(self) -> dict[str, Path]:
        if self._slides is None or not self._slides.is_dir():
            return {}
        found = (path for path in self._slides.iterdir() if path.suffix.lower() in SUFFIXES)
        found = (path for path in found if path.name.isprintable())  # a name that is no text cannot be asked for
        return {path.name: path for path in sorted(found) if path.is_file() and not path.name.startswith(".")}

    def _work(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._ending or self._next() is not None)
                job = self._next()
                if self._ending or job is None:
                    return
                self._stop.clear()
                self._running = job.id
                self._put(job, "running", None)
            error = self._scan(job)
            with self._changed:
                if job.id in self._jobs:  # else it was deleted
                    stopped = self._stop.is_set()
                    self._put(job, "queued" if stopped else "failed" if error else "done", error)
                self._running = None
                self._changed.notify_all()

    def _put(self, job: Job, status: Status, error: dict[str, str] | None) -> None:
        job.status, job.error = status, error
        try:
            job.save(self.workspace / job.id)
        except OSError as problem:  # a full disk must not end the thread; the scan itself is on disk or failed
            _LOG.warning("scan %s: its state could not be written (%s)", job.id, problem.strerror)

    def _next(self) -> Job | None:
        queued = (job for job in self._jobs.values() if job.status == "queued")
        return min(queued, key=lambda job: job.created, default=None)

    def _scan(self, job: Job) -> dict[str, str] | None:
        def tell(done: int, total: int) -> None:
            job.done, job.total = done, total

        try:
            if job.model not in self._models:
                raise LookupError(f"the model {job.model} is no longer served")
            request = {
                "run": str(self._models[job.model]),
                "slide": str(self.slide(job)),
                "name": job.name,
                "out": str(self.workspace / job.id / "scan"),
                "device": self._device,
                "batch_size": _BATCH,
                **job.options,
            }
            return self._run(request, tell, self._stop)
        except LookupError as error:
            return {"cause": str(error.args[0]), "remedy": "scan it again"}
        except Exception:  # whatever it is, the next scan must have its turn
            _LOG.exception("scan %s", job.id)
            return {"cause": "the scan could not be run", "remedy": "look at the server's log"}
