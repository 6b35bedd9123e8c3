"""Scans of slides in the background, one at a time, which outlast a restart of the server."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Literal

from filelock import FileLock

from tumortrace.app.processes import OVERVIEW, Message
from tumortrace.app.slide_files import SlideFiles, identity, is_id, new_id, read_job
from tumortrace.app.slide_reader import Busy, SlideReader, Tell, scan_apart
from tumortrace.errors import ServeError
from tumortrace.records.lock import take
from tumortrace.records.scans import ScanJob

Status = Literal["queued", "running", "done", "failed"]

_BATCH = 64  # tiles: fewer than `scan` takes, so that progress is seen on small slides too
_LOG = logging.getLogger("tumortrace.app.slides")


class SlideJobs:
    """Scans in the background, and the slides of those that are done, to be looked at.

    Attributes:
        files: Where slides and results lie.

    Args:
        workspace: Folder for all of them.
        models: Run folder or bundle of each model by its name; the first is the default.
        weights: SHA-256 of the weights that each model must have, lest one put in its place scans; None does not look.
        slides: Folder whose slides can be chosen, or None.
        device: As for `scan`.
        waiting: Scans that may wait.
        kept_bytes: Of uploaded slides together.
        run: Scans one slide: takes the arguments of `scan`, a function that is told tiles done and all tiles, and
            an event that asks it to stop; returns cause and remedy of a failure, or None.

    Raises:
        LookupError: Of a method, that there is no such job, slide or model.
        Busy: Of a method, that as many scans wait as may.
    """

    def __init__(
        self,
        workspace: Path,
        models: Mapping[str, Path],
        *,
        weights: Mapping[str, str] | None = None,
        slides: Path | None = None,
        device: str = "auto",
        waiting: int = 8,
        kept_bytes: int = 20 << 30,
        run: Callable[[Message, Tell, threading.Event], dict[str, str] | None] | None = None,
    ) -> None:
        self.files = SlideFiles(workspace, slides, kept_bytes)
        self._workspace, self._models, self._device, self._waiting = workspace, dict(models), device, waiting
        self._weights = dict(weights or {})
        self._run = run or scan_apart
        self._viewer = SlideReader()
        self._probes = threading.BoundedSemaphore(2)
        self._jobs: dict[str, ScanJob] = {}
        self._changed = threading.Condition()
        self._ending, self._stop = False, threading.Event()
        self._running: str | None = None
        self._thread: threading.Thread | None = None
        self._lock: FileLock | None = None

    def start(self) -> None:
        """Take up what an earlier server left, and begin to scan.

        Raises:
            ServeError: Another server uses the workspace, or it cannot be made.
        """
        try:
            self._workspace.mkdir(parents=True, exist_ok=True)
            self._lock = take(self._workspace / ".lock")
        except OSError as error:
            raise ServeError(
                f"cannot be written ({error.strerror})", where=self._workspace, remedy="choose another --workspace"
            ) from error
        if self._lock is None:
            raise ServeError(
                "another server uses it", where=self._workspace, remedy="end that one, or choose another --workspace"
            )
        for folder in sorted(self._workspace.iterdir()):
            job = read_job(folder)
            if job is not None:
                self._jobs[job.id] = job
            elif is_id(folder.name) and not ScanJob.exists(folder):  # an upload that never was a job
                self.files.discard(folder.name)
            elif is_id(folder.name):
                _LOG.warning("%s is passed over: its %s cannot be read", folder, ScanJob.FILE)
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
        if self._lock is not None:
            self._lock.release()

    @property
    def jobs(self) -> list[ScanJob]:
        """All jobs, the latest first."""
        with self._changed:
            return sorted(self._jobs.values(), key=lambda job: -job.created)

    def get(self, job_id: str) -> ScanJob:
        """The job of this id."""
        with self._changed:
            return self._jobs[job_id]

    def require_room(self) -> None:
        """Refuse early what would be refused once it is here."""
        with self._changed:
            if sum(job.status == "queued" for job in self._jobs.values()) >= self._waiting:
                raise Busy(f"{self._waiting} scans wait already")

    def add(
        self,
        name: str,
        *,
        model: str | None = None,
        options: Mapping[str, float] | None = None,
        uploaded: str | None = None,
    ) -> ScanJob:
        """Queue a scan, once another process has opened the slide.

        Args:
            name: Of a slide in the served folder; or of the uploaded one, to be shown.
            model: Name of the model; the first where None.
            options: `overlap`, `resolution`, `patch_resolution`, `bits`, `plane`, `dense`.
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
        job = ScanJob(
            id=job_id,
            name=name,
            model=chosen,
            options=dict(options or {}),
            uploaded=uploaded is not None,
            created=time.time(),
            status="queued",
            error=None,
        )
        self.require_room()
        if not self._probes.acquire(blocking=False):
            raise Busy("too many slides are being opened")
        try:
            with SlideReader() as probe:
                probe.facts(self.files.slide(job), name, **_reading(job))
        finally:
            self._probes.release()
        with self._changed:
            self.require_room()
            job.write(self.files.folder(job.id))
            self._jobs[job.id] = job
            self._changed.notify_all()
        return job

    def delete(self, job_id: str) -> None:
        """Cancel a scan where it waits or runs, and remove all that is kept of it."""
        with self._changed:
            del self._jobs[job_id]
            if self._running == job_id:
                self._stop.set()
                self._changed.wait_for(lambda: self._running != job_id, timeout=30)
        self.files.discard(job_id)

    def descriptor(self, job: ScanJob) -> str:
        """The Deep Zoom descriptor of a job's slide; raises what `scanned_slide` and `SlideReader.facts` do."""
        return str(self._viewer.facts(self.files.scanned_slide(job), job.name, **_reading(job))["descriptor"])

    def tile(self, job: ScanJob, level: int, column: int, row: int) -> bytes:
        """A Deep Zoom tile of a job's slide; raises what `scanned_slide` and `SlideReader.tile` do."""
        overview = self.files.folder(job.id) / OVERVIEW
        slide = self.files.scanned_slide(job)
        kept = overview if overview.is_file() else None
        return self._viewer.tile(slide, job.name, level, column, row, kept, **_reading(job))

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

    def _put(self, job: ScanJob, status: Status, error: dict[str, str] | None) -> None:
        job.status, job.error = status, error
        try:
            job.write(self.files.folder(job.id))
        except OSError as problem:  # a full disk must not end the thread; the scan itself is on disk or failed
            _LOG.warning("scan %s: its state could not be written (%s)", job.id, problem.strerror)

    def _next(self) -> ScanJob | None:
        queued = (job for job in self._jobs.values() if job.status == "queued")
        return min(queued, key=lambda job: job.created, default=None)

    def _scan(self, job: ScanJob) -> dict[str, str] | None:
        def tell(done: int, total: int) -> None:
            job.done, job.total = done, total

        try:
            if job.model not in self._models:
                raise LookupError(f"the model {job.model} is no longer served")
            slide = self.files.slide(job)
            job.scanned = identity(slide)
            request = {
                "run": str(self._models[job.model]),
                "slide": str(slide),
                "name": job.name,
                "out": str(self.files.folder(job.id) / "scan"),
                "device": self._device,
                "batch_size": _BATCH,
                "weights": self._weights.get(job.model),
                **job.options,
            }
            error = self._run(request, tell, self._stop)
            if error is None and not self._stop.is_set() and identity(slide) != job.scanned:
                return {"cause": "the slide's file was changed while it was scanned", "remedy": "scan it again"}
            return error
        except FileNotFoundError:
            return {"cause": "the slide's file was removed", "remedy": "put it back and scan it again"}
        except LookupError as error:
            return {"cause": str(error.args[0]), "remedy": "scan it again"}
        except Exception:  # whatever it is, the next scan must have its turn
            _LOG.exception("scan %s", job.id)
            return {"cause": "the scan could not be run", "remedy": "look at the server's log"}


def _reading(job: ScanJob) -> dict[str, int]:
    """How the slide is read, as the request for its scan told."""
    return {name: int(job.options[name]) for name in ("bits", "plane") if job.options.get(name) is not None}
