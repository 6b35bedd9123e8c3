"""A cluster that cannot be had is refused in one line, with or without Ray."""

from __future__ import annotations

import os
import socket
import sys
from types import SimpleNamespace

import pytest

from tumortrace.errors import MissingDependencyError, RunError
from tumortrace.work.cluster import actors
from tumortrace.work.pieces import nothing


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
    """On a busy machine Ray raises an error of no class of its own."""

    def init(**_: object) -> None:
        raise Exception("The current node timed out during startup.")

    monkeypatch.setitem(sys.modules, "ray", SimpleNamespace(init=init))
    assert refused("local").startswith("--cluster local: no Ray cluster (The current node timed out during startup.)")


def test_a_machine_of_no_cluster_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ray does not report its use to anybody, and whoever answers SIGTERM goes on doing so."""
    pytest.importorskip("ray", reason="Ray is not installed")
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "1")
    assert "no Ray cluster" in refused("auto")
    assert os.environ["RAY_USAGE_STATS_ENABLED"] == "0"
