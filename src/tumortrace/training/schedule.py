"""Learning rate as a pure function of the step, so that a resumed run needs no state for it."""

from __future__ import annotations

import math

from tumortrace.training.recipe import Schedule


def learning_rate(schedule: Schedule, peak: float, step: int, steps: int) -> float:
    """Learning rate at `step` (from 0) of `steps`.

    `one_cycle` rises from peak / 25 along a cosine during the warm-up and falls to peak / 10,000 along another.

    Example:
        >>> cycle = Schedule(name="one_cycle", warmup=0.5)
        >>> [round(learning_rate(cycle, 1.0, step, 5), 4) for step in range(5)]
        [0.04, 0.52, 1.0, 0.5, 0.0001]
    """
    if schedule.name == "constant":
        return peak
    position = step / max(1, steps - 1)
    if position < schedule.warmup:
        return _cosine(peak / 25, peak, position / schedule.warmup)
    return _cosine(peak, peak / 10_000, (position - schedule.warmup) / (1 - schedule.warmup))


def _cosine(start: float, end: float, share: float) -> float:
    return end + (start - end) * (1 + math.cos(math.pi * share)) / 2
