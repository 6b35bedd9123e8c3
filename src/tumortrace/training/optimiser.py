"""Optimisers and averaged weights, built from a recipe's options."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import cache
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from tumortrace.models.streams import Streams
from tumortrace.training.options import Averaging, Optimiser

# Coefficients and number of steps of the Newton-Schulz iteration in Jordan's description of Muon.
COEFFICIENTS, STEPS = (3.4445, -4.7750, 2.0315), 5


def build_optimiser(network: nn.Module, options: Optimiser) -> torch.optim.Optimizer:
    """An optimiser over what is not frozen; each group's `scale` is its factor on the learning rate.

    Matrices and convolutions get the weight decay, vectors none. With `layer_decay` below 1 there are two groups per
    layer.
    """
    depths = _depths(network) if options.layer_decay < 1 else {}
    deepest = max(depths.values(), default=0)
    groups: dict[tuple[bool, int], Any] = {}
    for name, parameter in network.named_parameters():
        if not parameter.requires_grad:
            continue
        decays, depth = parameter.ndim > 1, depths.get(name, deepest)
        scale = options.layer_decay ** (deepest - depth)
        decay = options.weight_decay if decays else 0.0
        group = groups.setdefault((not decays, depth), {"params": [], "weight_decay": decay, "scale": scale})
        group["params"].append(parameter)
    ordered = [groups[key] for key in sorted(groups)]
    kinds = {"sgd": torch.optim.SGD, "adam": torch.optim.Adam, "adamw": torch.optim.AdamW, "muon": Muon}
    more = {"momentum": options.momentum} if options.name == "sgd" else {}
    return _without_compiler(kinds[options.name])(ordered, lr=options.lr, **more)


@cache
def _without_compiler(kind: type[torch.optim.Optimizer]) -> Callable[..., torch.optim.Optimizer]:
    """The same optimiser by its methods as they are: torch's wraps around them load its compiler when first called.

    That takes a second and a half of the processor, and nothing here is compiled.
    """
    names = ("add_param_group", "load_state_dict", "state_dict", "step", "zero_grad")
    plain: dict[str, Any] = {name: inspect.unwrap(getattr(kind, name)) for name in names}
    return type(kind.__name__, (kind,), plain | {"step": torch.no_grad()(plain["step"])})


def build_average(network: nn.Module, averaging: Averaging) -> AveragedModel | None:
    """A copy of the network whose weights and running statistics are averages of it, or None."""
    if averaging.name == "none":
        return None

    @torch.no_grad()
    def update(averages: Any, values: Any, count: Tensor | int) -> None:
        seen = int(count)
        if averaging.name == "swa":
            share = 1 / (seen + 1)
        else:  # a short memory first, as early weights are poor
            share = 1 - min(averaging.decay, (1 + seen) / (10 + seen))
        for average, value in zip(averages, values, strict=True):
            if average.is_floating_point():
                average.lerp_(value, share)
            else:
                average.copy_(value)

    return AveragedModel(network, multi_avg_fn=update, use_buffers=True)


def _depths(network: nn.Module) -> dict[str, int]:
    """Depth of each parameter, 0 nearest to the image: timm's own grouping of a body, else the order of layers."""
    body = network.get_submodule("body")
    matcher = getattr(body, "group_matcher", None)
    if matcher is not None:
        from timm.models import group_parameters

        grouped = group_parameters(body, matcher(coarse=False), reverse=True)
        inside = {f"body.{name}": int(depth) for name, depth in grouped.items()}
    else:
        layers: dict[str, int] = {}
        inside = {
            f"body.{name}": layers.setdefault(name.rpartition(".")[0], len(layers))
            for name, _ in body.named_parameters()
        }
    top = max(inside.values(), default=-1) + 1
    return {name: inside.get(name, top) for name, _ in network.named_parameters()}


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

    # Not torch.optim.Muon (2.15): it takes matrices alone, and orthogonalises in bfloat16 whatever the weights are,
    # so that a step differs from this one by some percent, and takes a hundred times as long on CPUs without bfloat16.

    def __init__(
        self,
        params: Any,
        lr: float = 1e-3,
        weight_decay: float = 0.0,
        momentum: float = 0.9,
        betas: tuple[float, float] = (0.9, 0.95),
    ) -> None:
        super().__init__(params, {"lr": lr, "weight_decay": weight_decay, "momentum": momentum, "betas": betas})
        self.streams = Streams()  # in which matrices are computed side by side

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """Take one step; `closure` is evaluated first where it is given."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        learning = [(p, group) for group in self.param_groups for p in group["params"] if p.grad is not None]
        for vector in (pair for pair in learning if not _is_matrix(pair[0])):
            self._learn(vector)
        for _ in self.streams.map(self._learn, (pair for pair in learning if _is_matrix(pair[0]))):
            pass
        return loss

    @torch.no_grad()  # which each stream has to say for itself
    def _learn(self, learning: tuple[Tensor, dict[str, Any]]) -> None:
        parameter, group = learning
        gradient = cast(Tensor, parameter.grad)
        parameter.mul_(1 - group["lr"] * group["weight_decay"])
        if _is_matrix(parameter):
            direction = _matrix_step(gradient, self.state[parameter], group["momentum"])
        else:
            direction = _vector_step(gradient, self.state[parameter], group["betas"])
        parameter.sub_(direction, alpha=group["lr"])


def _is_matrix(parameter: Tensor) -> bool:
    return parameter.ndim > 1 and len(parameter) > 1


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


def _matrix_step(gradient: Tensor, state: dict[str, Tensor], decay: float) -> Tensor:
    if not state:
        state["momentum"] = torch.zeros_like(gradient)
    momentum = state["momentum"].lerp_(gradient, 1 - decay)
    nesterov = gradient.lerp(momentum, decay).reshape(len(gradient), -1)
    scale = 0.2 * max(nesterov.shape) ** 0.5
    return (scale * orthogonalise(nesterov)).view_as(gradient)


def _vector_step(gradient: Tensor, state: dict[str, Tensor], betas: tuple[float, float]) -> Tensor:
    if not state:
        state["step"] = torch.zeros((), dtype=torch.float64)
        state["first"], state["second"] = torch.zeros_like(gradient), torch.zeros_like(gradient)
    beta1, beta2 = betas
    state["step"] += 1
    count = float(state["step"])
    first = state["first"].lerp_(gradient, 1 - beta1)
    second = state["second"].lerp_(gradient.square(), 1 - beta2)
    return first / (1 - beta1**count) / ((second / (1 - beta2**count)).sqrt() + 1e-8)
