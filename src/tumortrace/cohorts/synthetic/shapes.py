"""Tumour islands: smooth closed outlines whose mask is known exactly."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Literal

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


# Cell nuclei as small stamps of haematoxylin, drawn once per process and reused.


CellType = Literal["lymphocyte", "fibroblast", "epithelial", "tumour"]

ANGLES = 12
VARIANTS = 32
HALF = 12  # a stamp has 2 * HALF + 1 pixels a side


@dataclass(frozen=True)
class _Nucleus:
    """Range of each property from the first variant of a cell type to its last; sizes in um."""

    radius: tuple[float, float]
    elongation: tuple[float, float]
    irregularity: tuple[float, float]
    darkness: tuple[float, float]
    texture: tuple[float, float]
    nucleolus: tuple[float, float]


# The variants of a tumour nucleus run from low grade, close to normal epithelium, to high grade.
_NUCLEI: dict[CellType, _Nucleus] = {
    "lymphocyte": _Nucleus((2.5, 3.2), (1.0, 1.1), (0.02, 0.05), (1.25, 1.1), (0.15, 0.25), (0, 0)),
    "fibroblast": _Nucleus((2.2, 3.0), (1.6, 2.1), (0.03, 0.08), (1.0, 0.8), (0.1, 0.2), (0, 0)),
    "epithelial": _Nucleus((3.1, 4.1), (1.15, 1.4), (0.03, 0.07), (0.95, 0.75), (0.15, 0.3), (0.0, 0.3)),
    "tumour": _Nucleus((3.6, 6.2), (1.05, 1.35), (0.06, 0.16), (0.9, 0.6), (0.3, 0.45), (0.4, 0.9)),
}


@cache
def stamps(cell: CellType) -> NDArray[np.float32]:
    """Nuclei of one cell type at 1 um per pixel.

    Returns:
        float32 (ANGLES, VARIANTS, 25, 25), haematoxylin from 0 to about 1.8; the long axis of entry `a` lies at
        `a * pi / ANGLES` from the x axis towards the y axis.

    Example:
        >>> stamps("lymphocyte").shape
        (12, 32, 25, 25)
    """
    kind = _NUCLEI[cell]
    rng = np.random.default_rng(list(cell.encode()))
    grade = np.linspace(0, 1, VARIANTS)[None, :, None, None]

    def along(ends: tuple[float, float], spread: float = 0.1) -> NDArray[np.float64]:
        value = ends[0] + (ends[1] - ends[0]) * grade
        return value * (1 + spread * rng.uniform(-1, 1, (ANGLES, VARIANTS, 1, 1)))

    y, x = np.mgrid[-HALF : HALF + 1, -HALF : HALF + 1].astype(float)
    turn = np.arange(ANGLES)[:, None, None, None] * np.pi / ANGLES
    elongation = along(kind.elongation)
    u = (x * np.cos(turn) + y * np.sin(turn)) / elongation
    v = (y * np.cos(turn) - x * np.sin(turn)) * elongation
    distance, theta = np.hypot(u, v), np.arctan2(v, u)
    outline = np.ones_like(distance)
    for wave in (2, 3, 4, 5):
        phase = rng.uniform(0, 2 * np.pi, (ANGLES, VARIANTS, 1, 1))
        outline += along(kind.irregularity, 0.6) / np.sqrt(wave - 1) * np.cos(wave * theta + phase)
    radius = along(kind.radius)
    inside = np.clip(radius * outline - distance + 0.5, 0, 1)

    density = along(kind.darkness, 0.15) * np.ones_like(distance)
    clumps = rng.standard_normal(distance.shape)  # chromatin, two pixels wide
    clumps = (clumps + np.roll(clumps, 1, -1) + np.roll(clumps, 1, -2) + np.roll(clumps, (1, 1), (-1, -2))) / 2
    density += along(kind.texture) * clumps
    density += 0.25 * np.exp(-((radius * outline - 1 - distance) ** 2))  # nuclear membrane
    present = rng.random((ANGLES, VARIANTS, 1, 1)) < along(kind.nucleolus, 0)
    centre = rng.uniform(-0.4, 0.4, (2, ANGLES, VARIANTS, 1, 1)) * radius
    density += 0.9 * present * np.exp(-((x - centre[0]) ** 2 + (y - centre[1]) ** 2) / 1.5)
    return (inside * np.clip(density, 0.2, 1.8)).astype(np.float32)


def stamp(
    layer: NDArray[np.float32],
    cell: CellType,
    points: NDArray[np.float64],
    rng: np.random.Generator,
    *,
    angles: NDArray[np.float64] | None = None,
    grade: tuple[float, float] = (0.0, 1.0),
) -> None:
    """Lay nuclei on `layer`, in place; where two overlap the darker one shows.

    Args:
        layer: float32 (height + 2 * HALF, width + 2 * HALF): the plane with a rim of one half stamp.
        cell: Cell type.
        points: float64 (n, 2), row and column of the centres in the plane.
        rng: Chooses variants, and angles where none are given.
        angles: (n,) direction of the long axes in radians, from the x axis towards the y axis.
        grade: From which part of the variants, 0 to 1, to choose.
    """
    bank, size = stamps(cell), 2 * HALF + 1
    if angles is None:
        angles = rng.uniform(0, np.pi, len(points))
    turns = np.rint(angles / np.pi * ANGLES).astype(int) % ANGLES
    low, high = (round(end * (VARIANTS - 1)) for end in grade)
    variants = rng.integers(low, high, len(points), endpoint=True)
    strength = rng.uniform(0.85, 1.1, len(points)).astype(np.float32)
    for (row, column), turn, variant, dark in zip(points.astype(int), turns, variants, strength, strict=True):
        window = layer[row : row + size, column : column + size]
        np.maximum(window, bank[turn, variant] * dark, out=window)
