"""Deletion and insertion: whether the probability falls and rises as the hottest parts go and come.

Petsiuk et al. (2018), "RISE". Parts are cells of a grid, not pixels, so that no method gains by the fineness of its
map: single pixels taken away here and there are noise to which networks react by itself.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from tumortrace.inference.explain.baseline import blank
from tumortrace.inference.explain.evidence import evidence
from tumortrace.models.bundle import Model
from tumortrace.models.device import prediction_batch

GRID = 16
STEPS = 8


def cell_order(heat: np.ndarray, seed: int, grid: int = GRID) -> np.ndarray:
    """Numbers of the cells of a grid from the hottest to the coldest, row by row; equal ones in random order.

    Args:
        heat: float, shape (h, w).
        seed: Of the order of equals.
        grid: Cells in a row and in a column.

    Returns:
        int64, shape (grid * grid,).

    Example:
        >>> cell_order(np.array([[0.0, 3.0], [1.0, 2.0]]), seed=0, grid=2).tolist()
        [1, 3, 2, 0]
    """
    cells = functional.adaptive_avg_pool2d(torch.from_numpy(heat)[None, None], grid).flatten().numpy()
    shuffled = np.random.default_rng(seed).permutation(len(cells))
    return shuffled[np.argsort(-cells[shuffled], kind="stable")]


def random_order(seed: int, grid: int = GRID) -> np.ndarray:
    """The cells in random order: what an order has to beat."""
    return np.random.default_rng([seed, 1]).permutation(grid * grid)


def deletion_insertion(model: Model, pixels: Tensor, order: np.ndarray, steps: int = STEPS) -> tuple[float, float]:
    """Areas under the curves of deletion and of insertion of one image.

    Args:
        model: The model.
        pixels: float32, shape (1, 3, h, w), range [0, 1]: a prepared patch.
        order: Of the cells, see `cell_order`.
        steps: Into how many parts the order is cut.

    Returns:
        Mean probability as cells become `blank`, the hottest first (low is good), and as they come back (high is good).
    """
    return areas(lambda images: probability_of(model, images), pixels, order, steps)


def areas(
    probability: Callable[[Tensor], np.ndarray], pixels: Tensor, order: np.ndarray, steps: int = STEPS
) -> tuple[float, float]:
    """`deletion_insertion` for any function from images (N, 3, h, w) to probabilities (N,)."""
    grid = round(len(order) ** 0.5)
    rank = np.empty(len(order), dtype=np.int64)
    rank[order] = np.arange(len(order))
    ends = np.linspace(0, len(order), steps + 1).round()
    gone = torch.from_numpy(rank[None] < ends[:, None]).view(steps + 1, 1, grid, grid).to(pixels)
    gone = functional.interpolate(gone, pixels.shape[2:], mode="nearest")
    empty = blank(pixels)
    deleted, inserted = pixels + (empty - pixels) * gone, empty + (pixels - empty) * gone
    curves = probability(torch.cat([deleted, inserted])).reshape(2, steps + 1)
    falling, rising = np.trapezoid(curves, dx=1 / steps, axis=1)
    return float(falling), float(rising)


def probability_of(model: Model, images: Tensor) -> np.ndarray:
    """Calibrated probabilities of prepared patches, float32 (N, 3, h, w) in [0, 1]."""
    at_once = max(1, prediction_batch((images.shape[2], images.shape[3])) // (8 if model.info.symmetries else 1))
    with torch.inference_mode():
        logits = np.concatenate([evidence(model, part).cpu().double().numpy() for part in images.split(at_once)])
    return model.info.calibration.apply(logits)
