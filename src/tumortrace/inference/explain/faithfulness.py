"""Measures of one heat map: whether it lies on the tumour, carries the prediction, and goes when the weights go."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator

import numpy as np
import torch
from scipy.stats import rankdata
from skimage.metrics import structural_similarity
from sklearn.metrics import roc_auc_score
from torch import Tensor, nn
from torch.nn import functional

from tumortrace.inference.explain.evidence import blank, evidence, patches_at_once
from tumortrace.models.bundle import Model


def pointing(heat: np.ndarray, mask: np.ndarray) -> float:
    """The pointing game: 1 where the hottest pixel lies in the mask, else 0. Zhang et al. (2018), "Top-down neural
    attention by excitation backprop"; without their tolerance.

    Of several hottest pixels the share that lies in the mask counts. A map without positive heat points nowhere: 0.

    Example:
        >>> pointing(np.array([[0.0, 2.0], [1.0, 2.0]]), np.array([[True, True], [False, False]]))
        0.5
    """
    top = heat.max()
    return float(mask[heat == top].mean()) if top > 0 else 0.0


def energy_inside(heat: np.ndarray, mask: np.ndarray) -> float:
    """The share of the positive heat that lies in the mask. Wang et al. (2020), "Score-CAM".

    0 for a map without positive heat. Spread evenly over the picture, heat has the mask's share of the area.

    Example:
        >>> energy_inside(np.array([[-9.0, 3.0], [1.0, 0.0]]), np.array([[True, True], [False, False]]))
        0.75
    """
    positive = np.maximum(heat, 0)
    total = positive.sum()
    return float(positive[mask].sum() / total) if total > 0 else 0.0


def mask_auc(heat: np.ndarray, mask: np.ndarray) -> float:
    """The chance that a pixel of tumour has more heat than another pixel (ROC AUC); ties count half.

    NaN where the mask is empty or everywhere.

    Example:
        >>> mask_auc(np.array([[3.0, 1.0], [2.0, 1.0]]), np.array([[True, True], [False, False]]))
        0.625
    """
    if mask.all() or not mask.any():
        return float("nan")
    return float(roc_auc_score(mask.ravel(), heat.ravel()))


# Cells, not pixels, so that no method gains by the fineness of its map: single pixels taken away here and there are
# noise to which networks react by itself.
GRID, STEPS = 16, 8


def cell_order(heat: np.ndarray, seed: int, grid: int = GRID) -> np.ndarray:
    """Numbers of the cells of a grid from the hottest to the coldest, row by row; equal ones in random order.

    Of a map (h, w) and a grid of `grid` x `grid` cells, int64, shape (grid * grid,).

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
    """Areas under the curves of deletion and of insertion of one image. Petsiuk et al. (2018), "RISE".

    The mean probability as cells become `blank`, the hottest first (low is good), and as they come back (high is good).
    `pixels` is a prepared patch, (1, 3, h, w) in [0, 1]; `order` (see `cell_order`) is cut into `steps` parts.
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
    with torch.inference_mode():
        parts = [evidence(model, part).cpu().double() for part in images.split(patches_at_once(model, images))]
    return model.info.calibration.apply(torch.cat(parts).numpy())


SHARES = (0.0, 0.5, 1.0)  # of the layers that are random; at least the last one
SUSPECT = 0.5  # rank correlation from which on a map is said not to depend on the weights


def cascade(model: Model, seed: int, shares: tuple[float, ...] = SHARES) -> Iterator[tuple[float, Model]]:
    """The model with ever more of its layers randomised, the last ones first: a map that stays explains the picture.

    Adebayo et al. (2018), "Sanity checks for saliency maps".

    The entries of each tensor of weights are shuffled: their size stays, what they have learnt goes. Running means and
    variances stay. In an ensemble all members are randomised alike.

    Yields each share of the layers that have weights (what it comes to, as at least one is randomised) and the model;
    nothing for a model without weights, as trees are. The trained model stays as it is.
    """
    generator = torch.Generator().manual_seed(seed)
    for share in shares:
        network = copy.deepcopy(model.network)
        layers = [_layers(member) for member, _ in network.members()]
        if not all(layers):
            return
        counts = [max(1, math.ceil(share * len(each))) for each in layers]
        for each, count in zip(layers, counts, strict=True):
            for layer in each[:count]:
                _shuffle(layer, generator)
        yield counts[0] / len(layers[0]), Model(model.info, network, model.device)


def _layers(network: nn.Module) -> list[nn.Module]:
    """Modules with weights of their own, from the output to the input."""
    return [module for module in network.modules() if any(True for _ in module.parameters(recurse=False))][::-1]


@torch.no_grad()
def _shuffle(layer: nn.Module, generator: torch.Generator) -> None:
    for weights in layer.parameters(recurse=False):
        order = torch.randperm(weights.numel(), generator=generator).to(weights.device)
        weights.copy_(weights.flatten()[order].view_as(weights))


def rank_correlation(first: np.ndarray, second: np.ndarray) -> float:
    """Spearman's correlation of the strengths of two maps, signs left out: a map that only turns round has not changed.

    0 where the second is flat (it has changed), NaN where the first is.

    Example:
        >>> rank_correlation(np.array([[1.0, 2.0, 9.0]]), np.array([[0.0, -0.5, -0.6]]))
        1.0
    """
    strengths = np.abs(first).ravel(), np.abs(second).ravel()
    if np.ptp(strengths[0]) == 0:
        return float("nan")
    if np.ptp(strengths[1]) == 0:
        return 0.0
    return float(round(np.corrcoef(rankdata(strengths[0]), rankdata(strengths[1]))[0, 1], 12))


def similarity(first: np.ndarray, second: np.ndarray) -> float:
    """Structural similarity (Wang et al. 2004) of two maps' strengths, scaled to [0, 1]; NaN where one is flat."""
    strengths = [np.abs(first), np.abs(second)]
    if any(np.ptp(each) == 0 for each in strengths):
        return float("nan")
    side = min(7, min(first.shape) - 1 + min(first.shape) % 2)
    scaled = [each / each.max() for each in strengths]
    return float(structural_similarity(*scaled, data_range=1.0, win_size=side))
