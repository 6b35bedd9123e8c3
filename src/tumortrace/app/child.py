"""How the server starts its processes that read, decode and scan."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping

_KEPT = ("PATH", "SYSTEMROOT", "LANG")


def command(module: str) -> list[str]:
    """The command that runs a module of ours, whatever files the folder has in which the server was started.

    Example:
        >>> command("tumortrace.app.decoder_process")[1:]
        ['-P', '-m', 'tumortrace.app.decoder_process']
    """
    return [sys.executable, "-P", "-m", module]


def bare_environment() -> dict[str, str]:
    """For a process that opens what was uploaded: it knows no token, and computes with one thread."""
    kept = {name: os.environ[name] for name in _KEPT if name in os.environ}
    return _importing(kept | {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"})


def environment_without(name: str) -> dict[str, str]:
    """The server's own environment but for one variable."""
    return _importing({key: value for key, value in os.environ.items() if key != name})


def _importing(environment: Mapping[str, str]) -> dict[str, str]:
    """It imports what the server imports, from the same places; a blank one is the folder of the start."""
    return {**environment, "PYTHONPATH": os.pathsep.join(place for place in sys.path if place)}
