"""How far many pieces of work are, and how long they will still take, by what is done of each."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

from tumortrace.records.progress import progress_bar

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID


class Pace:
    """What is done of all pieces, such as tiles of slides; pieces not yet begun count as those begun do on average.

    Args:
        names: Of the pieces.
        title: What is being done with them.

    Example:
        >>> pace = Pace(["a", "b", "c"], "scanning")
        >>> for number, tiles in enumerate((10, 30)):
        ...     pace.tell(number, 0, tiles, tiles)
        >>> pace.done, pace.expected
        (40, 60)
    """

    def __init__(self, names: Sequence[str], title: str) -> None:
        self._names, self._title = names, title
        self._begun: dict[int, tuple[int, int]] = {}
        self._ended: set[int] = set()
        self._bar: Progress | None = None
        self._tasks: dict[int, TaskID] = {}
        self._lock = threading.Lock()

    @property
    def done(self) -> int:
        """Of all pieces."""
        return sum(done for done, _ in self._begun.values())

    @property
    def expected(self) -> int:
        """Of all pieces, those not begun estimated."""
        known = sum(total for _, total in self._begun.values())
        return round(known * len(self._names) / len(self._begun)) if self._begun else 0

    @contextmanager
    def shown(self) -> Iterator[None]:
        """A bar over all pieces, and above it one for what each worker does, until the context is left."""
        with progress_bar() as self._bar:
            yield
        self._bar = None

    def tell(self, number: int, seat: int, done: int, total: int) -> None:
        """Put down how far a piece is.

        Args:
            number: Of the piece.
            seat: Number of the worker who does it; 0 is this process.
            done: Of the piece.
            total: All of it.
        """
        with self._lock:
            self._begun[number] = (done, total)
            if seat:
                self._show(seat, f"worker {seat}: {self._names[number]}", done, total)
            self._show(0, self._headline(number, seat), self.done, self.expected)

    def end(self, number: int, seat: int = 0) -> None:
        """Put down that a piece has ended: one that told nothing counts as 1, one that was not finished as nothing."""
        with self._lock:
            self._ended.add(number)
            done, total = self._begun.get(number, (1, 1))
            self._begun[number] = (done, total) if done >= total else (0, 0)
            self._show(0, self._headline(number, seat), self.done, self.expected)

    def _headline(self, number: int, seat: int) -> str:
        if len(self._names) == 1:
            return f"{self._title} {self._names[0]}"
        if seat:
            return f"{self._title}: {len(self._ended)} of {len(self._names)} done"
        return f"{self._title} {number + 1} of {len(self._names)}, {self._names[number]}"

    def _show(self, seat: int, told: str, done: int, total: int) -> None:
        if self._bar is None:
            return
        if seat not in self._tasks:
            self._tasks[seat] = self._bar.add_task(told)
        self._bar.update(self._tasks[seat], description=told, completed=done, total=total)
