"""Integrated gradients: what each pixel adds to the logit on the way from a patch without structure."""

from __future__ import annotations

import torch
from captum.attr import IntegratedGradients
from torch import Tensor

from tumortrace.errors import ModelError
from tumortrace.inference.explain.baseline import blank
from tumortrace.inference.explain.evidence import evidence
from tumortrace.models.bundle import Model
from tumortrace.models.device import prediction_batch

STEPS = 32


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
    at_once = max(1, prediction_batch((pixels.shape[2], pixels.shape[3])) // (8 if model.info.symmetries else 1))
    method = IntegratedGradients(lambda values: evidence(model, values), multiply_by_inputs=True)
    with torch.enable_grad():
        attributions: Tensor = method.attribute(
            pixels.contiguous(), blank(pixels), n_steps=steps, internal_batch_size=max(at_once, len(pixels))
        )
    return attributions.detach().sum(1, keepdim=True)


def require_gradients(model: Model, pixels: Tensor) -> None:
    """Refuse a model that no gradient passes through: hand-made descriptors, trees, votes of neighbours."""
    with torch.enable_grad():
        asked = pixels.detach().requires_grad_()
        logits = evidence(model, asked)
        found = torch.autograd.grad(logits.sum(), asked, allow_unused=True)[0] if logits.requires_grad else None
    if found is None:
        raise ModelError(
            f"no gradient reaches the pixels of this {model.info.architecture.name} model",
            where=model.info.name,
            remedy="use the method occlusion, which works with any model",
        )
