"""Scans in the background: one at a time, bounded, cancelled, resumed by the next server; slides read apart."""

import io
import json
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tumortrace import load_model
from tumortrace.app import processes
from tumortrace.app.slide_jobs import SlideJobs
from tumortrace.app.slide_reader import Busy, SlideReader, scan_apart
from tumortrace.errors import ModelError, ServeError, SlideError
from tumortrace.records.scans import ScanJob


class Scanner:
    """Stands for scanning: each scan goes on until it is let go."""

    def __init__(self) -> None:
        self.requests: list[dict[str, Any]] = []
        self.together = self.most = 0
        self.go = threading.Semaphore(0)

    def __call__(
        self, request: dict[str, Any], tell: Callable[[int, int], None], stop: threading.Event
    ) -> dict[str, str] | None:
        self.requests.append(request)
        self.together += 1
        self.most = max(self.most, self.together)
        tell(1, 4)
        while not self.go.acquire(timeout=0.01):
            if stop.is_set():
                self.together -= 1
                return None
        self.together -= 1
        if "fail" in request["slide"]:
            return {"cause": "it failed", "remedy": "nothing"}
        folder = Path(request["out"])
        folder.mkdir(exist_ok=True)
        (folder / "scan.json").write_text("{}")
        return None


def until(condition: Callable[[], object]) -> None:
    """Wait for it, ten minutes at most."""
    ends = time.monotonic() + 600
    while not condition():
        assert time.monotonic() < ends
        time.sleep(0.01)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A served folder of four slides and two files that are none."""
    served = tmp_path / "served"
    served.mkdir()
    for name in ("a.png", "b.png", "c.png", "fail.png", ".hidden.png", "notes.txt"):
        Image.new("RGB", (60, 40), "purple").save(served / name, "PNG")
    (tmp_path / "secret.png").write_bytes((served / "a.png").read_bytes())
    return served


@pytest.fixture
def make(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., SlideJobs]]:
    """Makes servers' jobs on one workspace, with slides opened in this process."""
    monkeypatch.setattr(SlideReader, "facts", lambda self, path, name, **_: {"descriptor": str(path)})
    made: list[SlideJobs] = []

    def jobs(run: Any, **more: Any) -> SlideJobs:
        found = SlideJobs(tmp_path / "work", {"m": tmp_path / "run"}, slides=folder, run=run, **more)
        made.append(found)
        found.start()
        return found

    yield jobs
    for each in made:
        each.stop()


def test_scans_run_one_after_the_other(make: Callable[..., SlideJobs], folder: Path, tmp_path: Path) -> None:
    """In the order in which they were asked for, with what was asked for; failures are told and hold nobody up."""
    scanner = Scanner()
    jobs = make(scanner)
    assert list(jobs.files.served()) == ["a.png", "b.png", "c.png", "fail.png"]
    added = [jobs.add(name, options={"overlap": 0.5}) for name in ("b.png", "fail.png", "a.png")]
    until(lambda: jobs.get(added[0].id).status == "running" and added[0].total == 4)
    assert [job.status for job in added] == ["running", "queued", "queued"]
    with pytest.raises(LookupError, match="queued"):
        jobs.files.result(added[2], "scan.json")
    for _ in added:
        scanner.go.release()
    until(lambda: added[2].status == "done")
    assert [job.status for job in added] == ["done", "failed", "done"]
    assert added[1].error == {"cause": "it failed", "remedy": "nothing"}
    assert scanner.most == 1
    assert [request["slide"] for request in scanner.requests] == [str(folder / job.name) for job in added]
    assert scanner.requests[0]["overlap"] == 0.5
    assert scanner.requests[0]["run"] == str(tmp_path / "run")
    assert jobs.files.result(added[0], "scan.json").read_text() == "{}"
    assert jobs.jobs == added[::-1]


def test_the_queue_is_bounded(make: Callable[..., SlideJobs]) -> None:
    """As many wait as may; then callers are turned away until one is done."""
    scanner = Scanner()
    jobs = make(scanner, waiting=2)
    first = jobs.add("a.png")
    until(lambda: first.status == "running")
    jobs.add("a.png")
    jobs.add("a.png")
    with pytest.raises(Busy):
        jobs.add("a.png")
    with pytest.raises(Busy):
        jobs.require_room()
    scanner.go.release()
    until(lambda: first.status == "done")
    until(lambda: sum(job.status == "queued" for job in jobs.jobs) == 1)
    jobs.add("a.png")


