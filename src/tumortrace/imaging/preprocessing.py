"""The one preprocessing that training, prediction, web page and export share."""

from __future__ import annotations

from typing import Literal

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor
from torch.nn import functional

#: Mean and standard deviation per channel (red, green, blue) of pixels scaled to [0, 1].
NORMALISATIONS: dict[str, tuple[tuple[float, float, float], tuple[float, float, float]]] = {
    "unit": ((0.0, 0.0, 0.0), (1.0, 1.0, 1.0)),
    "centred": ((0.5, 0.5, 0.5), (0.25, 0.25, 0.25)),
    "imagenet": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
}


class Preprocessing(BaseModel):
    """From stored uint8 patches to what a network takes in. Part of the model bundle.

    Attributes:
        crop: Side in pixels of the centre square that is kept, or None for the whole patch.
        size: Side in pixels to which that square is resized, or None to leave it.
        filter: Interpolation of the resize; always antialiased.
        normalisation: "unit" leaves [0, 1]; "centred" maps it to [-2, 2]; "imagenet" uses the ImageNet mean and
            standard deviation (red, green, blue).

    Example:
        >>> steps = Preprocessing(crop=64, size=32)
        >>> steps.normalise(steps.pixels(torch.zeros(2, 3, 96, 96, dtype=torch.uint8))).shape
        torch.Size([2, 3, 32, 32])
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    crop: int | None = Field(default=None, ge=8)
    size: int | None = Field(default=None, ge=8)
    filter: Literal["bilinear", "bicubic"] = "bilinear"
    normalisation: Literal["unit", "centred", "imagenet"] = "unit"

    def output_size(self, patch_size: tuple[int, int]) -> tuple[int, int]:
        """Height and width in pixels of what comes out for patches of `patch_size` (height, width)."""
        if self.size:
            return (self.size, self.size)
        return (min(self.crop, patch_size[0]), min(self.crop, patch_size[1])) if self.crop else patch_size

    def pixels(self, images: Tensor) -> Tensor:
        """Centre crop, scaling to [0, 1] and resize.

        Args:
            images: uint8, shape (N, 3, H, W), range [0, 255].

        Returns:
            float32, shape (N, 3, h, w), range [0, 1].
        """
        if self.crop:
            height, width = images.shape[-2:]
            top, left = max(0, (height - self.crop) // 2), max(0, (width - self.crop) // 2)
            images = images[..., top : top + self.crop, left : left + self.crop]
        scaled = images.to(torch.float32) / 255
        if self.size and scaled.shape[-2:] != (self.size, self.size):
            scaled = functional.interpolate(
                scaled, (self.size, self.size), mode=self.filter, antialias=True, align_corners=False
            )
            scaled = scaled.clamp(0, 1)  # bicubic overshoots
        return scaled

    def normalise(self, pixels: Tensor) -> Tensor:
        """Subtract the mean of `normalisation` and divide by its standard deviation, channel by channel."""
        mean, deviation = NORMALISATIONS[self.normalisation]
        shape = (1, 3, 1, 1)
        return (pixels - pixels.new_tensor(mean).view(shape)) / pixels.new_tensor(deviation).view(shape)
