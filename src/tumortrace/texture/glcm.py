"""Grey-level co-occurrence: how often two grey values lie side by side."""

from __future__ import annotations

from typing import Annotated, Literal, get_args

import numpy as np
from pydantic import Field

from tumortrace.texture.descriptor import DESCRIPTORS, Described
from tumortrace.texture.intensity import count, to_grey

Property = Literal["contrast", "correlation", "energy", "homogeneity", "dissimilarity", "asm", "entropy"]
Angle = Literal[0, 45, 90, 135]

_DIFFERENCE = np.arange(256.0)
_WEIGHTS = (_DIFFERENCE**2, _DIFFERENCE, 1 / (1 + _DIFFERENCE**2))


@DESCRIPTORS.register("glcm")
def glcm(
    images: np.ndarray,
    *,
    distances: Annotated[tuple[Annotated[int, Field(ge=1)], ...], Field(min_length=1)] = (1, 3),
    angles: Annotated[tuple[Angle, ...], Field(min_length=1)] = (0, 45, 90, 135),
    properties: Annotated[tuple[Property, ...], Field(min_length=1)] = (
        "contrast",
        "correlation",
        "energy",
        "homogeneity",
    ),
) -> Described:
    """Properties of the grey-level co-occurrence matrix P(i, j), at 256 levels, symmetric, with sum 1.

    Haralick, Shanmugam and Dinstein (1973), "Textural features for image classification"; equal to scikit-image's
    `graycomatrix(symmetric=True, normed=True)` with `graycoprops`. Columns: `glcm_<property>_d<distance>_a<angle>`:

    - contrast, sum of P (i - j)^2, range [0, 65025]; dissimilarity, sum of P |i - j|; homogeneity, sum of
      P / (1 + (i - j)^2), range [0, 1];
    - asm, sum of P^2; energy, its square root; entropy, sum of -P ln P (nats);
    - correlation, of i and j under P, range [-1, 1]; 1 for an image of one value, as in scikit-image.

    A distance beyond the image's size leaves no pairs: all 0, correlation 1, as in scikit-image.

    Args:
        images: uint8, shape (N, H, W, 3); grey is luminance.
        distances: Distances in pixels.
        angles: Directions in degrees, counter-clockwise from the right; pairs count both ways.
        properties: What to compute of each matrix.

    Returns:
        Names and values, float64, shape (N, distances x angles x properties).

    Example:
        >>> names, values = glcm(np.tile(np.uint8([0, 10]), (1, 8, 4))[..., None].repeat(3, -1), distances=(1,))
        >>> names[:2], values[0, :2].round(9).tolist()
        (['glcm_contrast_d1_a0', 'glcm_correlation_d1_a0'], [100.0, -1.0])
    """
    grey = to_grey(images)
    names, columns = [], []
    corners = [_integral(grey), _integral(np.square(grey, dtype=np.uint16))]
    for distance in distances:
        for angle in angles:
            found = _properties(grey, offset(distance, angle), corners, "entropy" in properties)
            names += [f"glcm_{each}_d{distance}_a{angle}" for each in properties]
            columns += [found[each] for each in properties]
    return names, np.stack(columns, axis=1)


def matrix(grey: np.ndarray, distance: int = 1, angle: Angle = 0) -> np.ndarray:
    """The whole co-occurrence matrix of one image, symmetric, with sum 1.

    Args:
        grey: uint8, shape (H, W).
        distance: In pixels.
        angle: In degrees.

    Returns:
        float64, shape (256, 256).

    Example:
        >>> matrix(np.array([[0, 1, 1]], np.uint8))[:2, :2].tolist()
        [[0.0, 0.25], [0.25, 0.5]]
    """
    first, second = _pairs(grey[None], offset(distance, angle))
    counts = np.bincount(first.ravel() * np.intp(256) + second.ravel(), minlength=65536).reshape(256, 256)
    return (counts + counts.T) / max(1, 2 * first.size)


def offset(distance: int, angle: Angle) -> tuple[int, int]:
    """Rows down and columns right from one pixel of a pair to the other; angles count as scikit-image counts them."""
    radians = np.deg2rad(angle)
    return round(np.sin(radians) * distance), round(np.cos(radians) * distance)


