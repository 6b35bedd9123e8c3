"""Tissue at 1 um per pixel: from a plan of what lies where to the amounts of haematoxylin and eosin."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage
from scipy.spatial import cKDTree

from tumortrace.cohorts.synthetic.shapes import HALF, CellType, stamp

Mask = NDArray[np.bool_]
Points = NDArray[np.float64]
Value = TypeVar("Value", bound=np.generic)


@dataclass(frozen=True)
class Plan:
    """What lies where on a plane of tissue.

    Attributes:
        tissue: bool (height, width); the rest is glass.
        fat: bool; adipose tissue.
        lymphoid: float32 in [0, 1]; how densely lymphocytes lie in the stroma.
        glands: float64 (n, 3); row, column and radius of normal glands.
        reactive: bool; solid nests of benign epithelium, which imitate tumour.
        tumour: bool; inside a tumour island.
        grade: Nuclear grade of the tumour, 0 (close to normal epithelium) to 1.
        cellularity: Share of the places for a tumour cell that hold one.
    """

    tissue: Mask
    fat: Mask
    lymphoid: Density
    glands: NDArray[np.float64]
    reactive: Mask
    tumour: Mask
    grade: float
    cellularity: float


def smooth_noise(rng: np.random.Generator, shape: tuple[int, int], scale: float) -> Density:
    """Noise of unit variance (about) whose bumps are `scale` pixels wide, float32 of `shape`.

    Example:
        >>> smooth_noise(np.random.default_rng(0), (64, 32), 8).shape
        (64, 32)
    """
    rows, columns = (int(np.ceil(length / scale)) + 3 for length in shape)
    coarse = Image.fromarray(rng.standard_normal((rows, columns), np.float32))
    window = (1.0, 1.0, 1 + shape[1] / scale, 1 + shape[0] / scale)
    fine = coarse.resize((shape[1], shape[0]), Image.Resampling.BICUBIC, box=window)
    return np.asarray(fine, np.float32) * np.float32(1.4)


def scatter(rng: np.random.Generator, shape: tuple[int, int], spacing: float, jitter: float = 0.3) -> Points:
    """Points of a shaken grid over the plane, none much closer than `spacing * (1 - 2 * jitter)` to the next.

    Returns:
        float64 (n, 2), rows and columns inside `shape`.
    """
    offset = rng.uniform(0, spacing, 2)
    rows, columns = (np.arange(offset[axis] - spacing, shape[axis] + spacing, spacing) for axis in (0, 1))
    points = np.stack(np.meshgrid(rows, columns, indexing="ij"), axis=-1)
    points[::2, :, 1] += spacing / 2
    points = points.reshape(-1, 2) + rng.uniform(-jitter, jitter, (len(rows) * len(columns), 2)) * spacing
    return points[((points >= 0) & (points < shape)).all(axis=1)]


def lobule(rng: np.random.Generator, centre: tuple[float, float], radius: float) -> NDArray[np.float64]:
    """Normal glands side by side within `radius` of `centre`, float64 (n, 3): row, column, radius of each."""
    size = rng.uniform(11, 20)
    side = int(2 * radius) + 1
    points = scatter(rng, (side, side), 2 * size * rng.uniform(1.0, 1.3), 0.1)
    points = points[np.linalg.norm(points - radius, axis=1) < radius]
    sizes = size * rng.uniform(0.8, 1.05, (len(points), 1))
    return np.hstack([points - radius + np.asarray(centre), sizes])


def at(field: NDArray[Value], points: Points) -> NDArray[Value]:
    """Values of `field` at `points`."""
    return field[points[:, 0].astype(int), points[:, 1].astype(int)]


def render(plan: Plan, rng: np.random.Generator) -> tuple[Density, Density]:
    """The amounts of haematoxylin and eosin of tissue laid out as planned.

    Returns:
        Two float32 arrays (height, width), 0 or more. All that is tumour lies inside `plan.tumour`.

    Example:
        >>> none = np.zeros((32, 32), bool)
        >>> plan = Plan(~none, none, none.astype(np.float32), np.empty((0, 3)), none, none, 0.5, 1.0)
        >>> haematoxylin, eosin = render(plan, np.random.default_rng(0))
        >>> haematoxylin.shape, bool(eosin.min() >= 0)
        ((32, 32), True)
    """
    shape = plan.tissue.shape
    eosin, fibres = _stroma(shape, rng)
    haematoxylin = np.full(shape, 0.07, np.float32)
    stroma = plan.tissue & ~plan.fat & ~plan.reactive & ~plan.tumour
    if plan.fat.any():
        _fat(eosin, haematoxylin, plan.fat, rng)
    normal = np.zeros((shape[0] + 2 * HALF, shape[1] + 2 * HALF), np.float32)
    for row, column, radius in plan.glands:
        _gland(eosin, haematoxylin, normal, stroma, (row, column), radius, rng)
    _stromal_cells(normal, stroma, plan.lymphoid, fibres, rng)
    benign = _nest(eosin, haematoxylin, plan.reactive, "epithelial", (0.0, 1.0), plan, rng)
    grades = (max(plan.grade - 0.35, 0), min(plan.grade + 0.35, 1))
    malignant = _nest(eosin, haematoxylin, plan.tumour, "tumour", grades, plan, rng)
    nuclei = np.maximum.reduce([normal[HALF:-HALF, HALF:-HALF], benign, malignant]) * plan.tissue
    eosin *= 1 - 0.5 * np.minimum(nuclei, 1)
    haematoxylin += nuclei
    for density in (eosin, haematoxylin):
        density *= plan.tissue
        np.maximum(density, 0, out=density)
    return haematoxylin, eosin


def _stroma(shape: tuple[int, int], rng: np.random.Generator) -> tuple[Density, Density]:
    """Eosin of wavy collagen fibres, and the field along whose level lines they run."""
    y, x = np.ogrid[: shape[0], : shape[1]]
    theta = rng.uniform(0, np.pi)
    level = (y * np.cos(theta) - x * np.sin(theta)).astype(np.float32) + 14 * smooth_noise(rng, shape, 48)
    waves = np.sin(level * np.float32(2 * np.pi / rng.uniform(5, 9)) + 1.5 * smooth_noise(rng, shape, 6))
    eosin = 0.62 + 0.12 * smooth_noise(rng, shape, 30) + 0.13 * waves * smooth_noise(rng, shape, 14)
    eosin += 0.06 * rng.standard_normal(shape, np.float32)
    return eosin.astype(np.float32), level


def _fat(eosin: Density, haematoxylin: Density, fat: Mask, rng: np.random.Generator) -> None:
    """Empty fat cells with thin walls: the cells of a Voronoi diagram."""
    seeds = scatter(rng, (fat.shape[0] + 80, fat.shape[1] + 80), rng.uniform(34, 50)) - 40.0
    where = np.argwhere(fat)
    nearest = np.asarray(cKDTree(seeds).query(where, k=2)[0])
    wall = np.clip(2.5 - (nearest[:, 1] - nearest[:, 0]), 0, 1)
    eosin[fat] = 0.03 + 0.5 * wall
    haematoxylin[fat] = 0.01 + 0.1 * wall


def _gland(
    eosin: Density,
    haematoxylin: Density,
    nuclei: Density,
    stroma: Mask,
    centre: tuple[float, float],
    radius: float,
    rng: np.random.Generator,
) -> None:
    """A normal gland: one row of even nuclei around a lumen; left out where it would not lie in stroma alone."""
    reach = int(radius * 1.3) + 2
    top, left = (max(int(place) - reach, 0) for place in centre)
    window = (slice(top, int(centre[0]) + reach + 1), slice(left, int(centre[1]) + reach + 1))
    if not stroma[window].size or not stroma[window].all():
        return
    y, x = np.mgrid[window[0].start : top + stroma[window].shape[0], window[1].start : left + stroma[window].shape[1]]
    squeeze, turn = rng.uniform(1, 1.25), rng.uniform(0, np.pi)
    axes = np.array([[np.cos(turn), np.sin(turn)], [-np.sin(turn), np.cos(turn)]]) * [[squeeze], [1 / squeeze]]
    distance = np.hypot(*np.einsum("ij,jyx->iyx", axes, np.stack([y - centre[0], x - centre[1]])))
    body = np.clip(radius - distance + 0.5, 0, 1).astype(np.float32)
    lumen = np.clip(radius * rng.uniform(0.1, 0.45) - distance + 0.5, 0, 1).astype(np.float32)
    for density, cytoplasm in ((eosin, 0.6), (haematoxylin, 0.22)):
        density[window] += body * (cytoplasm - density[window])
        density[window] *= 1 - 0.93 * lumen
    stroma[window] &= body < 0.5
    count = max(5, int(2 * np.pi * 0.72 * radius / rng.uniform(5.0, 6.5)))
    theta = np.arange(count) * 2 * np.pi / count + rng.uniform(-0.12, 0.12, count)
    ring = rng.uniform(0.66, 0.78, count) * radius
    offsets = np.stack([ring * np.cos(theta), ring * np.sin(theta)]).T @ np.linalg.inv(axes).T
    points = offsets + np.asarray(centre)
    inside = ((points >= 0) & (points < stroma.shape)).all(axis=1)
    directions = np.arctan2(offsets[:, 0], offsets[:, 1])
    stamp(nuclei, "epithelial", points[inside], rng, angles=directions[inside])


def _stromal_cells(nuclei: Density, stroma: Mask, lymphoid: Density, fibres: Density, rng: np.random.Generator) -> None:
    """Fibroblasts along the fibres, and lymphocytes where the plan has them and a few everywhere."""
    points = scatter(rng, stroma.shape, 15)
    points = points[at(stroma, points) & (rng.random(len(points)) < 0.55)]
    ahead = np.minimum(points + 1, np.array(stroma.shape) - 1)
    here = at(fibres, points)
    down = at(fibres, np.stack([ahead[:, 0], points[:, 1]], axis=1)) - here
    right = at(fibres, np.stack([points[:, 0], ahead[:, 1]], axis=1)) - here
    stamp(nuclei, "fibroblast", points, rng, angles=np.arctan2(-right, down) % np.pi)
    points = scatter(rng, stroma.shape, 6.5)
    points = points[at(stroma, points) & (rng.random(len(points)) < np.maximum(at(lymphoid, points), 0.012))]
    stamp(nuclei, "lymphocyte", points, rng)


def _nest(
    eosin: Density,
    haematoxylin: Density,
    mask: Mask,
    cell: CellType,
    grades: tuple[float, float],
    plan: Plan,
    rng: np.random.Generator,
) -> Density:
    """Cytoplasm and crowded nuclei of solid nests of one cell type; returns the nuclei's haematoxylin."""
    layer = np.zeros((mask.shape[0] + 2 * HALF, mask.shape[1] + 2 * HALF), np.float32)
    if mask.any():
        soft = ndimage.gaussian_filter(mask.astype(np.float32), 1.0, truncate=2) * mask
        for density, cytoplasm in ((eosin, 0.6), (haematoxylin, 0.22)):
            density += soft * (cytoplasm - density) * 0.8
        points = scatter(rng, mask.shape, 7.5 + 3.0 * plan.grade, 0.35)
        inner = ndimage.binary_erosion(mask, iterations=3)
        points = points[at(inner, points) & (rng.random(len(points)) < plan.cellularity)]
        stamp(layer, cell, points, rng, grade=grades)
    return layer[HALF:-HALF, HALF:-HALF] * mask


