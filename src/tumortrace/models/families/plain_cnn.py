"""Plain convolutional networks: blocks of valid 3x3 convolutions and pooling, then dense layers (System A)."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from tumortrace.errors import ModelError
from tumortrace.models.architecture import ARCHITECTURES


class PlainCNN(nn.Module):
    """Blocks of two valid 3x3 convolutions and 2x2 max pooling, flatten, dense layers, one logit.

    Weights start from Glorot's uniform distribution and biases from zero, as in Keras.

    Args:
        input_size: Height and width in pixels.
        blocks: Channels of each block.
        dense: Units of each dense layer before the last.
        batch_norm: Whether each convolution is followed by batch norm.
        dropout: Share of units dropped before each dense layer, in [0, 1).
    """

    attention_layer = "body"

    def __init__(
        self,
        input_size: tuple[int, int],
        blocks: Sequence[int] = (16, 32),
        dense: Sequence[int] = (256,),
        batch_norm: bool = False,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        channels, (height, width) = 3, input_size
        for wide in blocks:
            for _ in range(2):
                layers.append(nn.Conv2d(channels, wide, 3))
                if batch_norm:
                    layers.append(nn.BatchNorm2d(wide, eps=1e-3, momentum=0.01))
                layers.append(nn.ReLU())
                channels = wide
            layers.append(nn.MaxPool2d(2))
            height, width = (height - 4) // 2, (width - 4) // 2
        if height < 1 or width < 1:
            raise ModelError(
                f"{len(blocks)} blocks leave nothing of an input of {input_size[0]}x{input_size[1]} px",
                remedy="set preprocessing.size to a larger value or use fewer blocks",
            )
        self.body = nn.Sequential(*layers)
        head: list[nn.Module] = [nn.Flatten()]
        units = channels * height * width
        for wide in dense:
            if dropout:
                head.append(nn.Dropout(dropout))
            head += [nn.Linear(units, wide), nn.ReLU()]
            units = wide
        self.head = nn.Sequential(*head, nn.Linear(units, 1))
        for module in self.modules():
            if isinstance(module, nn.Conv2d | nn.Linear):
                nn.init.xavier_uniform_(module.weight)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.head(self.body(images))
        return logits.squeeze(1)


ARCHITECTURES.register("plain-cnn")(PlainCNN)
