"""A small residual network with a head that weighs the centre of the patch (the default)."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn
from torch.nn import functional

from tumortrace.models.architecture import ARCHITECTURES, Network
from tumortrace.models.layers import Dropout, InstanceBatchNorm, build_pooling, features_of, require_one_each


def _norm(channels: int, instance: bool) -> nn.Module:
    return InstanceBatchNorm(channels) if instance else nn.BatchNorm2d(channels)


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions with batch norm around a shortcut. He et al. (2016), "Deep residual learning"."""

    def __init__(self, channels: int, wide: int, stride: int, instance: bool = False) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, wide, 3, stride, 1, bias=False)
        self.norm1 = _norm(wide, instance)
        self.conv2 = nn.Conv2d(wide, wide, 3, 1, 1, bias=False)
        self.norm2 = nn.BatchNorm2d(wide)
        nn.init.zeros_(self.norm2.weight)  # each block starts as the identity
        shortcut: list[nn.Module] = []
        if stride > 1:
            # like the convolution, it keeps the last row and column of an odd size
            shortcut.append(nn.AvgPool2d(stride, ceil_mode=True, count_include_pad=False))
        if stride > 1 or channels != wide:
            shortcut += [nn.Conv2d(channels, wide, 1, bias=False), nn.BatchNorm2d(wide)]
        self.shortcut = nn.Sequential(*shortcut)

    def forward(self, x: Tensor) -> Tensor:
        y = functional.relu(self.norm1(self.conv1(x)))
        return functional.relu(self.shortcut(x) + self.norm2(self.conv2(y)))


class CentreResNet(Network):
    """Stem of stride 2, stages of residual blocks, pooling that weighs the centre, dropout, one logit.

    Args:
        input_size: Height and width in pixels.
        stem: Channels of the stem, a 4x4 convolution of stride 2.
        widths: Channels of each stage.
        depths: Residual blocks of each stage.
        strides: Of the first block of each stage; None for 2 everywhere.
        instance: How many of the first parts, the stem being one, have `InstanceBatchNorm` as the norm of the stem
            and the first norm of their blocks.
        dropout: Share of pooled features dropped in training, in [0, 1).
        pooling: "centre", "average" or "flatten", see `build_pooling`.
    """

    def __init__(
        self,
        input_size: tuple[int, int],
        stem: int = 32,
        widths: Sequence[int] = (64, 128),
        depths: Sequence[int] = (2, 2),
        dropout: float = 0.2,
        pooling: str = "centre",
        strides: Sequence[int] | None = None,
        instance: int = 0,
    ) -> None:
        super().__init__()
        stem_layers = [nn.Conv2d(3, stem, 4, 2, 1, bias=False), _norm(stem, instance > 0), nn.ReLU()]
        blocks: list[nn.Module] = []
        channels = stem
        strides = strides or [2] * len(widths)
        require_one_each(widths=widths, depths=depths, strides=strides)
        for number, (wide, depth, stride) in enumerate(zip(widths, depths, strides, strict=True), 1):
            for index in range(depth):
                blocks.append(ResidualBlock(channels, wide, stride if index == 0 else 1, number < instance))
                channels = wide
        self.body = nn.Sequential(*stem_layers, *blocks)
        height, width = features_of(self.body, input_size)[2:]
        pool, units = build_pooling(pooling, channels, (height, width))
        self.top = nn.Sequential(pool, Dropout(dropout), nn.Linear(units, 1))


ARCHITECTURES.register("centre-resnet")(CentreResNet)
