"""Batches side by side, each computed by one thread, instead of one batch shared out by all cores.

The threads to which OpenMP shares out an operation wait for each other at its end. Of some hundred short operations a
step that costs a third of two idle cores, and nearly everything where another program keeps one of them busy: then all
wait for the last. Streams meet once a batch.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import TypeVar

import torch

Item = TypeVar("Item")
Result = TypeVar("Result")


class Streams:
    """Threads that compute side by side; none on an accelerator, which is one stream by itself. See `streams`.

    Args:
        pool: The threads, or None to compute in the calling one.
        count: How many.
    """

    def __init__(self, pool: ThreadPoolExecutor | None = None, count: int = 1) -> None:
        self.pool, self.count = pool, count

    def map(self, function: Callable[[Item], Result], items: Iterable[Item]) -> Iterator[Result]:
        """What the function makes of each item, in their order; items are taken as they are needed.

        Example:
            >>> with streams(torch.device("cpu")) as several:
            ...     list(several.map(lambda value: value**2, range(4)))
            [0, 1, 4, 9]
        """
        if self.pool is None:
            yield from map(function, items)
            return
        waiting: deque[Future[Result]] = deque()
        try:
            for item in items:
                waiting.append(self.pool.submit(function, item))
                if len(waiting) > self.count:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()


@contextmanager
def streams(device: torch.device, most: int | None = None) -> Iterator[Streams]:
    """As many streams as torch would use threads, or `most`, among which these are divided.

    Until the context is left the calling thread has one thread for its operations too, and on CPUs small numbers count
    as 0 (`small_as_zero`). Gradients, inference mode and autocast are each thread's own: what is mapped has to enter
    them by itself.
    """
    threads = torch.get_num_threads()
    count = min(threads, most or threads)
    if device.type != "cpu":
        yield Streams()
        return
    with small_as_zero():
        if count < 2:
            yield Streams()
            return
        pool = ThreadPoolExecutor(count, "stream", _begin, (max(1, threads // count),))
        try:
            list(pool.map(lambda _: None, range(count)))
            torch.set_num_threads(1)
            yield Streams(pool, count)
        finally:
            pool.shutdown(cancel_futures=True)
            torch.set_num_threads(threads)


@contextmanager
def small_as_zero() -> Iterator[None]:
    """Numbers too small for float32's usual form count as 0 in the calling thread.

    Processors compute with them a hundred times more slowly, and what an optimiser remembers of channels that have died
    decays through them.

    Example:
        >>> with small_as_zero():
        ...     (torch.tensor([1e-40]) * 1).item()
        0.0
    """
    before = (torch.tensor([1e-40]) * 1).item() == 0
    torch.set_flush_denormal(True)
    try:
        yield
    finally:
        torch.set_flush_denormal(before)  # whose process it is may count on them


def _begin(threads: int) -> None:
    """What each thread has to be told by itself."""
    torch.set_num_threads(threads)
    torch.set_flush_denormal(True)
