"""Learning rate as a pure function of the step and of the history, so that a resumed run needs no state for it."""

from __future__ import annotations

import math
from collections.abc import Sequence

from tumortrace.training.options import FALLING, Schedule


def learning_rate(
    schedule: Schedule, peak: float, step: int, steps: int, *, epoch: int = 0, watched: Sequence[float | None] = ()
) -> float:
    """Learning rate at `step` (from 0) of the `steps` of a stage.

    `one_cycle` rises from peak / 25 along a cosine during the warm-up and falls to peak / 10,000 along another; the
    others rise in a straight line.

    Args:
        schedule: Which one.
        peak: Learning rate at its peak.
        step: Steps of the stage so far.
        steps: Steps that the stage takes at most.
        epoch: Epochs of the stage so far.
        watched: `schedule.metric` on validation after each of them.

    Example:
        >>> cycle = Schedule(name="one_cycle", warmup=0.5)
        >>> [round(learning_rate(cycle, 1.0, step, 5), 4) for step in range(5)]
        [0.04, 0.52, 1.0, 0.5, 0.0001]
        >>> learning_rate(Schedule(name="step", every=2, factor=0.5), 1.0, 0, 5, epoch=4)
        0.25
    """
    position = step / max(1, steps - 1)
    warmup = schedule.warmup if schedule.warmup is not None else 0.25 if schedule.name == "one_cycle" else 0.0
    if schedule.name == "one_cycle":
        if position < warmup:
            return _cosine(peak / 25, peak, position / warmup)
        return _cosine(peak, peak / 10_000, (position - warmup) / (1 - warmup))
    if position < warmup:
        return peak * (step + 1) / (warmup * max(1, steps - 1) + 1)
    if schedule.name == "cosine":
        return _cosine(peak, min(peak, schedule.floor), (position - warmup) / (1 - warmup))
    if schedule.name == "step":
        return max(peak * schedule.factor ** (epoch // schedule.every), min(peak, schedule.floor))
    if schedule.name == "plateau":
        return _plateau(schedule, peak, watched)
    return peak


def _plateau(schedule: Schedule, peak: float, watched: Sequence[float | None]) -> float:
    """As torch's ReduceLROnPlateau does with `threshold=0`, replayed over the epochs so far."""
    sign = 1.0 if schedule.metric in FALLING else -1.0
    rate, best, waited = peak, math.inf, 0
    for value in watched:
        error = math.inf if value is None else sign * value
        if error < best:
            best, waited = error, 0
            continue
        waited += 1
        if waited > schedule.patience:
            rate, waited = max(rate * schedule.factor, min(peak, schedule.floor)), 0
    return rate


def _cosine(start: float, end: float, share: float) -> float:
    return end + (start - end) * (1 + math.cos(math.pi * share)) / 2
