"""Learning rates by hand and against PyTorch's own schedule."""

from __future__ import annotations

import itertools

import pytest
import torch

from tumortrace.training.options import Schedule
from tumortrace.training.stage import learning_rate


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


def test_step_agrees_with_pytorch() -> None:
    """Times the factor every so many epochs, as torch.optim.lr_scheduler.StepLR, but not below the floor."""
    schedule = Schedule(name="step", every=3, factor=0.1, floor=1e-5)
    optimiser = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.01)
    reference = torch.optim.lr_scheduler.StepLR(optimiser, 3, 0.1)
    for epoch in range(14):
        found = learning_rate(schedule, 0.01, epoch * 5, 70, epoch=epoch)
        assert found == pytest.approx(max(reference.get_last_lr()[0], 1e-5), rel=1e-9)
        optimiser.step()
        reference.step()


def test_cosine_agrees_with_pytorch() -> None:
    """Half a cosine from the peak to the floor, as CosineAnnealingLR."""
    optimiser = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.3)
    reference = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, 20, eta_min=0.01)
    for step in range(21):
        found = learning_rate(Schedule(name="cosine", floor=0.01), 0.3, step, 21)
        assert found == pytest.approx(reference.get_last_lr()[0], rel=1e-6)
        optimiser.step()
        reference.step()


@pytest.mark.parametrize(("metric", "mode"), [("loss", "min"), ("f1", "max")])
def test_plateau_agrees_with_pytorch(metric: str, mode: str) -> None:
    """Replayed over a history, the rate is that of ReduceLROnPlateau after each epoch."""
    values = [0.5, 0.6, 0.6, 0.55, 0.7, 0.4, 0.41, 0.42, 0.43, 0.44, 0.3, 0.3, 0.3, 0.3, 0.3]
    schedule = Schedule(name="plateau", factor=0.2, patience=2, floor=1e-3, metric=metric)  # type: ignore[arg-type]
    optimiser = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.1)
    reference = torch.optim.lr_scheduler.ReduceLROnPlateau(
        optimiser,
        mode,
        factor=0.2,
        patience=2,
        threshold=0.0,
        min_lr=1e-3,  # type: ignore[arg-type]
    )
    for epoch, value in enumerate(values):
        assert learning_rate(schedule, 0.1, 0, 9, watched=values[:epoch]) == pytest.approx(
            optimiser.param_groups[0]["lr"], rel=1e-9
        )
        optimiser.step()
        reference.step(value)


def test_warm_up_rises_in_a_straight_line_to_the_peak() -> None:
    """Eleven steps, half of them warm-up: equal increments, then the schedule."""
    rates = [learning_rate(Schedule(warmup=0.5), 1.0, step, 11) for step in range(11)]
    increments = [b - a for a, b in itertools.pairwise(rates[:6])]
    assert increments == pytest.approx([1 / 6] * 5)
    assert rates[5:] == [1.0] * 6
