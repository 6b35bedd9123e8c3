"""The randomisation test: a map that stays when the weights go explains the picture, not the model.

Adebayo et al. (2018), "Sanity checks for saliency maps": weights are randomised from the output towards the input, and
maps are compared with those of the trained model.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator

import numpy as np
import torch
from scipy.stats import rankdata
from skimage.metrics import structural_similarity
from torch import nn

from tumortrace.inference.explain.evidence import members_of
from tumortrace.models.bundle import Model

SHARES = (0.0, 0.5, 1.0)  # of the layers that are random; at least the last one
SUSPECT = 0.5  # rank correlation from which on a map is said not to depend on the weights


def cascade(model: Model, seed: int, shares: tuple[float, ...] = SHARES) -> Iterator[tuple[float, Model]]:
    """The model with ever more of its layers randomised, the last ones first.

    The entries of each tensor of weights are shuffled: their size stays, what they have learnt goes. Running means and
    variances stay. In an ensemble all members are randomised alike.

    Args:
        model: A trained model; it stays as it is.
        seed: Of the shuffles.
        shares: Of the layers that have weights.

    Yields:
        Each share (what it comes to, as at least one layer is randomised) and the model; nothing for a model without
        weights, as trees are.
    """
    generator = torch.Generator().manual_seed(seed)
    for share in shares:
        network = copy.deepcopy(model.network)
        layers = [_layers(member) for member, _ in members_of(network)]
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
