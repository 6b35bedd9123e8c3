"""Pieces of work: the same results, in order, from this process and from workers, whatever becomes of these."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from tests.work.doing import OddError, at, refused, twice
from tumortrace.errors import RunError, SlideError, TumorTraceError
from tumortrace.work.hands import Hands
from tumortrace.work.pace import Pace
from tumortrace.work.pieces import carry_out

ROOT = Path(__file__).parents[2]


def outcomes(folder: Path, pieces: list[int], hands: Hands, begin: object = at) -> list[object]:
    told: list[object] = []
    carry_out(
        twice,
        pieces,
        lambda number, outcome: told.append((number, outcome)),
        begin=partial(begin, folder),  # type: ignore[call-overload]
        places=[folder / str(piece) for piece in pieces],
        title="doubling",
        hands=hands,
    )
    assert [number for number, _ in told] == list(range(len(pieces)))  # type: ignore[misc]
    return [outcome for _, outcome in told]  # type: ignore[misc]


def test_workers_give_what_one_process_gives(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """In the order of the pieces, refusals among them word for word; what a worker says is said here."""
    here = outcomes(tmp_path, [0, 1, 2, 3, 5], Hands())
    assert capsys.readouterr().err == "a line\n"
    there = outcomes(tmp_path, [0, 1, 2, 3, 5], Hands(2))
    assert capsys.readouterr().err == "a line\n"
    processes = set()
    for one, other in zip(here, there, strict=True):
        if isinstance(one, TumorTraceError):
            assert isinstance(other, OddError)
            assert (str(one), one.found, one.names) == (str(other), other.found, other.names)  # type: ignore[attr-defined]
        else:
            assert one[0] == other[0]  # type: ignore[index]
            processes.add(other[1])  # type: ignore[index]
    assert len(processes) == 2
    assert os.getpid() not in processes


def test_a_lost_worker_costs_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Killed in the middle of a piece, it is told in a line, and another does the piece."""
    assert [result[0] for result in outcomes(tmp_path, [2, 4, 5], Hands(2))] == [4, 8, 10]  # type: ignore[index]
    assert "4: its worker was lost (killed by SIGKILL); it is taken up again" in capsys.readouterr().err


def test_a_piece_that_ends_every_worker_is_named(tmp_path: Path) -> None:
    """The others are done all the same."""
    first, bad, last = outcomes(tmp_path, [2, 7, 5], Hands(2))
    assert (first[0], last[0]) == (4, 10)  # type: ignore[index]
    assert isinstance(bad, RunError)
    assert str(bad).startswith(f"{tmp_path / '7'}: has ended each of 3 workers (killed by SIGKILL). What to do: ")


def test_what_is_no_fault_of_a_piece_ends_all(tmp_path: Path) -> None:
    """A fault of the program, and a worker that cannot begin, are raised here."""
    for hands in (Hands(), Hands(2)):
        with pytest.raises(ValueError, match="no fault of the piece"):
            outcomes(tmp_path, [2, 6], hands)
        with pytest.raises(RunError, match="nothing to begin with"):
            outcomes(tmp_path, [2, 5], hands, refused)


@pytest.fixture(autouse=True)
def interrupts() -> Iterator[None]:
    """Ctrl-C interrupts, as it does not where the tests run in the background of a script."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def test_an_interrupt_says_how_to_go_on(tmp_path: Path) -> None:
    """With the first piece that is not done."""
    with pytest.raises(RunError, match=r"8: interrupted\. What to do: the same command goes on where it stopped\."):
        outcomes(tmp_path, [0, 2, 8], Hands())
    assert sorted(path.name for path in tmp_path.iterdir()) == ["0", "2"]


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 1), (signal.SIGINT, 1), (signal.SIGKILL, -9)])
def test_workers_end_with_their_caller(number: signal.Signals, code: int, tmp_path: Path) -> None:
    """However it ends; where it is asked to, they put their files in order before."""
    program = textwrap.dedent(
        """
        import sys
        from functools import partial
        from pathlib import Path
        from tests.work.doing import at, waiting
        from tumortrace.cli.main import _ended_in_order
        from tumortrace.errors import RunError
        from tumortrace.work.hands import Hands
        from tumortrace.work.pieces import carry_out

        folder = Path(sys.argv[1])
        with _ended_in_order():
            try:
                carry_out(waiting, [1, 2], print, begin=partial(at, folder), places=[folder, folder], title="",
                          hands=Hands(2))
            except RunError as error:
                sys.exit("interrupted" not in str(error) or 1)
        """
    )
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "src")])}
    process = subprocess.Popen([sys.executable, "-c", program, tmp_path], env=environment, stderr=subprocess.PIPE)
    files = [tmp_path / f"{piece}.pid" for piece in (1, 2)]
    until(lambda: all(file.exists() and file.read_text() for file in files))
    process.send_signal(number)
    told = process.communicate(timeout=30)[1].decode()
    assert process.returncode == code
    assert "was lost" not in told, "they were ended"
    until(lambda: not any(alive(int(file.read_text())) for file in files))
    assert all(file.with_suffix(".ended").exists() for file in files) == (number != signal.SIGKILL)


def until(true: object, seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not true():  # type: ignore[operator]
        assert time.monotonic() < end
        time.sleep(0.05)


def alive(pid: int) -> bool:
    try:
        return "\nState:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return False


@pytest.mark.parametrize(
    ("workers", "cluster", "told"),
    [
        (0, None, "--workers 0; expected 1 or more"),
        (2, "local", "--cluster with --workers; expected one of them"),
        (1, "nowhere", "--cluster nowhere; expected local, auto or HOST:PORT"),
        (1, "ray://head:10001", "--cluster ray://head:10001; expected local, auto or HOST:PORT"),
    ],
)
def test_what_makes_no_sense_is_refused_in_a_line(workers: int, cluster: str | None, told: str) -> None:
    with pytest.raises(RunError, match=told):
        Hands(workers, cluster)


def test_errors_survive_being_sent() -> None:
    """Each part of a refusal is what it was, and so is its line, with one full stop."""
    import pickle

    error = SlideError("found", where="a.svs", expected="b", remedy="c")
    sent = pickle.loads(pickle.dumps(error))  # noqa: S301
    assert type(sent) is SlideError
    assert (str(sent), vars(sent)) == (str(error), vars(error))


def test_remaining_time_is_by_what_is_done_of_all() -> None:
    """After a slide of 10 tiles and half of one of 30, 25 are done of 80 expected on four; a failed one counts not."""
    pace = Pace(["a", "b", "c", "d"], "scanning")
    pace.tell(0, 1, 10, 10)
    pace.end(0)
    pace.tell(1, 2, 15, 30)
    assert (pace.done, pace.expected) == (25, 80)
    pace.end(1)
    assert (pace.done, pace.expected) == (10, 20)
