"""What a worker is, wherever it runs: it begins once, then carries out one piece after the other and tells of it."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import redirect_stderr
from dataclasses import dataclass
from io import TextIOBase
from typing import Any, Protocol

from tumortrace.errors import RunError, TumorTraceError

Tell = Callable[[int, int], object]
"""Called with what is done of a piece, and all of it."""

REFUSALS = (TumorTraceError, OSError)
"""What keeps a piece from being carried out, and the others not."""

ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")


class LostError(Exception):
    """A worker has ended in the middle of a piece; says how."""


@dataclass(frozen=True)
class Done:
    """A progress."""

    done: int
    total: int


@dataclass(frozen=True)
class Ended:
    """The end of a piece: its result, or the error; a `fatal` one would meet every piece."""

    result: Any = None
    error: Exception | None = None
    fatal: bool = False


Message = Done | str | Ended
"""What a worker tells of a piece: how far it is, a line for the user, at last its end."""


class Worker(Protocol):
    """One of those that carry out pieces, as who divides the work sees it."""

    def start(self) -> None:
        """Be there: start it, where it has not been or was lost.

        Raises:
            LostError: It cannot be started, or is closed.
        """
        ...

    def answer(self, piece: Any) -> Iterator[Message]:
        """What it tells of a piece; the last is its end.

        Raises:
            LostError: It has ended.
        """
        ...

    def close(self) -> None:
        """End it, from any thread; whoever waits for its answer has lost it."""
        ...


class Attendant:
    """The worker's own side, in a process of its own.

    Args:
        begin: Makes what all pieces share, such as a loaded model.
        do: Carries out a piece.
        folder: Where the caller stands, since paths may be relative to it.
    """

    def __init__(self, begin: Callable[[], Any], do: Callable[[Any, Any, Tell], Any], folder: str) -> None:
        self._begin, self._do, self._folder = begin, do, folder
        self._shared: tuple[Any] | None = None

    def __call__(self, piece: Any, send: Callable[[Message], object]) -> None:
        """Carry out a piece; what is said meanwhile on standard error goes to the caller, line by line."""
        with redirect_stderr(_Lines(send)):
            if self._shared is None:
                try:
                    self._shared = (self._start(),)
                except Exception as error:
                    send(Ended(error=error, fatal=True))
                    return
            try:
                send(Ended(self._do(self._shared[0], piece, lambda done, total: send(Done(done, total)))))
            except Exception as error:
                send(Ended(error=error, fatal=not isinstance(error, REFUSALS)))

    def _start(self) -> Any:
        try:
            os.chdir(self._folder)
        except OSError as error:
            raise RunError(
                "a worker's machine does not see this folder",
                where=self._folder,
                expected="the same folders on all machines",
                remedy="work in a folder of a shared file system",
            ) from error
        return self._begin()


class _Lines(TextIOBase):
    def __init__(self, send: Callable[[Message], object]) -> None:
        self._send, self._begun = send, ""

    def write(self, text: str) -> int:
        *lines, self._begun = (self._begun + text).split("\n")
        for line in lines:
            self._send(line)
        return len(text)
