"""The Muon optimiser against linear algebra and against PyTorch's AdamW."""

from __future__ import annotations

import pytest
import torch

from tumortrace.training.optimiser import Muon, orthogonalise


@pytest.mark.parametrize("shape", [(16, 48), (48, 16), (20, 20)])
def test_orthogonalise_points_where_the_polar_factor_does(shape: tuple[int, int]) -> None:
    """The result has the singular vectors of the matrix and singular values near one."""
    matrix = torch.randn(shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    u, _, v = torch.linalg.svd(matrix, full_matrices=False)
    found = orthogonalise(matrix)
    values = u.T @ found @ v.T
    torch.testing.assert_close(values - torch.diag(values.diagonal()), torch.zeros_like(values), atol=1e-9, rtol=0)
    assert 0.5 < values.diagonal().min() <= values.diagonal().max() < 1.4


def test_vectors_take_adamw_steps() -> None:
    """Biases and norms move exactly as under torch.optim.AdamW with the same moments."""
    ours, reference = (torch.nn.Parameter(torch.linspace(-1, 1, 7)) for _ in range(2))
    muon = Muon([ours], lr=0.01, weight_decay=0.1)
    adamw = torch.optim.AdamW([reference], lr=0.01, weight_decay=0.1, betas=(0.9, 0.95), eps=1e-8)
    for step in range(5):
        for parameter, optimiser in ((ours, muon), (reference, adamw)):
            optimiser.zero_grad()
            ((parameter - step) ** 3).sum().backward()
            optimiser.step()
    torch.testing.assert_close(ours, reference)


def test_convolutions_step_by_the_usual_size() -> None:
    """Whatever the gradient's scale, a step's root mean square is about 0.2 learning rates, and decay is decoupled."""
    for scale in (1e-4, 1e4):
        parameter = torch.nn.Parameter(torch.ones(32, 16, 3, 3))
        gradient = scale * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(0))
        parameter.grad = gradient
        Muon([parameter], lr=0.01, weight_decay=0.5).step()
        moved = (parameter.detach() - 0.995) / 0.01
        assert moved.square().mean().sqrt().item() == pytest.approx(0.2, rel=0.25)
        assert (moved * gradient).sum() < 0


def test_it_reaches_the_solution_of_a_least_squares_problem() -> None:
    """With a falling rate, a linear map is recovered."""
    generator = torch.Generator().manual_seed(0)
    wanted, inputs = torch.randn(6, 10, generator=generator), torch.randn(200, 10, generator=generator)
    weight = torch.nn.Parameter(torch.zeros(6, 10))
    optimiser = Muon([weight])
    for step in range(300):
        for group in optimiser.param_groups:
            group["lr"] = 0.3 * (1 - step / 300)
        optimiser.zero_grad()
        ((inputs @ (weight - wanted).T) ** 2).mean().backward()
        optimiser.step()
    assert (weight - wanted).abs().max() < 0.01
