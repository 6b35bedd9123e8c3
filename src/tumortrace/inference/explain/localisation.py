"""How much of the heat lies where the tumour truly is, for one heat map and its mask."""

from __future__ import annotations

import numpy as np
from sklearn.metrics import roc_auc_score


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
