"""Changes of colour, each image by an amount of its own."""

from __future__ import annotations

import torch
from torch import Tensor

from tumortrace.images.stain import RUIFROK, from_density, to_density

#: Shares of red, green and blue in a grey value: ITU-R BT.601, as torchvision and Pillow have them.
GREY = (0.2989, 0.587, 0.114)


def change_stains(images: Tensor, factor: Tensor, shift: Tensor) -> Tensor:
    """Multiply and shift the optical density of each stain of `RUIFROK`; `factor` and `shift` have shape (N, 3).

    Images are float, shape (N, 3, H, W), range [0, 1], here and below.
    """
    to_rgb = images.new_tensor(RUIFROK)
    matrix = torch.linalg.inv(to_rgb) * factor[:, None] @ to_rgb  # into stains, their change, and back in one
    density = torch.baddbmm((shift @ to_rgb)[:, :, None], matrix.mT, to_density(images * 255).flatten(2))
    return (from_density(density.view_as(images)) / 255).clamp(0, 1)


def shift_channels(images: Tensor, shift: Tensor) -> Tensor:
    """Add one amount (shape (N,)) to all channels and clip to the range that the image had, as Keras does.

    Example:
        >>> shift_channels(torch.tensor([0.25, 0.5, 1.0]).view(1, 3, 1, 1), torch.tensor([-0.5])).flatten().tolist()
        [0.25, 0.25, 0.5]
    """
    low, high = images.amin((1, 2, 3), keepdim=True), images.amax((1, 2, 3), keepdim=True)
    return torch.minimum(torch.maximum(images + _per_image(shift), low), high)


def change_brightness(images: Tensor, factor: Tensor) -> Tensor:
    """Multiply by `factor` (shape (N,)) and clip: torchvision's and Pillow's brightness.

    Example:
        >>> change_brightness(torch.tensor([0.25, 0.75]).view(1, 1, 1, 2), torch.tensor([2.0])).flatten().tolist()
        [0.5, 1.0]
    """
    return (images * _per_image(factor)).clamp(0, 1)


def change_contrast(images: Tensor, factor: Tensor) -> Tensor:
    """Move away from (factor above 1) or towards the image's mean grey; `factor` has shape (N,)."""
    mean = _grey(images).mean((2, 3), keepdim=True)
    return _blend(images, mean, factor)


def change_saturation(images: Tensor, factor: Tensor) -> Tensor:
    """Move away from (factor above 1) or towards each pixel's grey; `factor` has shape (N,)."""
    return _blend(images, _grey(images), factor)


def turn_hue(images: Tensor, turn: Tensor) -> Tensor:
    """Turn the hue by `turn` (shape (N,), share of the colour circle) at equal saturation and value.

    Smith (1978), "Color gamut transform pairs".

    Example:
        >>> red = torch.tensor([1.0, 0.0, 0.0]).view(1, 3, 1, 1)
        >>> turn_hue(red, torch.tensor([0.5])).flatten().tolist()
        [0.0, 1.0, 1.0]
    """
    red, green, blue = images.unbind(1)
    value = images.amax(1)
    chroma = value - images.amin(1)
    # sixths of the circle from red; a grey has none, and no chroma to show it by
    sixths = torch.where(
        value == red, green - blue, torch.where(value == green, blue - red + 2 * chroma, red - green + 4 * chroma)
    ) / torch.where(chroma == 0, 1, chroma)
    sixths = sixths + 6 * turn[:, None, None]
    distance = (sixths[:, None] + sixths.new_tensor([5, 3, 1])[:, None, None]).remainder(6)
    lack = torch.minimum(distance, 4 - distance).clamp(0, 1)
    return value[:, None] - chroma[:, None] * lack


def _per_image(amount: Tensor) -> Tensor:
    return amount[:, None, None, None]


def _grey(images: Tensor) -> Tensor:
    return torch.einsum("nchw,c->nhw", images, images.new_tensor(GREY))[:, None]


def _blend(images: Tensor, other: Tensor, factor: Tensor) -> Tensor:
    return torch.lerp(other.expand_as(images), images, _per_image(factor)).clamp(0, 1)
