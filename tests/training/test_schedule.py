"""Learning rates by hand and against PyTorch's own schedule."""

from __future__ import annotations

import pytest
import torch

from tumortrace.training.recipe import Schedule
from tumortrace.training.schedule import learning_rate


def test_one_cycle_agrees_with_pytorch() -> None:
    """The same curve as torch.optim.lr_scheduler.OneCycleLR with its defaults, with the same end."""
    steps, peak = 41, 0.02
    optimiser = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=peak)
    reference = torch.optim.lr_scheduler.OneCycleLR(
        optimiser, peak, total_steps=steps, pct_start=11 / steps, final_div_factor=400
    )
    for step in range(steps):
        found = learning_rate(Schedule(name="one_cycle", warmup=0.25), peak, step, steps)
        assert found == pytest.approx(reference.get_last_lr()[0], rel=1e-6)
        optimiser.step()
        reference.step()


def test_constant() -> None:
    """A constant schedule is the peak at every step."""
    assert {learning_rate(Schedule(), 0.1, step, 9) for step in range(9)} == {0.1}
