"""The Muon optimiser in float32.

torch's and timm's compute the orthogonalisation in bfloat16, which CPUs without bfloat16 hardware emulate some
hundred times slower: over a second a step for the default network.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

# Coefficients and number of steps of the Newton-Schulz iteration in Jordan's description of Muon.
COEFFICIENTS, STEPS = (3.4445, -4.7750, 2.0315), 5


class Muon(torch.optim.Optimizer):
    """Momentum, orthogonalised by Newton-Schulz iteration, for matrices and convolutions; AdamW for vectors.

    A step of an (m, n) matrix is scaled by 0.2 sqrt(max(m, n)), the usual size of AdamW's steps, so that AdamW's
    learning rates and weight decays carry over (Liu et al. 2025, "Muon is scalable for LLM training").
    Convolutions count as matrices of one row per output channel. Jordan (2024), "Muon: an optimizer for hidden
    layers in neural networks".

    Args:
        params: Parameters or parameter groups.
        lr: Learning rate.
        weight_decay: Decoupled weight decay.
        momentum: Momentum (Nesterov) of matrices, in [0, 1).
        betas: Decay of the first and second moments of vectors, in [0, 1).
    """

    def __init__(
        self,
        params: Any,
        lr: float = 1e-3,
        weight_decay: float = 0.0,
        momentum: float = 0.9,
        betas: tuple[float, float] = (0.9, 0.95),
    ) -> None:
        super().__init__(params, {"lr": lr, "weight_decay": weight_decay, "momentum": momentum, "betas": betas})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """Take one step; `closure` is evaluated first where it is given."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            for parameter in group["params"]:
                gradient = parameter.grad
                if gradient is None:
                    continue
                parameter.mul_(1 - group["lr"] * group["weight_decay"])
                direction = _matrix_step if parameter.ndim > 1 and len(parameter) > 1 else _vector_step
                parameter.sub_(direction(gradient, self.state[parameter], group), alpha=group["lr"])
        return loss


def orthogonalise(matrix: Tensor) -> Tensor:
    """The nearest matrix with orthonormal rows or columns, roughly: singular values come out between .6 and 1.3.

    Example:
        >>> values = torch.linalg.svdvals(orthogonalise(torch.diag(torch.tensor([9.0, 3.0, 1.0]))))
        >>> bool(values.min() > 0.5 and values.max() < 1.4)
        True
    """
    a, b, c = COEFFICIENTS
    tall = matrix.shape[0] > matrix.shape[1]
    x = (matrix.T if tall else matrix) / (matrix.norm() + 1e-7)
    for _ in range(STEPS):
        square = x @ x.T
        x = a * x + (b * square + c * square @ square) @ x
    return x.T if tall else x


def _matrix_step(gradient: Tensor, state: dict[str, Tensor], group: dict[str, Any]) -> Tensor:
    if not state:
        state["momentum"] = torch.zeros_like(gradient)
    momentum = state["momentum"].lerp_(gradient, 1 - group["momentum"])
    nesterov = gradient.lerp(momentum, group["momentum"]).reshape(len(gradient), -1)
    scale = 0.2 * max(nesterov.shape) ** 0.5
    return (scale * orthogonalise(nesterov)).view_as(gradient)


def _vector_step(gradient: Tensor, state: dict[str, Tensor], group: dict[str, Any]) -> Tensor:
    if not state:
        state["step"] = torch.zeros((), dtype=torch.float64)
        state["first"], state["second"] = torch.zeros_like(gradient), torch.zeros_like(gradient)
    beta1, beta2 = group["betas"]
    state["step"] += 1
    count = float(state["step"])
    first = state["first"].lerp_(gradient, 1 - beta1)
    second = state["second"].lerp_(gradient.square(), 1 - beta2)
    return first / (1 - beta1**count) / ((second / (1 - beta2**count)).sqrt() + 1e-8)
