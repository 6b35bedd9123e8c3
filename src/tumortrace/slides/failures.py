"""The end of a call on many slides: which of them failed, and with which exit code."""

from __future__ import annotations

from collections.abc import Sequence

from tumortrace.cohorts.findings import count
from tumortrace.records.progress import say


def say_failed(verb: str, done: str, failed: Sequence[str], slides: int) -> int:
    """Tell each failure again at the end, where it is not lost among the others; 1 where there is one.

    Args:
        verb: What was called.
        done: What could not be done: the slides "could not be `done`".
        failed: A line for each.
        slides: How many there are in all.
    """
    if failed:
        say(f"{verb}: {len(failed)} of {count(slides, 'slide')} could not be {done}:")
        for line in failed:
            say(f"  {line}")
    return int(bool(failed))
