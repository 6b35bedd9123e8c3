"""Lens, sensor and file: blur, focus, resolution, noise, JPEG. Images and `random` as in `colours`."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from tumortrace.imaging import degradation
from tumortrace.imaging.resampling import resize

BLOCK = 16  # side of what JPEG with 4:2:0 compresses together, px


def blur(image: Tensor, sigma: float, random: np.random.Generator) -> Tensor:
    """Gaussian blur of `sigma` pixels; the border is repeated outwards."""
    return degradation.blur(image, torch.tensor([sigma]))


def defocus(image: Tensor, radius: float, random: np.random.Generator) -> Tensor:
    """What a lens out of focus does: each point becomes a disk of `radius` pixels."""
    kernel = image.new_tensor(disk(radius))
    margin = kernel.shape[0] // 2
    channels = image.shape[1]
    padded = functional.pad(image, (margin,) * 4, mode="replicate")
    return functional.conv2d(padded, kernel.expand(channels, 1, -1, -1), groups=channels).clamp(0, 1)


def disk(radius: float, samples: int = 9) -> np.ndarray:
    """Weights of a disk of `radius` pixels around a pixel's centre, float64; each is the share that the disk covers.

    Args:
        radius: In pixels, above 0.
        samples: Points to a pixel's side at which it is looked whether the disk covers them.

    Example:
        >>> disk(0.4).round(3).tolist()
        [[1.0]]
        >>> disk(1.0).shape, round(float(disk(1.0).sum()), 6)
        ((3, 3), 1.0)
    """
    reach = max(0, math.ceil(radius - 0.5))
    steps = ((np.arange((2 * reach + 1) * samples) + 0.5) / samples) - reach - 0.5
    inside = (steps[:, None] ** 2 + steps**2 <= radius**2).astype(np.float64)
    covered = inside.reshape(2 * reach + 1, samples, 2 * reach + 1, samples).sum((1, 3))
    return covered / covered.sum()


def resolution(image: Tensor, factor: float, random: np.random.Generator) -> Tensor:
    """Shrunk by `factor` and enlarged again, as by an objective of lower power; both steps bilinear."""
    height, width = image.shape[2:]
    small = resize(image, (max(1, round(height / factor)), max(1, round(width / factor))))
    return resize(small, (height, width))


def noise(image: Tensor, deviation: float, random: np.random.Generator) -> Tensor:
    """Gaussian noise of `deviation` grey levels, drawn for each pixel and channel."""
    drawn = torch.from_numpy(random.standard_normal(image.shape, dtype=np.float32))
    return (image + drawn * (deviation / 255)).clamp(0, 1)


def jpeg(image: Tensor, quality: float, random: np.random.Generator) -> Tensor:
    """Compressed as JPEG of `quality`, with Pillow's default chroma subsampling, its grid of blocks at a drawn place.

    On the very grid of a patch that was a JPEG before, a coefficient of one step of the former table is rounded to a
    whole step of the new one or to none: from quality 75 to 60 that sharpens, and does more harm than 40 does.
    """
    height, width = image.shape[2:]
    top, left = (int(place) for place in random.integers(0, BLOCK, 2))
    around = (left, -(left + width) % BLOCK, top, -(top + height) % BLOCK)
    padded = functional.pad(image, around, mode="replicate")
    return degradation.jpeg(padded, torch.tensor([int(quality)]))[:, :, top : top + height, left : left + width]
