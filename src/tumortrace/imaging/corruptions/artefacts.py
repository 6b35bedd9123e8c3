"""Folds and air bubbles, drawn into the patch. Images and `random` as in `colours`.

Both pass near the centre, within a sixth of the side, where the label of a patch is usually decided.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from tumortrace.imaging import degradation
from tumortrace.imaging.corruptions.colours import from_density, to_density

NEAR = 1 / 6  # of the side: how far from the centre a fold's line or a bubble's centre may lie
EDGE = 1.5  # pixels over which a fold or bubble begins


def fold(image: Tensor, share: float, random: np.random.Generator) -> Tensor:
    """A band of `share` of the side in which tissue lies upon itself, at a drawn angle.

    Light passes through two layers there, so that optical densities add: the pixel's own and that of its mirror image
    across the band's middle line. The band's edges, where the section bends, are darker by a half.
    """
    side = min(image.shape[2:])
    angle, offset = random.uniform(0, math.pi), random.uniform(-NEAR, NEAR) * side
    across, (x, y) = math.cos(angle), _centred(image)
    along = math.sin(angle)
    distance = x * across + y * along - offset
    other = _sampled(image, x - 2 * distance * across, y - 2 * distance * along)
    half = share * side / 2
    inside = ((half - distance.abs()) / EDGE + 0.5).clamp(0, 1)
    edge = torch.exp(-(((distance.abs() - half) / EDGE) ** 2)) * inside
    own = to_density(image)
    return from_density(own + inside * to_density(other) + 0.5 * edge * own)


def bubble(image: Tensor, share: float, random: np.random.Generator) -> Tensor:
    """An air bubble under the cover glass, its radius `share` of the side: hazy and blurred within a dark rim."""
    side = min(image.shape[2:])
    right, down = random.uniform(-NEAR, NEAR, 2) * side
    x, y = _centred(image)
    distance = torch.hypot(x - right, y - down)
    radius = share * side
    inside = ((radius - distance) / EDGE + 0.5).clamp(0, 1)
    haze = 0.5 * degradation.blur(image, torch.tensor([2.0])) + 0.5 * 0.93
    width = max(1.0, 0.12 * radius)
    rim = torch.exp(-(((distance - radius + width) / width) ** 2)) * inside
    return (image + inside * (haze - image)) * (1 - 0.75 * rim)


def _centred(image: Tensor) -> tuple[Tensor, Tensor]:
    """Each pixel's place in pixels right of and below the image's centre, shape (H, W) each."""
    height, width = image.shape[2:]
    y, x = torch.meshgrid(torch.arange(height) - (height - 1) / 2, torch.arange(width) - (width - 1) / 2, indexing="ij")
    return x, y


def _sampled(image: Tensor, x: Tensor, y: Tensor) -> Tensor:
    """The image at these places, bilinear, mirrored beyond its border."""
    height, width = image.shape[2:]
    grid = torch.stack([2 * x / width, 2 * y / height], -1)[None].to(image.dtype)
    return functional.grid_sample(image, grid, "bilinear", "reflection", align_corners=False)