# From stain densities to colour: staining, optics and sensor of one slide on one scanner.


Density = NDArray[np.float32]

SCANNERS = ("scanner-a", "scanner-b", "scanner-c")
# Reference optical densities of haematoxylin and eosin in red, green, blue (Macenko et al., ISBI 2009).
_STAINS = np.array([[0.5626, 0.7201, 0.4062], [0.2159, 0.8012, 0.5581]])
# White point, contrast, blur (sigma in px) and sensor noise (grey levels) of each scanner.
_WHITE = ((0.96, 0.95, 0.97), (0.94, 0.92, 0.93), (0.97, 0.97, 0.95))
_CONTRAST = (1.0, 0.92, 1.08)
_BLUR = (0.5, 0.7, 0.6)
_NOISE = (3.0, 4.5, 6.0)


@dataclass(frozen=True)
class Stain:
    """How one slide was stained and scanned.

    Attributes:
        vectors: float64 (2, 3); optical density in red, green, blue of one unit of haematoxylin and of eosin.
        white: float64 (3,); transmittance of empty glass.
        blur: Sigma of the optics in pixels.
        noise: Standard deviation of the sensor's noise in grey levels.
    """

    vectors: NDArray[np.float64]
    white: NDArray[np.float64]
    blur: float
    noise: float