def test_a_restart_goes_on_with_what_ran_and_what_waited(make: Callable[..., SlideJobs], tmp_path: Path) -> None:
    """Jobs keep their ids; what ran waits again, in its old place and folder; what was done stays done."""
    scanner = Scanner()
    jobs = make(scanner)
    added = [jobs.add(name) for name in ("a.png", "b.png", "c.png")]
    scanner.go.release()
    until(lambda: added[1].status == "running")
    jobs.stop()
    saved = json.loads((tmp_path / "work" / added[1].id / "job.json").read_text())
    saved["status"] = "running"  # as a kill leaves it
    (tmp_path / "work" / added[1].id / "job.json").write_text(json.dumps(saved))
    second = Scanner()
    again = make(second)
    until(lambda: again.get(added[1].id).status == "running" and second.requests)
    assert {job.id: job.status for job in again.jobs} == {
        added[0].id: "done",
        added[1].id: "running",
        added[2].id: "queued",
    }
    assert second.requests[0] == scanner.requests[1]
    second.go.release()
    second.go.release()
    until(lambda: again.get(added[2].id).status == "done")


def test_deleting_cancels_and_removes(make: Callable[..., SlideJobs], tmp_path: Path) -> None:
    """A scan that runs is stopped and its folder goes; one that waits never runs; the next has its turn."""
    scanner = Scanner()
    jobs = make(scanner)
    running, waiting, last = (jobs.add(name) for name in ("a.png", "b.png", "c.png"))
    until(lambda: running.status == "running")
    jobs.delete(waiting.id)
    jobs.delete(running.id)
    assert not (tmp_path / "work" / running.id).exists()
    assert not (tmp_path / "work" / waiting.id).exists()
    scanner.go.release()
    until(lambda: last.status == "done")
    assert [Path(request["slide"]).name for request in scanner.requests] == ["a.png", "c.png"]
    with pytest.raises(LookupError):
        jobs.get(running.id)
    assert [job.id for job in make_again(jobs, make).jobs] == [last.id]


def make_again(jobs: SlideJobs, make: Callable[..., SlideJobs]) -> SlideJobs:
    jobs.stop()
    return make(Scanner())


@pytest.mark.parametrize(
    "name", ["../secret.png", "/etc/passwd", "notes.txt", ".hidden.png", "", "a.png/../b.png", "x"]
)
def test_names_are_no_paths(name: str, make: Callable[..., SlideJobs]) -> None:
    """Only what the served folder lists can be scanned."""
    with pytest.raises(LookupError, match="no slide named"):
        make(Scanner()).add(name)


@pytest.mark.parametrize("job_id", ["../served", "0" * 32, "", "a" * 31])
def test_ids_are_looked_up_and_never_paths(job_id: str, make: Callable[..., SlideJobs]) -> None:
    """An id that was never given finds nothing, and deletes nothing."""
    jobs = make(Scanner())
    for ask in (jobs.get, jobs.delete):
        with pytest.raises(LookupError):
            ask(job_id)


def test_strange_things_in_the_workspace_are_passed_over(make: Callable[..., SlideJobs], tmp_path: Path) -> None:
    """Uploads that never became jobs go; other folders stay; a damaged record is no job, but nothing of it is lost."""
    work = tmp_path / "work"
    (work / ("0" * 32)).mkdir(parents=True)
    (work / ("0" * 32) / "slide.svs").write_text("half")
    (work / "mine").mkdir()
    (work / ("1" * 32)).mkdir()
    job = ScanJob(id="../x", name="a.png", model="m")
    job.write(work / ("1" * 32))
    assert make(Scanner()).jobs == []
    assert sorted(path.name for path in work.iterdir() if path.is_dir()) == ["1" * 32, "mine"]


def test_a_scanner_that_breaks_down_holds_nobody_up(make: Callable[..., SlideJobs]) -> None:
    """An error that nobody foresaw fails its scan alone."""

    def broken(request: dict[str, Any], *_: Any) -> None:
        if request["slide"].endswith("a.png"):
            raise RuntimeError("boom")

    jobs = make(broken)
    first, second = jobs.add("a.png"), jobs.add("b.png")
    until(lambda: second.status == "done")
    assert first.status == "failed"
    assert first.error is not None
    assert "boom" not in json.dumps(first.error)


def test_one_workspace_has_one_server(make: Callable[..., SlideJobs]) -> None:
    """A second server on the same workspace is refused in one line."""
    make(Scanner())
    with pytest.raises(ServeError, match="another server"):
        make(Scanner())


