"""A Ray cluster carries out pieces as this process does; one that cannot be had is refused in one line."""

from __future__ import annotations

import importlib.util
import os
import socket
import sys
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import pytest

from tests.work.doing import OddError, at, twice
from tumortrace.errors import MissingDependencyError, RunError
from tumortrace.work.cluster import actors
from tumortrace.work.hands import Hands
from tumortrace.work.pieces import carry_out, nothing
from tumortrace.work.worker import LostError

WITH_RAY = pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="Ray is not installed")


def refused(address: str) -> str:
    with pytest.raises((MissingDependencyError, RunError)) as refusal, actors(nothing, nothing, address, 1):
        pass
    return str(refusal.value)


def test_without_ray_it_is_told_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    """And that there is a way without it."""
    monkeypatch.setitem(sys.modules, "ray", None)
    line = "--cluster: Ray is not installed. What to do: pip install 'tumortrace[cluster]', or use --workers."
    assert refused("local") == line


def test_an_address_at_which_nobody_answers_is_named() -> None:
    """At once, where Ray itself would try for minutes."""
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))  # and does not listen
        address = f"127.0.0.1:{held.getsockname()[1]}"
        line = refused(address)
    assert line.startswith(f"--cluster {address}: nothing answers there (")
    assert "expected the head of a Ray cluster" in line


def test_a_cluster_that_does_not_start_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a busy machine Ray raises an error of no class of its own. It reports its use to nobody."""

    def init(**_: object) -> None:
        raise Exception("The current node timed out during startup.")

    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "1")
    monkeypatch.setitem(sys.modules, "ray", SimpleNamespace(init=init))
    assert refused("local").startswith("--cluster local: no Ray cluster (The current node timed out during startup.)")
    assert os.environ["RAY_USAGE_STATS_ENABLED"] == "0"


@pytest.mark.parametrize("there", [True, False])
def test_a_cluster_is_told_the_token_that_is_there(
    there: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ray tells it by itself for `auto` alone, and clusters that `ray start` makes ask for it, where there is one."""
    modes: list[str | None] = []

    def init(**_: object) -> None:
        modes.append(os.environ.get("RAY_AUTH_MODE"))
        raise ConnectionError("no")

    monkeypatch.setitem(sys.modules, "ray", SimpleNamespace(init=init))
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"):
        monkeypatch.setenv(name, "")  # so that it is as before afterwards
        monkeypatch.delenv(name)
    if there:
        (tmp_path / ".ray").mkdir()
        (tmp_path / ".ray" / "auth_token").write_text("secret")
    with socket.create_server(("127.0.0.1", 0)) as server:
        told = refused(f"127.0.0.1:{server.getsockname()[1]}")
    assert modes == ["token" if there else None]
    assert "put that here into ~/.ray/auth_token" in told


@WITH_RAY
def test_a_cluster_gives_what_one_process_gives(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """In the order of the pieces; refusals, a lost worker and what a worker says are told as by other workers."""
    told: list[object] = []
    pieces = [2, 3, 4, 5]
    places = [tmp_path / str(piece) for piece in pieces]
    carry_out(
        twice,
        pieces,
        lambda number, outcome: told.append((number, outcome)),
        begin=partial(at, tmp_path),
        places=places,
        title="",
        hands=Hands(cluster="local"),
    )
    numbers, (two, odd, four, five) = zip(*told, strict=True)  # type: ignore[misc]
    assert numbers == (0, 1, 2, 3)
    assert (two[0], four[0], five[0]) == (4, 8, 10)
    assert isinstance(odd, OddError)
    assert os.getpid() not in {two[1], four[1], five[1]}
    err = capsys.readouterr().err
    assert "a line\n" in err
    assert "4: its worker was lost (" in err


@WITH_RAY
def test_no_cluster_is_left_or_begun_afterwards(tmp_path: Path) -> None:
    """Neither by a worker that was still starting when the last piece was done, nor by one that is asked too late."""
    import ray

    with actors(twice, partial(at, tmp_path), "local", 1) as (worker,):
        worker.start()
    assert not ray.is_initialized()
    with pytest.raises(LostError):
        next(worker.answer(2))
    assert not ray.is_initialized()