def draw_stain(rng: np.random.Generator, scanner: str) -> Stain:
    """The stain of a new slide: strengths and vectors vary by slide, optics by scanner.

    Example:
        >>> draw_stain(np.random.default_rng(0), "scanner-a").vectors.shape
        (2, 3)
    """
    device = SCANNERS.index(scanner)
    vectors = np.abs(_STAINS + rng.normal(0, 0.04, (2, 3)))
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    strengths = rng.uniform((1.0, 0.55), (1.7, 1.05)) * _CONTRAST[device]
    white = np.array(_WHITE[device]) + rng.normal(0, 0.01, 3)
    return Stain(vectors * strengths[:, None], np.minimum(white, 1), _BLUR[device], _NOISE[device])


def colour(
    haematoxylin: Density, eosin: Density, stain: Stain, rng: np.random.Generator, defocus: float = 0.0
) -> NDArray[np.uint8]:
    """The picture of stained tissue, by the Beer-Lambert law (Ruifrok & Johnston, Anal Quant Cytol Histol 2001).

    Args:
        haematoxylin: float32 (height, width), amount of stain, 0 or more.
        eosin: The same of eosin.
        stain: Staining and scanner.
        rng: For the sensor's noise.
        defocus: Added to the sigma of the scanner's blur, in pixels.

    Returns:
        uint8 (height, width, 3), RGB.

    Example:
        >>> glass = np.zeros((4, 4), np.float32)
        >>> stain = Stain(_STAINS, np.ones(3), 0.5, 0.0)
        >>> int(colour(glass, glass, stain, np.random.default_rng(0)).min())
        255
    """
    vectors = stain.vectors.astype(np.float32)
    image = np.empty((*haematoxylin.shape, 3), np.float32)
    for channel in range(3):
        light = np.exp(-(haematoxylin * vectors[0, channel] + eosin * vectors[1, channel]))
        ndimage.gaussian_filter(light, stain.blur + defocus, truncate=3, output=image[..., channel])
    image *= (255 * stain.white).astype(np.float32)
    image += rng.standard_normal(image.shape, np.float32) * np.float32(stain.noise)
    return np.clip(np.rint(image), 0, 255).astype(np.uint8)