def _pairs(grey: np.ndarray, shift: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """First and second pixel of every pair, each of shape (N, rows, columns)."""
    (top, bottom, left, right), (down, across) = _window(grey.shape, shift), shift
    return grey[:, top:bottom, left:right], grey[:, top + down : bottom + down, left + across : right + across]


def _window(shape: tuple[int, ...], shift: tuple[int, int]) -> tuple[int, int, int, int]:
    """Rows and columns in which a pair's first pixel lies: top, bottom, left, right."""
    (height, width), (down, across) = shape[-2:], shift
    left, right = max(0, -across), min(width, width - across)
    return 0, max(0, height - down), left, max(left, right)


def _integral(grey: np.ndarray) -> np.ndarray:
    """Sums over the rectangle above and to the left of each corner: int64, shape (N, H + 1, W + 1)."""
    sums = np.zeros((len(grey), grey.shape[1] + 1, grey.shape[2] + 1), np.int64)
    np.cumsum(grey, axis=1, dtype=np.int64, out=sums[:, 1:, 1:])
    np.cumsum(sums[:, 1:, 1:], axis=2, out=sums[:, 1:, 1:])
    return sums


def _both_ends(sums: np.ndarray, shape: tuple[int, ...], shift: tuple[int, int]) -> np.ndarray:
    """Sum over the first and the second pixels of all pairs: int64, shape (N,)."""
    (top, bottom, left, right), (down, across) = _window(shape, shift), shift
    total = np.zeros(len(sums), np.int64)
    for row, column in ((0, 0), (down, across)):
        above, below = sums[:, top + row], sums[:, bottom + row]
        total += (below - above)[:, right + column] - (below - above)[:, left + column]
    return total


def _properties(
    grey: np.ndarray, shift: tuple[int, int], corners: list[np.ndarray], entropy: bool
) -> dict[str, np.ndarray]:
    """Every property, from the pairs themselves: the matrix has 65,536 cells, of which few are filled."""
    first, second = _pairs(grey, shift)
    pairs = first[0].size
    if not pairs:
        nothing = np.zeros(len(grey))
        return dict.fromkeys(get_args(Property), nothing) | {"correlation": nothing + 1}
    high, low = np.maximum(first, second), np.minimum(first, second)
    counts = count(high - low)
    # not a matrix product, whose rounding depends on how many images there are
    contrast, dissimilarity, homogeneity = ((counts * weights).sum(axis=1) / pairs for weights in _WEIGHTS)
    total, squares = (_both_ends(sums, grey.shape, shift).astype(object) for sums in corners)
    variance = ((2 * pairs * squares - total**2) / (2 * pairs) ** 2).astype(np.float64)  # exact up to the division
    # covariance = variance - contrast / 2, as the matrix is symmetric
    correlation = np.where(variance > 0, 1 - contrast / 2 / np.where(variance > 0, variance, 1), 1)
    asm, nats = np.array([_cells(*each, entropy) for each in zip(high, low, strict=True)]).T
    return {
        "contrast": contrast,
        "correlation": correlation,
        "energy": np.sqrt(asm),
        "homogeneity": homogeneity,
        "dissimilarity": dissimilarity,
        "asm": asm,
        "entropy": nats,
    }


def _cells(high: np.ndarray, low: np.ndarray, entropy: bool) -> tuple[float, float]:
    """Sum of P^2 and of -P ln P (0 if not asked for) of one image's symmetric matrix.

    An unordered pair counted n times fills two cells with n, or one on the diagonal with 2 n.
    """
    code = high.astype(np.intp).ravel()
    code <<= 8
    code += low.ravel()
    counts = np.bincount(code)
    each = counts[code]  # summed over the pairs, this is the sum of the squared counts
    squares = 2 * int(each.sum()) + 2 * int(np.square(counts[::257]).sum())
    nats = 0.0
    if entropy:
        on_diagonal = int(counts[::257].sum())
        nats = np.log(2 * code.size) - (np.log(each).sum() + on_diagonal * np.log(2)) / code.size
    return squares / (2 * code.size) ** 2, max(0.0, float(nats))
