"""A residual network that answers the same however a patch is turned or mirrored.

Tissue has no upright: of the eight symmetries of the square none is special. A layer here keeps one map per channel
and symmetry, and all eight share their weights, so that a turned patch gives turned maps in another order (Cohen and
Welling 2016, "Group equivariant convolutional networks"; for PatchCamelyon Veeling et al. 2018, "Rotation equivariant
CNNs for digital pathology"). What the eight say is averaged before the head: the answer is the same for all, by one
pass. A layer costs what an ordinary one of eight times its channels costs, with an eighth of the weights to learn.

Channels are in the order (symmetry, channel).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from tumortrace.images.geometry import symmetry
from tumortrace.models.architecture import ARCHITECTURES, Network
from tumortrace.models.layers import CentrePooling, Dropout, features_of, require_one_each

SYMMETRIES = 8


class EquivariantConvolution(nn.Module):
    """A convolution whose kernel is shown in all eight symmetries.

    Args:
        channels: Channels of an image, or per symmetry of maps.
        wide: Channels per symmetry that come out.
        side: Of the kernel.
        stride: Of the convolution; the padding is half of what the side has above the stride.
        of_image: Whether images come in, and not maps of eight symmetries.
    """

    places: Tensor

    def __init__(self, channels: int, wide: int, side: int, stride: int = 1, *, of_image: bool = False) -> None:
        super().__init__()
        shown = turned(side)
        if of_image:
            places = shown[:, None]
        else:
            relative = torch.tensor(relative_symmetries())
            places = relative[:, :, None] * side**2 + shown[:, None]
        self.register_buffer("places", places.flatten(), persistent=False)  # of each kernel's pixels in the weights
        self.incoming, self.side, self.stride = len(places[0]), side, stride
        self.weight = nn.Parameter(torch.empty(wide, channels, self.incoming * side**2))
        nn.init.normal_(self.weight, std=math.sqrt(2 / self.weight[0].numel()))

    def kernel(self) -> Tensor:
        """Of the ordinary convolution that does the same, shape (8 * wide, incoming * channels, side, side)."""
        wide, channels, places = self.weight.shape
        # whole rows are copied, and their gradients added up, which is faster than number by number
        rows = self.weight.permute(2, 0, 1).reshape(places, wide * channels).index_select(0, self.places)
        kernels = rows.view(SYMMETRIES, self.incoming, self.side, self.side, wide, channels).permute(0, 4, 1, 5, 2, 3)
        shape = SYMMETRIES * wide, self.incoming * channels, self.side, self.side
        return kernels.reshape(shape).contiguous(memory_format=torch.channels_last)

    def forward(self, maps: Tensor) -> Tensor:
        return functional.conv2d(maps, self.kernel(), stride=self.stride, padding=(self.side - self.stride + 1) // 2)


class EquivariantNorm(nn.Module):
    """Batch norm with one scale, shift, running mean and variance for the eight maps of a channel.

    While it learns, each map is normalised by its own statistics, which costs half of what common ones do.

    Args:
        channels: Channels per symmetry.
        scale: Of the scale at first.
    """

    running_mean: Tensor
    running_var: Tensor

    def __init__(self, channels: int, scale: float = 1.0) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.full((channels,), scale))
        self.bias = nn.Parameter(torch.zeros(channels))
        self.register_buffer("running_mean", torch.zeros(channels))
        self.register_buffer("running_var", torch.ones(channels))

    def forward(self, maps: Tensor) -> Tensor:
        mean, variance, weight, bias = (
            values.repeat(SYMMETRIES) for values in (self.running_mean, self.running_var, self.weight, self.bias)
        )
        normal = functional.batch_norm(maps, mean, variance, weight, bias, self.training, 0.1)
        if self.training:
            with torch.no_grad():
                self.running_mean.copy_(mean.view(SYMMETRIES, -1).mean(0))
                self.running_var.copy_(variance.view(SYMMETRIES, -1).mean(0))
        return normal


class EquivariantBlock(nn.Module):
    """Two 3x3 convolutions with batch norm around a shortcut, of maps that may be halved before."""

    def __init__(self, channels: int, wide: int, *, halved: bool) -> None:
        super().__init__()
        self.halved = halved
        self.conv1 = EquivariantConvolution(channels, wide, 3)
        self.norm1 = EquivariantNorm(wide)
        self.conv2 = EquivariantConvolution(wide, wide, 3)
        self.norm2 = EquivariantNorm(wide, 0.0)  # each block starts as the identity
        self.shortcut = nn.Sequential()
        if channels != wide:
            self.shortcut = nn.Sequential(EquivariantConvolution(channels, wide, 1), EquivariantNorm(wide))

    def forward(self, maps: Tensor) -> Tensor:
        if self.halved:
            maps = halve(maps)
        inner = functional.relu(self.norm1(self.conv1(maps)))
        return functional.relu(self.shortcut(maps) + self.norm2(self.conv2(inner)))


class MeanOfSymmetries(nn.Module):
    """From maps (N, 8 * C, h, w) to the mean over the symmetries, (N, C, h, w), float32."""

    def forward(self, maps: Tensor) -> Tensor:
        count, channels, height, width = maps.shape
        return maps.float().view(count, SYMMETRIES, channels // SYMMETRIES, height, width).mean(1)


class EquivariantResNet(Network):
    """Stem of stride 2, stages of residual blocks, mean over symmetries, pooling that weighs the centre, one logit.

    The logit is the same for all symmetries of a square patch, and of an oblong one for those that keep its shape, up
    to rounding; of a patch with one odd and one even side only nearly so.

    Args:
        input_size: Height and width in pixels.
        stem: Channels per symmetry of the stem, a convolution of stride 2.
        widths: Channels per symmetry of each stage; every stage but the first begins with maps of half the size.
        depths: Residual blocks of each stage.
        dropout: Share of pooled features dropped in training, in [0, 1).
    """

    def __init__(
        self,
        input_size: tuple[int, int],
        stem: int = 4,
        widths: Sequence[int] = (4, 8, 16),
        depths: Sequence[int] = (2, 2, 2),
        dropout: float = 0.1,
    ) -> None:
        super().__init__()
        even = input_size[0] % 2 == 0 or input_size[1] % 2 == 0
        # a kernel that sees both ends of the image alike: 4 px wide on even sides, 3 on odd ones
        layers: list[nn.Module] = [
            EquivariantConvolution(3, stem, 4 if even else 3, 2, of_image=True),
            EquivariantNorm(stem),
            nn.ReLU(),
        ]
        channels = stem
        require_one_each(widths=widths, depths=depths)
        for stage, (wide, depth) in enumerate(zip(widths, depths, strict=True)):
            for index in range(depth):
                layers.append(EquivariantBlock(channels, wide, halved=stage > 0 and index == 0))
                channels = wide
        self.body = nn.Sequential(*layers, MeanOfSymmetries())
        height, width = features_of(self.body, input_size)[2:]
        pool = CentrePooling(channels, (height, width), symmetric=True)
        self.top = nn.Sequential(pool, Dropout(dropout), nn.Linear(2 * channels, 1))


def halve(maps: Tensor) -> Tensor:
    """Means of 2x2 px, or where a side is odd of 3 px around every second, so that both ends are treated alike.

    Example:
        >>> halve(torch.arange(5.0).view(1, 1, 1, 5)).flatten().tolist()
        [0.5, 2.0, 3.5]
    """
    odd = [side % 2 for side in maps.shape[2:]]
    return functional.avg_pool2d(maps, [2 + one for one in odd], 2, odd, count_include_pad=False)


def turned(side: int) -> Tensor:
    """Where each pixel of a square kernel comes from under each symmetry: int64, shape (8, side * side).

    Example:
        >>> turned(2)[:3].tolist()
        [[0, 1, 2, 3], [1, 3, 0, 2], [3, 2, 1, 0]]
    """
    grid = torch.arange(side**2).view(1, 1, side, side)
    return torch.stack([symmetry(grid, index).flatten() for index in range(SYMMETRIES)])


def relative_symmetries() -> list[list[int]]:
    """Of symmetries i and j, the one that has to precede i to make j: entry [i][j] is the inverse of i after j.

    Example:
        >>> relative_symmetries()[1][:4]
        [3, 0, 1, 2]
    """
    moves = [tuple(row) for row in turned(3).tolist()]

    def after(first: int, then: int) -> int:
        return moves.index(tuple(moves[first][place] for place in moves[then]))

    inverse = [next(j for j in range(SYMMETRIES) if after(i, j) == 0) for i in range(SYMMETRIES)]
    return [[after(j, inverse[i]) for j in range(SYMMETRIES)] for i in range(SYMMETRIES)]


ARCHITECTURES.register("equivariant-resnet")(EquivariantResNet)
