"""Where a training stands, and whether it is getting better."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from tumortrace.training.options import FALLING, Stopping


@dataclass
class Progress:
    """Where a training stands; all of it goes into the checkpoint as JSON.

    Attributes:
        stage: Which stage, from 0.
        stage_epoch: Finished epochs of the stage.
        epoch: Finished epochs of all stages.
        step: Steps of the epoch so far.
        loss_sum: Loss of the epoch so far, summed over its images.
        seconds: Of the epoch so far.
        best_epoch: From 1; 0 before the first.
        best_value: Of the metric that stops.
        history: One row per epoch.
    """

    stage: int = 0
    stage_epoch: int = 0
    epoch: int = 0
    step: int = 0
    loss_sum: float = 0.0
    seconds: float = 0.0
    best_epoch: int = 0
    best_value: float | None = None
    history: list[dict[str, Any]] = field(default_factory=list)


def improves(value: float | None, best: float | None, stopping: Stopping) -> bool:
    """Whether a value of the stopping metric beats the best so far; None is an undefined one."""
    if value is None:  # undefined on this validation split: the first epoch counts
        return best is None
    if best is None:
        return True
    gain = best - value if stopping.metric in FALLING else value - best
    return gain > stopping.least_improvement
