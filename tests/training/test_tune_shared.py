"""A search that machines share, by a journal or by PostgreSQL: one count, nothing lost to a kill or done twice."""

from __future__ import annotations

import json
import os
import pickle
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import yaml

from tests.training.test_tune import BASE
from tumortrace.cli.main import run as command
from tumortrace.errors import RunError
from tumortrace.training import experiment, trial
from tumortrace.training import tune as tuning
from tumortrace.training.space import Space, parse_space
from tumortrace.training.study import claimed, count, join, open_study
from tumortrace.training.study_place import DatabasePlace, JournalPlace, Place, place_of
from tumortrace.training.tune import resume_tuning, tune

SECRET = "s3cret-word"
SPACE: dict[str, Any] = {
    "name": "small",
    "description": "d",
    "recipe": "tumortrace",
    "trials": 2,
    "epochs": 1,
    "objective": {"metric": "loss"},
    "sampler": {"name": "random"},
    "parameters": {"optimiser.lr": {"float": [0.001, 0.03], "log": True}},
}
# Claims a trial, draws and reports, and waits to be killed.
AT_WORK = """
import sys, time
from tumortrace.training.space import load_space
from tumortrace.training.study import claimed, open_study
from tumortrace.training.study_place import place_of
place, space = place_of(sys.argv[1], "small", None), load_space(sys.argv[2])
study = open_study(place, space, 0, 9)
with claimed(study, place, 2) as trial:
    space.suggest(trial)
    trial.report(0.5, 1)
    print(trial.number, flush=True)
    time.sleep(600)
"""
PROGRAMS = Path("/usr/lib/postgresql")


@pytest.fixture(scope="session")
def server() -> Iterator[str]:
    """URL of a PostgreSQL server on the loopback, of a user with a password."""
    pytest.importorskip("psycopg", reason="psycopg is not installed: pip install 'tumortrace[postgres]'")
    newest = max(PROGRAMS.glob("*/bin/initdb"), default=None)
    if newest is None:
        pytest.skip("PostgreSQL is not installed: apt-get install postgresql")
    home = Path(tempfile.mkdtemp(prefix="postgres"))
    (home / "password").write_text(SECRET)
    as_user: list[str] = []
    if os.geteuid() == 0:  # as whom it refuses to run
        as_user = ["runuser", "-u", "postgres", "--"]
        for path in (home, home / "password"):
            shutil.chown(path, "postgres")
    port = 40_000 + os.getpid() % 20_000
    made = [newest, "-D", home / "data", "-U", "ada", "-A", "scram-sha-256", "--pwfile", home / "password", "-N"]
    subprocess.run([*as_user, *made], check=True, stdout=subprocess.DEVNULL, cwd=home)
    settings = f"-c listen_addresses=127.0.0.1 -c port={port} -c unix_socket_directories={home} -c fsync=off"
    control: list[Any] = [*as_user, newest.with_name("pg_ctl"), "-D", home / "data", "-w"]
    subprocess.run([*control, "-l", home / "log", "-o", settings, "start"], check=True, stdout=subprocess.DEVNULL)
    try:
        yield f"postgresql://ada:{SECRET}@127.0.0.1:{port}/postgres"
    finally:
        subprocess.run([*control, "-m", "immediate", "stop"], check=False, stdout=subprocess.DEVNULL)
        shutil.rmtree(home)


