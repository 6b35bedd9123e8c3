"""A small residual network with a head that weighs the centre of the patch (the default)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from tumortrace.models.architecture import ARCHITECTURES


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions with batch norm around a shortcut. He et al. (2016), "Deep residual learning"."""

    def __init__(self, channels: int, wide: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, wide, 3, stride, 1, bias=False)
        self.norm1 = nn.BatchNorm2d(wide)
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


class CentrePooling(nn.Module):
    """A weighted mean over positions beside the plain one.

    The weights are a softmax over a learnt map, which begins as a Gaussian bump over the centre, plus a learnt
    linear score of the features there: the label is decided in the centre 32x32 px, its surroundings are context.

    Args:
        channels: Channels C of the features; the output has 2 C.
        size: Height and width of the features.
    """

    def __init__(self, channels: int, size: tuple[int, int]) -> None:
        super().__init__()
        rows = torch.linspace(-1, 1, size[0]).view(-1, 1)
        columns = torch.linspace(-1, 1, size[1]).view(1, -1)
        self.position = nn.Parameter(-2 * (rows**2 + columns**2))
        self.score = nn.Conv2d(channels, 1, 1)
        nn.init.zeros_(self.score.weight)
        nn.init.zeros_(self.score.bias)  # type: ignore[arg-type]

    def forward(self, features: Tensor) -> Tensor:
        score = self.score(features) + self.position
        weights = score.flatten(1).softmax(1).view_as(score)
        return torch.cat([(features * weights).sum((2, 3)), features.mean((2, 3))], 1)


class CentreResNet(nn.Module):
    """Stem of stride 2, stages of residual blocks, pooling that weighs the centre, dropout, one logit.

    Args:
        input_size: Height and width in pixels.
        stem: Channels of the stem, a 4x4 convolution of stride 2.
        widths: Channels of each stage; every stage begins with stride 2.
        depths: Residual blocks of each stage.
        dropout: Share of pooled features dropped in training, in [0, 1).
    """

    attention_layer = "stages"

    def __init__(
        self,
        input_size: tuple[int, int],
        stem: int = 32,
        widths: Sequence[int] = (64, 128),
        depths: Sequence[int] = (2, 2),
        dropout: float = 0.2,
    ) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, stem, 4, 2, 1, bias=False), nn.BatchNorm2d(stem), nn.ReLU())
        blocks: list[nn.Module] = []
        channels = stem
        for wide, depth in zip(widths, depths, strict=True):
            for index in range(depth):
                blocks.append(ResidualBlock(channels, wide, 2 if index == 0 else 1))
                channels = wide
        self.stages = nn.Sequential(*blocks)
        with torch.no_grad():
            was = self.training
            features = self.eval().stages(self.stem(torch.zeros(1, 3, *input_size)))
            self.train(was)
        self.pooling = CentrePooling(channels, (features.shape[2], features.shape[3]))
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(2 * channels, 1)

    def forward(self, images: Tensor) -> Tensor:
        pooled = self.pooling(self.stages(self.stem(images)))
        logits: Tensor = self.head(self.dropout(pooled))
        return logits.squeeze(1)


ARCHITECTURES.register("centre-resnet")(CentreResNet)
