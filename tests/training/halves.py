"""Layers with batch norms of all kinds, and what they make of a batch or, in one of two processes, of a part of it."""

from __future__ import annotations

from contextlib import nullcontext
from datetime import timedelta

import torch
from timm.layers import BatchNormAct2d
from torch import Tensor, distributed, nn
from torch.nn.functional import mse_loss

from tumortrace.models.layers import InstanceBatchNorm
from tumortrace.training.whole_batch import WholeBatchNorm

PARTS = (slice(0, 5), slice(5, 9))  # not of one size


def network() -> nn.Module:
    """With the norms of torch (of maps and of units), of timm and of this program, each after layers that learn."""
    torch.manual_seed(0)
    maps = [nn.Conv2d(3, 6, 3), nn.BatchNorm2d(6), nn.Conv2d(6, 8, 3), BatchNormAct2d(8), nn.Conv2d(8, 4, 1)]
    units = [nn.Linear(16, 5), nn.BatchNorm1d(5, momentum=None), nn.Tanh(), nn.Linear(5, 1)]
    return nn.Sequential(*maps, InstanceBatchNorm(4), nn.AdaptiveAvgPool2d(2), nn.Flatten(), *units)


def learnt(part: slice | None) -> dict[str, Tensor]:
    """Outputs, gradients and running statistics, by name; of the whole batch, or of a part that two make."""
    net, random = network(), torch.Generator().manual_seed(1)
    images, targets = torch.randn(9, 3, 8, 8, generator=random) * 2 + 30, torch.randn(9, 1, generator=random)
    images[:4] += 20  # halves that differ
    rows = part or slice(None)
    with WholeBatchNorm() if part else nullcontext():
        outputs = net(images[rows])
    loss = mse_loss(outputs, targets[rows]) * len(outputs) / len(images)
    gradients = torch.autograd.grad(loss, list(net.parameters()))
    names = [name for name, _ in net.named_parameters()]
    return {"outputs": outputs.detach(), **dict(zip(names, gradients, strict=True)), **dict(net.named_buffers())}


def in_a_pair(rank: int, store: distributed.TCPStore) -> dict[str, Tensor]:
    """What a process of two has of it."""
    distributed.init_process_group("gloo", store=store, rank=rank, world_size=2, timeout=timedelta(seconds=120))
    try:
        return learnt(PARTS[rank])
    finally:
        distributed.destroy_process_group()


def second(port: int, file: str) -> None:
    """The second process."""
    torch.save(in_a_pair(1, distributed.TCPStore("127.0.0.1", port, 2, False)), file)
