"""Where the pixels lie: rotation, symmetries of the square, shift of the centre.

Images and `random` as in `colours`.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from tumortrace.imaging import geometry

_DIRECTIONS = ((0, 1), (1, 1), (1, 0), (1, -1), (0, -1), (-1, -1), (-1, 0), (-1, 1))


def rotation(image: Tensor, degrees: float, random: np.random.Generator) -> Tensor:
    """Turned around the centre by `degrees`, to a drawn side; bilinear, the corners filled with the mirror image."""
    angle = torch.tensor([degrees if random.random() < 0.5 else -degrees])
    zero, one = torch.zeros(1, 2), torch.ones(1, 2)
    height, width = image.shape[2:]
    matrix = geometry.affine_matrix((height, width), angle, zero, zero[:, 0], one)
    return geometry.affine(image, matrix, "reflect")


def symmetry(image: Tensor, index: float, random: np.random.Generator) -> Tensor:
    """One of the eight symmetries of the square, by its number in `geometry.symmetry`."""
    return geometry.symmetry(image, int(index))


def shift(image: Tensor, share: float, random: np.random.Generator) -> Tensor:
    """Moved by `share` of the side, in whole pixels, one of eight drawn ways; the gap takes the mirror image."""
    down, right = _DIRECTIONS[random.integers(8)]
    height, width = image.shape[2:]
    rows, columns = down * round(share * height), right * round(share * width)
    margin = max(abs(rows), abs(columns))
    padded = functional.pad(image, (margin,) * 4, mode="reflect")
    top, left = margin - rows, margin - columns
    return padded[:, :, top : top + height, left : left + width]