def test_a_slide_is_read_by_another_process(tmp_path: Path) -> None:
    """Facts and tiles come back; what is no slide, and no tile, is told; a crash and a hang are survived."""
    pixels = np.random.default_rng(0).integers(0, 255, (300, 400, 3), np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    (tmp_path / "b.png").write_text("no picture")
    with SlideReader(seconds=10) as reader:
        facts = reader.facts(tmp_path / "a.png", "shown.png")
        assert (facts["width"], facts["height"]) == (400, 300)
        assert 'Width="400"' in facts["descriptor"]
        tile = reader.tile(tmp_path / "a.png", "shown.png", 9, 1, 0)
        assert tile[:2] == b"\xff\xd8"
        with pytest.raises(LookupError):
            reader.tile(tmp_path / "a.png", "shown.png", 9, 2, 0)
        with pytest.raises(SlideError, match=r"^b.svs: ") as caught:
            reader.facts(tmp_path / "b.png", "b.svs")
        assert str(tmp_path) not in str(caught.value)
        assert reader.worker.pid is not None
        os.kill(reader.worker.pid, signal.SIGKILL)
        os.waitid(os.P_PID, reader.worker.pid, os.WEXITED | os.WNOWAIT)  # ended, and left for its owner to reap
        assert reader.facts(tmp_path / "a.png", "a")["width"] == 400
        os.kill(reader.worker.pid, signal.SIGSTOP)
        reader.worker.seconds = 0.2
        with pytest.raises(SlideError, match=r"takes more than 0\.2 s"):
            reader.facts(tmp_path / "a.png", "a")
        reader.worker.seconds = 10
        assert reader.facts(tmp_path / "a.png", "a")["width"] == 400


def test_a_slide_that_ends_the_process_does_not_end_the_server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A library that dies over a file takes the reader or the scanner with it, and leaves a line."""
    (tmp_path / "dying.py").write_text("import os, sys\nsys.stdin.readline()\nos._exit(7)\n")
    (tmp_path / "a.svs").write_bytes(b"II*\0")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr("tumortrace.app.workers.MODULE", "dying")
    with SlideReader() as reader, pytest.raises(SlideError, match="makes its reader fail"):
        reader.facts(tmp_path / "a.svs", "a.svs")
    told = scan_apart({"slide": str(tmp_path / "a.svs")}, lambda *_: None, threading.Event())
    assert told == {"cause": "the slide made the scan fail", "remedy": "copy or convert the slide again"}


def test_memory_of_the_reading_process_is_bounded(tmp_path: Path) -> None:
    """A picture that takes more than it may have is refused, and the next one is read."""
    Image.new("RGB", (9000, 9000)).save(tmp_path / "large.png", compress_level=1)
    Image.new("RGB", (90, 90)).save(tmp_path / "small.png")
    with SlideReader(memory=200 << 20) as reader:
        with pytest.raises(SlideError):
            reader.facts(tmp_path / "large.png", "large")
        assert reader.facts(tmp_path / "small.png", "small")["width"] == 90


def test_another_slide_under_the_same_name_is_not_taken_for_it(
    make: Callable[..., SlideJobs], folder: Path, tmp_path: Path
) -> None:
    """Its old heat map is not laid over it, a restart later either; scanned again, it is shown."""
    scanner = Scanner()
    scanner.go.release()
    jobs = make(scanner)
    job = jobs.add("a.png")
    until(lambda: job.status == "done")
    assert jobs.descriptor(job)
    Image.new("RGB", (70, 50), "pink").save(folder / "a.png")
    with pytest.raises(SlideError, match=r"a.png: has been replaced .* scan it again"):
        jobs.descriptor(job)
    jobs.stop()
    later = make(scanner)
    with pytest.raises(SlideError, match="replaced"):
        later.tile(later.get(job.id), 0, 0, 0)
    scanner.go.release()
    again = later.add("a.png")
    until(lambda: again.status == "done")
    assert later.descriptor(again)


def test_a_slide_that_changes_while_it_is_scanned_has_no_result(make: Callable[..., SlideJobs], folder: Path) -> None:
    """Half of its heat would be another slide's."""

    def scanner(request: dict[str, Any], *_: Any) -> None:
        Image.new("RGB", (70, 50), "pink").save(request["slide"])

    job = make(scanner).add("a.png")
    until(lambda: job.status == "failed")
    assert job.error == {"cause": "the slide's file was changed while it was scanned", "remedy": "scan it again"}


def test_a_model_put_in_place_of_the_served_one_does_not_scan(make: Callable[..., SlideJobs], small_run: Path) -> None:
    """The process that scans is told which weights the server serves, and refuses others."""
    scanner = Scanner()
    scanner.go.release()
    job = make(scanner, weights={"m": "f" * 64}).add("a.png")
    until(lambda: job.status == "done")
    assert scanner.requests[0]["weights"] == "f" * 64
    served = load_model(small_run, device="cpu").info.weights_sha256
    assert processes.load(small_run, "cpu", served).info.weights_sha256 == served
    with pytest.raises(ModelError, match=r"has been replaced since the server started.*start the server again"):
        processes.load(small_run, "cpu", "f" * 64)


@pytest.mark.parametrize(
    ("error", "cause", "remedy"),
    [
        (OSError(28, "No space left on device"), "the scan cannot be written (No space left on device)", "free space"),
        (MemoryError(), "the scan needs more memory than there is", "larger machine"),
        (SlideError("/x/a.svs is damaged", remedy="copy it"), "the file is damaged", "copy it"),
    ],
)
def test_a_scan_that_fails_is_not_blamed_on_the_slide_alone(error: Exception, cause: str, remedy: str) -> None:
    """A full disk and too little memory are said; the slide's path is not."""
    told = processes.told(error, "/x/a.svs")  # type: ignore[arg-type]
    assert told["cause"] == cause
    assert remedy in told["remedy"]


def test_tiles_are_those_of_the_file_that_is_there(tmp_path: Path) -> None:
    """Neither a tile kept nor a file held open outlives another file under the same name."""
    Image.new("RGB", (300, 200), "purple").save(tmp_path / "a.png")
    with SlideReader() as reader:
        colours = []
        for colour in ("purple", "yellow"):
            Image.new("RGB", (300, 200), colour).save(tmp_path / "new.png")
            (tmp_path / "new.png").replace(tmp_path / "a.png")
            tile = reader.tile(tmp_path / "a.png", "a", 9, 0, 0)
            colours.append(Image.open(io.BytesIO(tile)).getpixel((9, 9)))
    assert colours == [pytest.approx((128, 0, 128), abs=3), pytest.approx((255, 255, 0), abs=3)]


@pytest.mark.parametrize("name", ["a.mrxs", "A.VMS"])
def test_a_slide_of_several_files_is_refused_before_it_is_sent(name: str, make: Callable[..., SlideJobs]) -> None:
    """One line says why, and where such slides can be put."""
    with pytest.raises(SlideError, match=r"is several files, of which an upload brings one.* by --slides"):
        make(Scanner()).files.upload_target(name)


@pytest.mark.skipif(sys.platform != "linux", reason="names are text there")
def test_a_name_that_is_no_text_hides_no_other(make: Callable[..., SlideJobs], folder: Path) -> None:
    """Such a slide cannot be asked for, and is left out; the list of the others can be sent."""
    (folder / os.fsdecode(b"\xff.png")).write_bytes((folder / "a.png").read_bytes())
    names = list(make(Scanner()).files.served())
    assert names == ["a.png", "b.png", "c.png", "fail.png"]


def test_uploads_share_the_room_that_there_is(make: Callable[..., SlideJobs], tmp_path: Path) -> None:
    """Of two uploads under way at once, each small enough by itself, the second is told where the room ends."""
    jobs = make(Scanner(), kept_bytes=1000)
    _, path = jobs.files.upload_target("a.svs")
    path.write_bytes(b"x" * 300)
    first, second = jobs.files.room_for_upload(), jobs.files.room_for_upload()
    assert first(400)
    assert second(300)
    assert not second(1)
    jobs.files.discard(path.parent.name)
    assert jobs.files.room_for_upload()(1000)


def test_a_result_that_is_deleted_meanwhile_is_not_found(make: Callable[..., SlideJobs], tmp_path: Path) -> None:
    """Who asked for it just before gets a refusal, not an error that was not foreseen."""
    scanner = Scanner()
    scanner.go.release()
    jobs = make(scanner)
    job = jobs.add("a.png")
    until(lambda: job.status == "done")
    assert jobs.files.record(job).as_json() == {}
    jobs.delete(job.id)
    for ask in (jobs.files.record, lambda job: jobs.files.result(job, "tiles.csv")):
        with pytest.raises(LookupError, match="gone"):
            ask(job)
