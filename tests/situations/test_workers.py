"""Slides divided among workers: the same bytes as from one process, also where a worker or the command is killed."""

from __future__ import annotations

import importlib.util
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import cache, partial
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from tests.situations.models import made_model
from tests.situations.situation import situation
from tests.training.test_tune import results, small_space, table
from tumortrace import synthesise
from tumortrace.cli.main import run
from tumortrace.errors import RunError
from tumortrace.inference import divided
from tumortrace.inference.predict import predict
from tumortrace.models.bundle import Model, load_model
from tumortrace.records.remote import cache_folder
from tumortrace.slides import shares
from tumortrace.training import experiment

WORKERS = [
    pytest.param(["--workers", "2"], id="processes"),
    pytest.param(
        ["--cluster", "local"],
        id="ray",
        marks=[  # `test_cluster` shows shortly that a cluster does what processes do
            pytest.mark.slow,
            pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="Ray is not installed"),
        ],
    ),
]
BODY = ["resnet18", "--weights", "random", "--set", "preprocessing.size=32", "--patch-resolution", "1.0"]
Whole = Callable[[str], dict[str, bytes]]
TIMES = ("scan.json", "slides.csv", "report.html", "overview.jpg")  # they hold seconds, or are drawn from those


@pytest.fixture(scope="module")
def slides(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three slides of tissue whose shade differs from pixel to pixel, of 1 um; one that is broken."""
    folder = tmp_path_factory.mktemp("slides")
    for number in range(3):
        random = np.random.default_rng(number)
        pixels = random.integers(80, 220, (512, 512, 1)) * np.ones(3) + random.integers(-20, 20, (512, 512, 3))
        pixels[..., 1] -= 60
        picture = Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))
        picture.save(folder / f"{number}.png", dpi=(25400, 25400))
    (folder / "broken.svs").write_bytes(b"II*\0 torn")
    return folder


@pytest.fixture(scope="module")
def commands(slides: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[str]]:
    """Each verb, up to the folder that it writes."""
    model = str(made_model(tmp_path_factory.mktemp("model"), resolution=1.0))
    words = ["--resolution", "1.0", str(slides), "-o"]
    labels = "".join(f"{slides / name},0,{name[0]}\n" for name in ("0.png", "1.png", "broken.svs", "2.png"))
    (table := tmp_path_factory.mktemp("table") / "slides.csv").write_text("slide,label,patient\n" + labels)
    tiling = [str(table), "--slide-resolution", "1.0", "--resolution", "1.0", "--size", "32", "--per-slide", "50"]
    tiling += ["--positive", "1"]
    return {
        "scan": ["scan", model, *words],
        "embed-slides": ["embed-slides", *BODY, *words],
        "tile": ["tile", *tiling, "-o"],
    }


@pytest.fixture(scope="module")
def whole(commands: dict[str, list[str]], tmp_path_factory: pytest.TempPathFactory) -> Whole:
    """What the command of a verb writes in one process."""

    @cache
    def whole(verb: str) -> dict[str, bytes]:
        folder = tmp_path_factory.mktemp("whole")
        assert run([*commands[verb], str(folder / verb)]) == 1  # one slide is broken
        return written(folder / verb)

    return whole


def written(folder: Path) -> dict[str, bytes]:
    files = [file for file in folder.rglob("*") if file.is_file() and file.name not in TIMES]
    return {str(file.relative_to(folder)): file.read_bytes() for file in files}


def workers() -> list[int]:
    """Processes below this one that carry out pieces."""
    parents, working = dict[int, int](), list[int]()
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):  # it has ended
            parents[int(process.name)] = int((process / "stat").read_text().rpartition(") ")[2].split()[1])
            command = (process / "cmdline").read_bytes()
            if b"work.processes import serve" in command or b"ray::Attending" in command:
                working.append(int(process.name))

    def ours(process: int) -> bool:
        return process == os.getpid() or (process in parents and ours(parents[process]))

    return [process for process in working if ours(process)]


def until(true: Callable[[], object], seconds: float = 600) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end
        time.sleep(0.02)


def begun(folder: Path) -> list[int]:
    """The workers, once a slide is in the middle."""
    journals = [*folder.glob("*/unfinished*.jsonl"), *folder.glob(".*.jsonl")]  # of scans, of features
    return workers() if any(journal.stat().st_size for journal in journals) else []


def loading() -> list[int]:
    """Workers that load torch, which the first of its pieces asks for."""
    return [process for process in workers() if b"libtorch" in Path(f"/proc/{process}/maps").read_bytes()]


def trying(folder: Path) -> list[int]:
    """Workers in the middle of a trial, whose lock they hold."""
    if not any(folder.glob("*/trials/*/history.csv")):
        return []
    held = {process: [os.readlink(file) for file in Path(f"/proc/{process}/fd").iterdir()] for process in workers()}
    return [process for process, files in held.items() if any("/trials/" in file for file in files)]


@contextmanager
def killing(victims: Callable[[], list[int]]) -> Iterator[None]:
    """Kills one of the workers that are named, as soon as there are some; what has ended by then is missed."""
    ended = threading.Event()

    def killed() -> bool:
        time.sleep(0.05)
        with suppress(OSError):  # it has ended
            for process in victims()[:1]:
                os.kill(process, signal.SIGKILL)
                return True
        return False

    def kill() -> None:
        until(lambda: ended.is_set() or killed())

    thread = threading.Thread(target=kill)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


@contextmanager
def typed(command: list[str]) -> Iterator[subprocess.Popen[bytes]]:
    """The command in a process of its own, which is killed at the end of the context."""
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(place for place in sys.path if place)}
    program = [sys.executable, "-c", "from tumortrace.cli.main import main; main()", *command]
    process = subprocess.Popen(program, env=environment, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    try:
        yield process
    finally:
        process.kill()
        process.wait()


@situation(
    "slides",
    there="a folder of slides, two workers of which one is killed in the middle of a slide",
    typed="tumortrace scan RUN SLIDES --workers 2",
    right="told in a line, another worker goes on; the same bytes as from one process",
)
@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="finds the workers in /proc")
@pytest.mark.parametrize("hands", WORKERS)
@pytest.mark.parametrize("verb", ["scan", "embed-slides"])
def test_a_killed_worker_changes_no_byte(
    verb: str,
    hands: list[str],
    commands: dict[str, list[str]],
    whole: Whole,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """The broken slide is told as ever; nothing of the killed one is left over."""
    for attempt in range(3):
        out = tmp_path / str(attempt)
        with killing(partial(begun, out)):
            assert run([*commands[verb], str(out), *hands]) == 1
        told = capsys.readouterr().err
        if "its worker was lost" in told:
            break
    assert "its worker was lost" in told
    assert "1 of 4 slides could not be" in told
    assert {name for name in written(out) if not name.endswith(".tmp")} == set(whole(verb))
    assert all(content == written(out)[name] for name, content in whole(verb).items())
    assert not workers()


@pytest.mark.parametrize(("verb", "module"), [("scan", "batch"), ("tile", "tile")])
def test_the_command_that_divides_slides_loads_no_torch(
    verb: str, module: str, commands: dict[str, list[str]], tmp_path: Path
) -> None:
    """Its workers do, and would wait for it."""
    program = "import sys; from importlib import import_module; from tumortrace.cli.main import run; "
    program += f"import_module('tumortrace.slides.{module}').carry_out = "
    program += "lambda *_, **__: sys.exit(3 + ('torch' in sys.modules)); run()"
    words = [*commands[verb], str(tmp_path / "out"), "--workers", "2"]
    ended = subprocess.run([sys.executable, "-c", program, *words], env=os.environ, check=False)
    assert ended.returncode == 3


@pytest.mark.parametrize("hands", WORKERS)
def test_tiles_are_the_same_bytes(
    hands: list[str], commands: dict[str, list[str]], whole: Whole, tmp_path: Path
) -> None:
    """Cut by two, one of whom is killed; the pieces are too short here for it to be in the middle of one each time."""
    out = tmp_path / "out"
    with killing(partial(begun, out)):
        assert run([*commands["tile"], str(out), *hands]) == 1
    assert {name: content for name, content in written(out).items() if not name.endswith(".tmp")} == whole("tile")


@situation(
    "slides",
    there="a scan by several workers whose command is killed (SIGKILL), as by a power cut",
    typed="the same `tumortrace scan --workers 2` again",
    right="its workers end with it; the second call goes on and ends with the same bytes",
)
@pytest.mark.parametrize("hands", WORKERS)
@pytest.mark.parametrize("verb", ["scan", "embed-slides", "tile"])
def test_a_killed_command_changes_no_byte(
    verb: str, hands: list[str], commands: dict[str, list[str]], whole: Whole, tmp_path: Path
) -> None:
    command = [*commands[verb], str(tmp_path / "out"), *hands]
    with typed(command):
        until(lambda: begun(tmp_path / "out"))
    assert not whole(verb).keys() <= written(tmp_path / "out").keys()
    assert run(command) == 1
    assert whole(verb).items() <= written(tmp_path / "out").items()


@situation(
    "slides",
    there="one large slide, two workers of which one is killed",
    typed="tumortrace scan RUN SLIDE --workers 2",
    right="each computes shares of its batches; the same bytes as from one process",
)
@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="finds the workers in /proc")
@pytest.mark.parametrize("hands", WORKERS)
def test_a_large_slide_is_divided(
    hands: list[str],
    commands: dict[str, list[str]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Nine batches in four shares, where half a megabyte is large."""
    monkeypatch.setattr(shares, "LARGE", 1 << 19)
    pixels = np.random.default_rng(0).integers(0, 256, (768, 768, 3), np.uint8) // 2 + np.uint8([90, 20, 90])
    Image.fromarray(pixels).save(tmp_path / "large.png", dpi=(25400, 25400))
    command = [*commands["scan"][:2], str(tmp_path / "large.png"), "--overlap", "0.5", "-o"]
    assert run([*command, str(tmp_path / "one")]) == 0
    for attempt in range(3):
        out = tmp_path / f"{attempt}"
        with killing(partial(begun, out)):
            assert run([*command, str(out), *hands]) == 0
        assert written(out) == written(tmp_path / "one")
        if "its worker was lost" in (told := capsys.readouterr().err):
            break
    assert "its worker was lost" in told


@pytest.fixture(scope="module")
def predicting(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """The command up to the file that it writes: 40 images, which are two batches."""
    folder = tmp_path_factory.mktemp("images")
    for number in range(40):
        pixels = np.random.default_rng(number).integers(0, 256, (32, 32, 3), np.uint8)
        Image.fromarray(pixels).save(folder / f"{number}.png")
    return ["predict", str(made_model(tmp_path_factory.mktemp("model"))), str(folder), "-o"]


@pytest.fixture(scope="module")
def predictions(predicting: list[str], tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """What one process with one thread writes."""
    out = tmp_path_factory.mktemp("one") / "predictions.csv"
    assert run([*predicting, str(out)]) == 0
    return out.read_bytes()


@situation(
    "runs",
    there="many images, two workers of which one is killed",
    typed="tumortrace predict RUN DATA --workers 2",
    right="told in a line, another worker takes its images; the same bytes as from one process",
)
@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="finds the workers in /proc")
@pytest.mark.parametrize("hands", WORKERS)
def test_predictions_of_a_killed_worker_are_made_by_another(
    hands: list[str], predicting: list[str], predictions: bytes, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for attempt in range(3):
        out = tmp_path / f"{attempt}.csv"
        with killing(loading):
            assert run([*predicting, str(out), *hands]) == 0
        assert out.read_bytes() == predictions
        if "its worker was lost" in (told := capsys.readouterr().err):
            break
    assert "its worker was lost" in told
    assert not workers()


@pytest.mark.parametrize("hands", WORKERS)
def test_a_killed_command_predicts_the_same(
    hands: list[str], predicting: list[str], predictions: bytes, tmp_path: Path
) -> None:
    """Killed as soon as a worker has answered, as far as it has not ended by then."""
    for attempt in range(3):
        command = [*predicting, str(out := tmp_path / f"{attempt}.csv"), *hands]
        with typed(command) as process:
            until(lambda: process.poll() is not None or [*cache_folder().glob("stores/*/*/answers/*/*.npz")])
        if cut := not out.exists():
            break
    assert cut
    assert run(command) == 0
    assert out.read_bytes() == predictions


def test_predictions_of_a_killed_command_are_not_made_again(
    predicting: list[str], predictions: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What workers had answered is kept, whatever ends the command; the next one asks for the rest, then clears up."""
    asked: list[int] = []
    carried_out = divided.carry_out

    def ends(do: object, pieces: list[object], receive: Callable[..., None], **options: object) -> None:
        def once(number: int, outcome: object) -> None:
            receive(number, outcome)
            raise KeyboardInterrupt

        asked.append(len(pieces))
        options["hands"] = None  # this process, which is quicker there
        carried_out(do, pieces, once if len(asked) == 1 else receive, **options)  # type: ignore[arg-type]

    sizes, computed = list[int](), Model._batch

    def counted(model: Model, images: np.ndarray, embed: bool) -> object:
        sizes.append(len(images))
        return computed(model, images, embed)

    monkeypatch.setattr(Model, "_batch", counted)
    monkeypatch.setattr(divided, "carry_out", ends)
    out = tmp_path / "predictions.csv"
    command = [*predicting, str(out), "--workers", "2"]
    assert run(command) == 1
    assert not out.exists()
    assert run(command) == 0
    assert asked == [2, 1]
    assert sizes == [20, 20], "batches are those of one process"
    assert out.read_bytes() == predictions
    assert not list(cache_folder().glob("stores/*/*/answers/*"))


def test_a_loaded_model_is_not_shared(predicting: list[str]) -> None:
    """Workers load it from its path."""
    with pytest.raises(RunError, match="cannot share a loaded model"):
        predict(load_model(predicting[1]), predicting[2], workers=2)


@pytest.fixture(scope="module")
def searched(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[list[str], str]]:
    """The command of a search and what comes of it in one process with one thread."""
    folder = tmp_path_factory.mktemp("search")
    data = synthesise("patches", folder / "patches", count=80, seed=4)
    space = small_space(folder, trials=3, sampler={"name": "random"}, pruner={"name": "none"})
    command, threads = ["tune", str(data), "--space", str(space)], torch.get_num_threads()
    torch.set_num_threads(1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(experiment, "renew_report", lambda folder: None)
        assert run([*command, "-o", str(folder / "runs")]) == 0
        yield command, results(next((folder / "runs").iterdir()))
    torch.set_num_threads(threads)


@situation(
    "runs",
    there="a search whose trials two workers carry out, one of which is killed in the middle of a trial",
    typed="tumortrace tune DATA --workers 2",
    right="the trial goes on elsewhere under its number; none is lost or made twice, each as from one process",
)
@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="finds the workers in /proc")
@pytest.mark.parametrize("hands", WORKERS)
def test_trials_of_workers_are_those_of_one_process(
    hands: list[str], searched: tuple[list[str], str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Random draws depend on the trial's number alone."""
    command, whole = searched
    for attempt in range(3):
        out = tmp_path / f"{attempt}"
        with killing(partial(trying, out)):
            assert run([*command, "-o", str(out), *hands]) == 0
        (study,) = out.iterdir()
        assert results(study) == whole
        if "was left by a process that ended: it is taken up" in (told := capsys.readouterr().err):
            break
    assert "its worker was lost" in told
    assert table(study)["interruptions"].sum() == 1
    assert not workers()
