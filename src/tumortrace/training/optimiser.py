"""Optimisers and averaged weights, built from a recipe's options."""

from __future__ import annotations

from typing import Any

import torch
from timm.models import group_parameters
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from tumortrace.training.muon import Muon
from tumortrace.training.options import Averaging, Optimiser


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
