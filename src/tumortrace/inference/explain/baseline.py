"""The patch in which nothing is to be seen: what methods compare with."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torchvision.transforms.functional import gaussian_blur

GLASS, AIR = 0.95, 0.0


def blank(pixels: Tensor) -> Tensor:
    """What each patch would show with nothing there: bright glass where it has colours, black air where it is grey.

    A classifier of stained tissue knows glass and finds no tumour on it. The patch's mean colour or a blurred copy say
    less than one would think: flat violet is what a dense nest of cells looks like from afar, and networks take it for
    that (`measure` records with what probability). Grey pictures are taken for radiology, whose background is black.

    Args:
        pixels: float32, shape (N, 3, h, w), range [0, 1].

    Returns:
        float32 of the same shape.

    Example:
        >>> violet, grey = torch.tensor([0.5, 0.2, 0.6]), torch.tensor([0.4, 0.4, 0.4])
        >>> [round(level, 2) for level in blank(torch.stack([violet, grey]).view(2, 3, 1, 1))[:, 0, 0, 0].tolist()]
        [0.95, 0.0]
    """
    coloured = (pixels.amax(1) - pixels.amin(1)).amax((1, 2)) > 2 / 255
    level = torch.where(coloured, pixels.new_tensor(GLASS), pixels.new_tensor(AIR))
    return level.view(-1, 1, 1, 1).expand_as(pixels).contiguous()


def _mean_colour(pixels: Tensor) -> Tensor:
    return pixels.mean((2, 3), keepdim=True).expand_as(pixels).contiguous()


def _blurred(pixels: Tensor) -> Tensor:
    deviation = max(pixels.shape[2:]) / 6
    side = 2 * (min(pixels.shape[2:]) // 3) + 1
    return gaussian_blur(pixels, [side, side], [deviation, deviation])


#: The blank patch, and others that one could compare with.
BASELINES: dict[str, Callable[[Tensor], Tensor]] = {
    "glass or air": blank,
    "its own mean colour": _mean_colour,
    "blurred": _blurred,
}
