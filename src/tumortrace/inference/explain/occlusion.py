"""Occlusion: how far the logit falls when a window is covered. Works with any model, gradients or not."""

from __future__ import annotations

import torch
from captum.attr import Occlusion
from torch import Tensor

from tumortrace.inference.explain.baseline import blank
from tumortrace.inference.explain.evidence import evidence
from tumortrace.models.bundle import Model
from tumortrace.models.device import prediction_batch

PARTS = 6  # the window's side is this part of the shorter side


def window_side(height: int, width: int) -> int:
    """Side of the covering window in pixels.

    Example:
        >>> window_side(64, 64), window_side(8, 8)
        (10, 2)
    """
    return max(2, min(height, width) // PARTS)


def occlusion(model: Model, pixels: Tensor, *, side: int | None = None, stride: int | None = None) -> Tensor:
    """Fall of the logit when a window is covered with `blank`; the mean over the windows that cover a pixel.

    Zeiler and Fergus (2014), "Visualizing and understanding convolutional networks".

    Args:
        model: Any model.
        pixels: float32, shape (N, 3, h, w), range [0, 1]: prepared patches.
        side: Of the window in pixels; default `window_side`.
        stride: Step between windows in pixels; default half a window.

    Returns:
        float32, shape (N, 1, h, w), in units of the logit; negative where what was covered spoke against the
        positive class.
    """
    height, width = pixels.shape[2:]
    side = side or window_side(height, width)
    stride = stride or max(1, side // 2)
    at_once = prediction_batch((height, width)) // (8 if model.info.symmetries else 1) // len(pixels)
    method = Occlusion(lambda values: evidence(model, values))
    with torch.inference_mode():
        attributions: Tensor = method.attribute(
            pixels.contiguous(),
            sliding_window_shapes=(3, min(side, height), min(side, width)),
            strides=(3, stride, stride),
            baselines=blank(pixels),
            perturbations_per_eval=max(1, at_once),
        )
    return attributions.float().mean(1, keepdim=True)
