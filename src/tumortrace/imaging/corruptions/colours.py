"""Stain and scanner: what changes the colours of every pixel and moves none.

Images here and in the sibling modules are float32, shape (1, 3, H, W), range [0, 1]; `random` has drawn nothing yet,
and gives the same at every strength of one image, so that a stronger change goes further the same way.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from tumortrace.imaging import colour


def stain_strength(image: Tensor, factor: float, random: np.random.Generator) -> Tensor:
    """Multiply the optical density of all stains: below 1 pale, above 1 dark staining or a thick section."""
    density = torch.full((1, 3), factor)
    return colour.change_stains(image, density, torch.zeros(1, 3))


def stain_balance(image: Tensor, share: float, random: np.random.Generator) -> Tensor:
    """More of one stain and less of the other, by `share` each; which of the two is drawn."""
    sign = _sign(random)
    factor = torch.tensor([[1 + sign * share, 1 - sign * share, 1.0]])
    return colour.change_stains(image, factor, torch.zeros(1, 3))


def stain_hue(image: Tensor, degrees: float, random: np.random.Generator) -> Tensor:
    """Turn optical densities around the axis of grey, to either side: other hues at the same total density."""
    angle = math.radians(degrees) * _sign(random)
    # Rodrigues' formula around (1, 1, 1) / sqrt(3)
    equal, cross = (1 - math.cos(angle)) / 3, math.sin(angle) / math.sqrt(3)
    own = math.cos(angle) + equal
    turn = [
        [own, equal - cross, equal + cross],
        [equal + cross, own, equal - cross],
        [equal - cross, equal + cross, own],
    ]
    return from_density(torch.einsum("nchw,dc->ndhw", to_density(image), image.new_tensor(turn)))


def scanner(image: Tensor, amount: float, random: np.random.Generator) -> Tensor:
    """Another scanner's colours: a drawn matrix that mixes the channels and keeps grey, and a drawn gamma.

    Entries beside the diagonal are drawn from U(-amount, amount), the diagonal makes each row sum to 1, and gamma is
    exp(U(-2 amount, 2 amount)).
    """
    mixed = random.uniform(-amount, amount, (3, 3))
    np.fill_diagonal(mixed, 0)
    matrix = mixed + np.diag(1 - mixed.sum(1))
    gamma = math.exp(2 * random.uniform(-amount, amount))
    return torch.einsum("nchw,dc->ndhw", image, image.new_tensor(matrix)).clamp(0, 1) ** gamma


def brightness(image: Tensor, factor: float, random: np.random.Generator) -> Tensor:
    """Multiply the pixels: a lamp too weak or too strong."""
    return colour.change_brightness(image, torch.tensor([factor]))


def contrast(image: Tensor, factor: float, random: np.random.Generator) -> Tensor:
    """Multiply each pixel's distance from the image's mean grey."""
    return colour.change_contrast(image, torch.tensor([factor]))


def to_density(image: Tensor) -> Tensor:
    """Optical density, natural logarithm, of pixels that stand one grey level away from black."""
    return -torch.log((image * 255 + 1) / 256)


def from_density(density: Tensor) -> Tensor:
    """Pixels of an optical density; inverse of `to_density`."""
    return ((torch.exp(-density) * 256 - 1) / 255).clamp(0, 1)


def _sign(random: np.random.Generator) -> float:
    return 1.0 if random.random() < 0.5 else -1.0
