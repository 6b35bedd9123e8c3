"""How far a scan of several slides is, and how long it will still take, by the tiles of tissue that are done."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from tumortrace.records.progress import progress_bar
from tumortrace.slides.assess import Progress


class Pace:
    """Tiles done, and how many there will be: slides not yet begun count as those begun do on average.

    Args:
        slides: Number of slides.

    Example:
        >>> pace = Pace(3)
        >>> for tiles in (10, 30):
        ...     with pace.slide("a") as progress:
        ...         progress(tiles, tiles)
        >>> pace.done, pace.expected
        (40, 60)
    """

    def __init__(self, slides: int) -> None:
        self.slides = slides
        self._begun: list[tuple[int, int]] = []

    @property
    def done(self) -> int:
        """Tiles of all slides that are done."""
        return sum(done for done, _ in self._begun)

    @property
    def expected(self) -> int:
        """Tiles of all slides, those not begun estimated."""
        known = sum(total for _, total in self._begun)
        return round(known * self.slides / len(self._begun)) if self._begun else 0

    @contextmanager
    def slide(self, name: str) -> Iterator[Progress]:
        """A bar over all slides while this one is scanned; yields what `scan` calls with its tiles done and all."""
        number = len(self._begun)
        self._begun.append((0, 0))
        label = f"scanning {name}" if self.slides == 1 else f"slide {number + 1} of {self.slides}, {name}"
        with progress_bar() as bar:
            task = bar.add_task(label, total=None)

            def progress(done: int, total: int) -> None:
                self._begun[number] = (done, total)
                bar.update(task, completed=self.done, total=self.expected)

            yield progress
        if self._begun[number][0] < self._begun[number][1]:
            self._begun[number] = (0, 0)
