"""What the workers of these tests do; it imports little, so that they are soon there."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

from tumortrace.errors import RunError, SlideError
from tumortrace.records.progress import say
from tumortrace.work.worker import Tell


class OddError(SlideError):
    """Made of other arguments than its line."""

    def __init__(self, names: list[str], where: object = None) -> None:
        self.names = names
        super().__init__(f"classes {names}", where=where, remedy="say what they mean")


def twice(folder: Path, piece: int, tell: Tell) -> tuple[int, int]:
    """Stands for work: what a piece should be depends on its number."""
    tell(0, 2)
    if piece == 1:
        time.sleep(0.3)  # others are done before it
    if piece == 3:
        raise OddError(["tumour?"], folder / "3")
    if piece == 4 and not (file := folder / "killed").exists():
        file.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    if piece == 5:
        say("a line")
    if piece == 6:
        raise ValueError("no fault of the piece")
    if piece == 7:
        os.kill(os.getpid(), signal.SIGKILL)
    if piece == 8:
        signal.raise_signal(signal.SIGINT)
    (folder / str(piece)).write_text(f"{piece}")
    return 2 * piece, os.getpid()


def at(folder: Path) -> Path:
    return folder


def refused(folder: Path) -> Path:
    raise RunError("nothing to begin with", where=folder)


def waiting(folder: Path, piece: int, tell: Tell) -> None:
    """Tells its process, and waits to be ended; then puts its things in order."""
    try:
        (folder / f"{piece}.pid").write_text(str(os.getpid()))
        time.sleep(60)
    finally:
        (folder / f"{piece}.ended").touch()
