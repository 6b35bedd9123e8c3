"""Batch norm over the whole batch, where several processes compute a part of it each."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, distributed
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from tumortrace.training.ranks import told


class WholeBatchNorm(TorchFunctionMode):
    """While it is entered, every batch norm that learns takes its statistics from the images of all processes.

    Whatever layer asks for it (those of torch, of timm, and of this program alike), on CPUs and GPUs; layers, their
    weights and running statistics stay what they are. All processes have to compute the same layers.
    """

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        return (_batch_norm if func is functional.batch_norm else func)(*args, **(kwargs or {}))


def _batch_norm(
    input: Tensor,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Tensor:
    """As `torch.nn.functional.batch_norm`, of all processes' inputs, shape (N, C, ...), together."""
    if not training:
        return functional.batch_norm(input, running_mean, running_var, weight, bias, False, momentum, eps)
    values, others = input.float(), [0, *range(2, input.dim())]
    form = (1, -1, *[1] * (input.dim() - 2))
    here = values.new_full((1,), values.numel() / values.shape[1])
    *sums, count = _Sum.apply(torch.cat([values.sum(others), here])).split([values.shape[1], 1])
    mean = sums[0] / count
    centred = values - mean.view(form)
    variance = _Sum.apply(centred.square().sum(others)) / count  # of squares about the mean, so that no digits are lost
    with torch.no_grad():
        if running_mean is not None and running_var is not None:
            running_mean.lerp_(mean, momentum)
            running_var.lerp_(variance * count / (count - 1), momentum)
    factor = torch.rsqrt(variance + eps)
    if weight is not None:
        factor = factor * weight
    normed = centred * factor.view(form)
    return (normed if bias is None else normed + bias.view(form)).to(input.dtype)


class _Sum(torch.autograd.Function):
    """Over all processes; each one's input has part in the losses of all."""

    @staticmethod
    def forward(ctx: Any, tensor: Tensor) -> Tensor:
        return _summed(tensor)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        return _summed(gradients[0])


def _summed(tensor: Tensor) -> Tensor:
    total = tensor.contiguous().clone()
    with told():
        distributed.all_reduce(total)
    return total
