"""Maps of evidence by asking the model about changed patches, and two controls that ask it nothing."""

from __future__ import annotations

import torch
from captum.attr import IntegratedGradients, Occlusion
from torch import Tensor
from torch.nn import functional

from tumortrace.inference.explain.evidence import blank, evidence, patches_at_once, require_gradients
from tumortrace.models.bundle import Model

PARTS, STEPS = 6, 32  # the window's side is this part of the shorter side; points on the path of integrated gradients


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
    method = Occlusion(lambda values: evidence(model, values))
    with torch.inference_mode():
        attributions: Tensor = method.attribute(
            pixels.contiguous(),
            sliding_window_shapes=(3, min(side, height), min(side, width)),
            strides=(3, stride, stride),
            baselines=blank(pixels),
            perturbations_per_eval=max(1, patches_at_once(model, pixels) // len(pixels)),
        )
    return attributions.float().mean(1, keepdim=True)


def integrated_gradients(model: Model, pixels: Tensor, *, steps: int = STEPS) -> Tensor:
    """Integrated gradients of the logit, summed over colours. Sundararajan et al. (2017), "Axiomatic attribution".

    The path starts at `blank`; the map's sum is the logit of the patch less that of the blank one, but for the error
    of the sum that stands for the integral.

    Args:
        model: The model.
        pixels: float32, shape (N, 3, h, w), range [0, 1]: prepared patches.
        steps: Points on the path.

    Returns:
        float32, shape (N, 1, h, w), in units of the logit; negative where a pixel speaks against the positive class.

    Raises:
        ModelError: No gradient reaches the pixels.
    """
    require_gradients(model, pixels[:1])
    method = IntegratedGradients(lambda values: evidence(model, values), multiply_by_inputs=True)
    with torch.enable_grad():
        attributions: Tensor = method.attribute(
            pixels.contiguous(),
            blank(pixels),
            n_steps=steps,
            internal_batch_size=max(patches_at_once(model, pixels), len(pixels)),
        )
    return attributions.detach().sum(1, keepdim=True)


def centre(_model: Model, pixels: Tensor) -> Tensor:
    """A bump over the centre, whatever the picture and the model: patches are labelled by their centre."""
    rows, columns = (torch.linspace(-1, 1, side, device=pixels.device) for side in pixels.shape[2:])
    bump = torch.exp(-2 * (rows[:, None] ** 2 + columns[None] ** 2))
    return bump.expand(len(pixels), 1, *bump.shape)


def edges(_model: Model, pixels: Tensor) -> Tensor:
    """The strength of edges (Sobel), whatever the model: what looks like an explanation and is none."""
    grey = functional.pad(pixels.mean(1, keepdim=True), (1, 1, 1, 1), mode="replicate")
    kernel = torch.tensor([[1.0, 2.0, 1.0], [0.0, 0.0, 0.0], [-1.0, -2.0, -1.0]], device=pixels.device)
    both = functional.conv2d(grey, torch.stack([kernel, kernel.T])[:, None])
    return both.norm(dim=1, keepdim=True)
