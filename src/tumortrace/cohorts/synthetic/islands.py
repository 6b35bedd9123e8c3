"""Tumour islands: smooth closed outlines whose mask is known exactly."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

Outline = NDArray[np.float64]


def draw_outline(
    rng: np.random.Generator, centre: tuple[float, float], radius: float, *, roughness: float = 0.16
) -> Outline:
    """A smooth closed curve around `centre`.

    Args:
        rng: Draws the shape.
        centre: Row and column.
        radius: Mean distance from the centre, in pixels.
        roughness: Amplitude of the first wave around the circle, as a part of the radius.

    Returns:
        float64 (n, 2), rows and columns of the corners; the last is joined to the first.

    Example:
        >>> curve = draw_outline(np.random.default_rng(0), (50, 50), 10)
        >>> bool(8 < np.linalg.norm(curve - 50, axis=1).mean() < 12)
        True
    """
    theta = np.linspace(0, 2 * np.pi, max(24, int(radius)), endpoint=False)
    distance = np.ones_like(theta)
    for wave in range(2, 8):
        distance += rng.normal(0, roughness / wave) * np.cos(wave * theta + rng.uniform(0, 2 * np.pi))
    distance = radius * np.clip(distance, 0.4, 1.6)
    return np.stack([centre[0] + distance * np.sin(theta), centre[1] + distance * np.cos(theta)], axis=1)


def fill(outlines: list[Outline], shape: tuple[int, int]) -> NDArray[np.bool_]:
    """The pixels that lie inside any of the outlines or on one, bool of `shape`."""
    image = Image.new("L", (shape[1], shape[0]))
    for outline in outlines:
        ImageDraw.Draw(image).polygon([(column, row) for row, column in outline.tolist()], fill=1)
    return np.asarray(image).astype(bool)
