"""Progress bars and the one line that each step ends with, on standard error."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Sized
from contextlib import contextmanager
from typing import TYPE_CHECKING, TypeVar

from tumortrace.errors import shortened

if TYPE_CHECKING:
    from rich.progress import Progress

T = TypeVar("T")


def say(line: str) -> None:
    """Print one line for the user on standard error, which leaves standard output to results."""
    print(shortened(line), file=sys.stderr, flush=True)


@contextmanager
def progress_bar(shown: bool = True) -> Iterator[Progress]:
    """A rich progress display on standard error that vanishes when done; silent where there is no terminal.

    Args:
        shown: False where whoever calls shows the progress itself.
    """
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True, disable=not (shown and console.is_terminal)) as bar:
        yield bar


def track(items: Iterable[T], description: str, total: int | None = None) -> Iterator[T]:
    """Yield `items` while showing how far one is.

    Example:
        >>> sum(track([1, 2, 3], "adding"))
        6
    """
    number = len(items) if total is None and isinstance(items, Sized) else total
    if number == 1 or not sys.stderr.isatty():  # of one step a bar says nothing, and rich takes a while to import
        yield from items
        return
    with progress_bar() as bar:
        yield from bar.track(items, total=total, description=description)
