"""Optimisers and averaged weights, built from a recipe's options."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from timm.models import group_parameters
from torch import Tensor, nn
from torch.nn import functional
from torch.optim.swa_utils import AveragedModel

from tumortrace.evaluation.measures import rises
from tumortrace.training.options import Averaging, Loss, Optimiser, Schedule


def build_optimiser(network: nn.Module, options: Optimiser) -> torch.optim.Optimizer:
    """An optimiser over what is not frozen; each group's `scale` is its factor on the learning rate.

    Matrices and convolutions get the weight decay, vectors none. With `layer_decay` below 1 there are two groups per
    layer.
    """
    depths = _depths(network) if options.layer_decay < 1 else {}
    deepest = max(depths.values(), default=0)
    groups: dict[tuple[bool, int], dict[str, Any]] = {}
    for name, parameter in network.named_parameters():
        if not parameter.requires_grad:
            continue
        decays, depth = parameter.ndim > 1, depths.get(name, deepest)
        scale = options.layer_decay ** (deepest - depth)
        decay = options.weight_decay if decays else 0.0
        group = groups.setdefault((not decays, depth), {"params": [], "weight_decay": decay, "scale": scale})
        group["params"].append(parameter)
    ordered = [groups[key] for key in sorted(groups)]
    kinds: dict[str, Any] = {
        "sgd": torch.optim.SGD,
        "adam": torch.optim.Adam,
        "adamw": torch.optim.AdamW,
        "muon": Muon,
    }
    arguments = {"momentum": options.momentum} if options.name == "sgd" else {}
    optimiser: torch.optim.Optimizer = kinds[options.name](ordered, lr=options.lr, **arguments)
    return optimiser


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


# Learning rate as a pure function of the step and of the history, so that a resumed run needs no state for it.


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
    sign = -1.0 if rises(schedule.metric) else 1.0
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


# The loss that is minimised.


def binary_loss(logits: Tensor, targets: Tensor, options: Loss, share: float) -> Tensor:
    """Mean binary cross-entropy of a batch.

    Args:
        logits: Of the positive class, shape (N,).
        targets: Labels, or probabilities to learn, shape (N,).
        options: Label smoothing and class weights.
        share: Of the positives among all training images, by which "balanced" weighs.
    """
    weights = None
    if options.class_weights == "balanced":
        weights = (1 - targets) * 0.5 / (1 - share) + targets * 0.5 / share
    smoothed = targets * (1 - options.label_smoothing) + options.label_smoothing / 2
    return functional.binary_cross_entropy_with_logits(logits, smoothed, weights)


# The Muon optimiser in float32.
#
# torch's and timm's compute the orthogonalisation in bfloat16, which CPUs without bfloat16 hardware emulate some
# hundred times slower: over a second a step for the default network.


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