@pytest.fixture(params=["journal", "postgresql"])
def storage(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """What `--storage` names; nothing is in it."""
    if request.param == "journal":
        yield str(tmp_path / "shared.journal")
        return
    url = request.getfixturevalue("server")
    import psycopg

    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE study{os.getpid()}")
        yield url.replace("/postgres", f"/study{os.getpid()}")
        connection.execute(f"DROP DATABASE study{os.getpid()} WITH (FORCE)")


@pytest.fixture
def space_file(tmp_path: Path) -> Path:
    (tmp_path / "base.yaml").write_text(yaml.safe_dump(BASE))
    (tmp_path / "small.yaml").write_text(yaml.safe_dump(SPACE | {"recipe": str(tmp_path / "base.yaml")}))
    return tmp_path / "small.yaml"


@pytest.fixture
def space(space_file: Path) -> Space:
    return parse_space(yaml.safe_load(space_file.read_text()), "test")


def test_a_worker_that_is_killed_leaves_its_trial_to_another(storage: str, space: Space, space_file: Path) -> None:
    """Killed without warning, its trial is nobody else's before, and then the next one's, with its draws."""
    place = place_of(storage, "small", Path())
    study = open_study(place, space, 0, 9)
    program = [sys.executable, "-c", AT_WORK, storage, str(space_file)]
    with subprocess.Popen(program, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "0\n"
        with claimed(study, place, 2) as taken, claimed(study, place, 2) as none:
            assert taken is not None
            assert taken.number == 1, "the one at work keeps its own"
            assert none is None, "all that are wanted have been begun"
            study.tell(taken, 0.1)
        with claimed(study, place, 2) as none:
            assert none is None
        other.send_signal(signal.SIGKILL)
        other.wait()
    drawn = study.trials[0].params
    for _ in range(100):  # a server notices that a connection has ended when it comes to it
        with claimed(study, place, 2) as taken:
            if taken is not None:
                assert taken.number == 0
                assert space.suggest(taken) == drawn
                study.tell(taken, 0.2)
                break
    assert count(study) == {"finished": 2, "pruned": 0, "failed": 0, "unfinished": 0}
    assert study.trials[0].user_attrs["interrupted_at"] == [1]


def test_machines_search_together(
    tissue: Path, space_file: Path, storage: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second of two goes on with the count of the first; each has all trials, the best recipe and its metrics.

    A study of something else is refused in a line, and no password is written anywhere.
    """
    monkeypatch.setattr(experiment, "renew_report", lambda folder: None)
    shared = {"space": space_file, "storage": storage}
    values = iter((0.2, 0.4))  # the first machine's trial is the best
    monkeypatch.setattr(trial.Search, "value", lambda search, row: next(values, 0.4))
    first = tune(tissue, out=tmp_path / "a", trials=1, **shared)  # type: ignore[arg-type]
    values = iter((0.7,) * 9)
    monkeypatch.setattr(trial.Search, "value", lambda search, row: next(values))
    second = tune(tissue, out=tmp_path / "b", trials=2, **shared)  # type: ignore[arg-type]
    tables = [pd.read_csv(folder / "trials.csv") for folder in (first, second)]
    assert [table["number"].tolist() for table in tables] == [[0], [0, 1]]
    assert (second / "metrics.json").read_text() == (first / "metrics.json").read_text(), "of trial 0 in both"
    best = [yaml.safe_load((folder / "best.yaml").read_text()) for folder in (first, second)]
    assert best[0]["optimiser"] == best[1]["optimiser"]
    assert sorted(path.name for path in second.glob("trials/*/predictions.csv")) == ["predictions.csv"]
    assert len(pd.read_csv(second / "trials" / "0000" / "history.csv")) == 1, "the other's, for the report"
    assert json.loads((second / "run.json").read_text())["status"] == "finished"

    with pytest.raises(RunError, match=r"another splits and another seed.*--study NAME") as caught:
        tune(tissue, out=tmp_path / "c", seed=5, **shared)  # type: ignore[arg-type]
    assert "\n" not in str(caught.value)
    assert not list((tmp_path / "c").iterdir()), "nothing is left behind"
    for path in (path for folder in "abc" for path in (tmp_path / folder).rglob("*") if path.is_file()):
        assert SECRET.encode() not in path.read_bytes(), path


def test_trials_of_others_are_waited_for_and_taken_up(
    tissue: Path, space_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With nothing left to begin, a worker waits for a trial of another; when that one ends, it makes it anew."""
    monkeypatch.setattr(experiment, "renew_report", lambda folder: None)
    storage, waits = tmp_path / "shared.journal", []
    calls = {"space": space_file, "storage": str(storage), "trials": 1, "out": tmp_path / "runs"}
    monkeypatch.setattr(tuning, "_carry_out", lambda whole, *_: whole.run.folder)
    folder = tune(tissue, **calls)  # type: ignore[arg-type]
    monkeypatch.undo()
    monkeypatch.setattr(experiment, "renew_report", lambda folder: None)
    place = JournalPlace(storage, "small")
    study = open_study(place, parse_space(yaml.safe_load(space_file.read_text()), ""), 0, 1)
    other = claimed(study, place, 1)
    assert other.__enter__() is not None

    def wait(seconds: float) -> None:
        waits.append(seconds)
        other.__exit__(None, None, None)  # as when its process ends

    monkeypatch.setattr(tuning.time, "sleep", wait)
    resume_tuning(folder)
    assert waits == [tuning.WAIT]
    assert pd.read_csv(folder / "trials.csv")[["number", "interruptions"]].to_numpy().tolist() == [[0, 1]]
    assert "left by a process that ended" in (folder / "log.txt").read_text()


def test_a_trial_made_anew_is_not_judged_by_epochs_to_come() -> None:
    """Its epochs up to the last that was reported have been judged already, and the last does not end it."""

    class Reported:
        """A trial of which three epochs are told, and which would be pruned."""

        storage, _trial_id = property(lambda self: self), 0
        intermediate_values, last_step, asked = {1: 0.1, 2: 0.1, 3: 0.1}, 3, 0

        def get_trial(self, number: int) -> Reported:
            return self

        def should_prune(self) -> bool:
            self.asked += 1
            return True

    reported: Any = Reported()
    judge = trial._Judge(None, reported, 9)  # type: ignore[arg-type]
    assert [judge({"epoch": epoch}) for epoch in (1, 2, 3)] == [False, False, True]
    assert reported.asked == 1


def test_a_line_that_a_kill_has_torn_is_cut_off(space: Space, tmp_path: Path) -> None:
    """A journal whose last line is half written is read and written on, and read again by others."""
    place = JournalPlace(tmp_path / "shared.journal", "small")
    open_study(place, space, 0, 9).tell(open_study(place, space, 0, 9).ask(), 0.5)
    with open(tmp_path / "shared.journal", "ab") as journal:
        journal.write(b'{"op_code": 4, "wor')
    open_study(place, space, 0, 9).tell(open_study(place, space, 0, 9).ask(), 0.6)
    assert [trial.value for trial in open_study(place, space, 0, 9).trials] == [0.5, 0.6]


def test_what_is_asked_of_a_shared_study_is_compared_by_name(space: Space, tmp_path: Path) -> None:
    """The first says what it is of; the same is let in, and what differs is named."""
    place: Place = JournalPlace(tmp_path / "shared.journal", "small")
    for _ in range(2):
        join(open_study(place, space, 0, 9), place, {"recipe": {"lr": 1}, "data": "a", "seed": 0})
    with pytest.raises(RunError, match=r"has another recipe and another data; expected the same"):
        join(open_study(place, space, 0, 9), place, {"recipe": {"lr": 2}, "data": "b", "seed": 0})


@pytest.mark.parametrize(
    ("storage", "told"),
    [
        ("mysql://ada:s3cret-word@h/d", "--storage mysql; expected the path of a journal file, or postgresql://"),
        ("postgresql://ada:s3cret-word@h:port/d", "--storage is no URL"),
        ("{folder}/none/a.journal", "no journal (No such file or directory)"),
        ("{folder}/notes.txt", "a file that is no journal"),
    ],
)
def test_a_storage_that_is_none_is_one_line(
    storage: str, told: str, tissue: Path, space_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Nothing is begun, and no password is repeated."""
    (tmp_path / "notes.txt").write_text("lr 0.1 was good\n")
    named = storage.format(folder=tmp_path)
    call = ["tune", str(tissue), "--space", str(space_file), "--storage", named, "-o", str(tmp_path / "runs")]
    assert command(call) == 1
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert told in line
    assert SECRET not in line
    assert not (tmp_path / "runs").exists()


def test_a_server_that_is_not_there_is_one_line() -> None:
    """It says what to do, and not the password; where it stands in the URL's query, it is taken from there too."""
    pytest.importorskip("psycopg", reason="psycopg is not installed: pip install 'tumortrace[postgres]'")
    place = DatabasePlace(f"postgresql://ada@127.0.0.1:9/lab?password={SECRET}&sslmode=disable", "small")
    assert place.told == "postgresql://ada@127.0.0.1:9/lab?sslmode=disable"
    assert vars(pickle.loads(pickle.dumps(place))) == vars(place), "workers are told the password"  # noqa: S301
    with pytest.raises(RunError, match=r"the server cannot be used \(.*refused.*PGPASSWORD") as caught:
        place.storage()
    assert "\n" not in str(caught.value)
    assert SECRET not in str(caught.value)


def test_without_the_driver_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """`pip install` of what is missing."""
    monkeypatch.setitem(sys.modules, "psycopg", None)
    with pytest.raises(Exception, match=r"tumortrace\[postgres\]"), suppress(ValueError):
        DatabasePlace("postgresql://ada@h/lab", "small").storage()
