"""Plain convolutional networks: blocks of convolutions and pooling, then dense layers (Systems A to D)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import BaseModel, ConfigDict, Field
from torch import nn

from tumortrace.errors import ModelError
from tumortrace.models.architecture import ARCHITECTURES, Network, parse_argument
from tumortrace.models.layers import CentreAttention, build_head, build_pooling, glorot


class Block(BaseModel):
    """Convolutions of equal width, each with ReLU, then 2x2 max pooling.

    Attributes:
        channels: Filters of each convolution.
        kernel: Side of the filters in pixels.
        convolutions: How many of them.
        pool: Whether 2x2 max pooling follows.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    channels: int = Field(ge=1)
    kernel: int = Field(default=3, ge=1)
    convolutions: int = Field(default=2, ge=1)
    pool: bool = True


class PlainCNN(Network):
    """Blocks of convolutions and 2x2 max pooling, then dense layers and one logit.

    Weights start from Glorot's uniform distribution and biases from zero, as in Keras.

    Args:
        input_size: Height and width in pixels.
        blocks: For each block its number of channels (two 3x3 convolutions), or the fields of `Block`.
        head: Layers before the last, see `build_head`.
        batch_norm: Whether each convolution is followed by batch norm.
        padding: "valid" convolutions lose a margin, "same" ones do not.
        pooling: "flatten", "average" or "centre", see `build_pooling`.
        attention: Whether positions are weighed before pooling, the centre more at first.
        outputs: 1, or 2 for a softmax over both classes.
    """

    def __init__(
        self,
        input_size: tuple[int, int],
        blocks: Sequence[int | Mapping[str, Any]] = (16, 32),
        head: Sequence[Mapping[str, Any]] = ({"dense": 256},),
        batch_norm: bool = False,
        padding: str = "valid",
        pooling: str = "flatten",
        attention: bool = False,
        outputs: int = 1,
    ) -> None:
        super().__init__()
        if padding not in ("valid", "same"):
            raise ModelError(f"padding {padding!r}", expected="valid or same")
        layers: list[nn.Module] = []
        channels, (height, width) = 3, input_size
        for given in blocks:
            fields = {"channels": given} if isinstance(given, int) else given
            block = parse_argument(Block, fields, "blocks", "a number, or channels, kernel, convolutions, pool")
            for _ in range(block.convolutions):
                layers.append(nn.Conv2d(channels, block.channels, block.kernel, padding=padding))
                if batch_norm:
                    layers.append(nn.BatchNorm2d(block.channels, eps=1e-3, momentum=0.01))
                layers.append(nn.ReLU())
                channels = block.channels
            if padding == "valid":
                height, width = (side - block.convolutions * (block.kernel - 1) for side in (height, width))
            if block.pool:
                layers.append(nn.MaxPool2d(2))
                height, width = height // 2, width // 2
            if height < 1 or width < 1:
                raise ModelError(
                    f"{len(blocks)} blocks leave nothing of an input of {input_size[0]}x{input_size[1]} px",
                    remedy="set preprocessing.size to a larger value or use fewer blocks",
                )
        self.body = glorot(nn.Sequential(*layers))
        pool, units = build_pooling(pooling, channels, (height, width))
        weigh = [CentreAttention(channels, (height, width))] if attention else []
        self.top = nn.Sequential(*weigh, pool, build_head(units, head, outputs))


ARCHITECTURES.register("plain-cnn")(PlainCNN)
