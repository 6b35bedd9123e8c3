"""Class activation maps: the last map of features, weighed by how the logit depends on it."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional

from tumortrace.errors import ModelError
from tumortrace.inference.explain.evidence import framed, network_inputs
from tumortrace.models.architecture import Network
from tumortrace.models.bundle import Model

Rule = Callable[[Tensor, Tensor], Tensor]  # activations and gradients, both (N, C, h, w), to maps (N, 1, h, w)


def grad_cam(activations: Tensor, gradients: Tensor) -> Tensor:
    """Channels weighed by the mean of their gradients. Selvaraju et al. (2017), "Grad-CAM"."""
    return (gradients.mean((2, 3), keepdim=True) * activations).sum(1, keepdim=True)


def grad_cam_plus_plus(activations: Tensor, gradients: Tensor) -> Tensor:
    """Channels weighed by their positive gradients, places that are few in their channel more than many.

    Chattopadhay et al. (2018), "Grad-CAM++", equations 10 and 19 for a score behind an exponential function. They hold
    for rectified maps; where a map is not, a negative sum counts as zero.
    """
    total = activations.sum((2, 3), keepdim=True).clamp_min(0)
    share = torch.where(gradients > 0, 1 / (2 + total * gradients.clamp_min(0)), 0)
    weights = (share * gradients.clamp_min(0)).sum((2, 3), keepdim=True)
    return (weights * activations).sum(1, keepdim=True)


def layer_cam(activations: Tensor, gradients: Tensor) -> Tensor:
    """Each place weighed by its own positive gradient. Jiang et al. (2021), "LayerCAM"."""
    return (gradients.clamp_min(0) * activations).sum(1, keepdim=True)


def class_activation_maps(model: Model, pixels: Tensor, rule: Rule) -> Tensor:
    """Maps of what speaks for the positive class, at the resolution of the pixels.

    The mean over the symmetries that the model averages over, and over the members of an ensemble.

    Args:
        model: The model.
        pixels: float32, shape (N, 3, h, w), range [0, 1]: prepared patches.
        rule: How features are weighed.

    Returns:
        float32, shape (N, 1, h, w), range [0, inf).

    Raises:
        ModelError: A network has no map of features, or none through which gradients flow.
    """
    views, members = model.info.views, model.network.members()
    turned = views.together(network_inputs(model, pixels))
    size = (turned.shape[2], turned.shape[3])
    total = torch.zeros(len(turned), 1, *size, device=turned.device)
    for network, steps in members:
        seen = steps.pixels(turned)
        kept = (min(steps.crop or side, side) for side in size)
        crop = tuple(max(1, round(side * steps.framed)) for side in kept)
        activations, gradients = _at_layer(network, steps.normalise(seen), model.info.name)
        maps = rule(activations, gradients).clamp_min(0)
        total += framed(functional.interpolate(maps, crop, mode="bilinear", align_corners=False), size)
    mean = views.mean_turned_back(total / len(members))
    inner = [max(1, round(side * model.info.preprocessing.framed)) for side in pixels.shape[2:]]
    whole = (pixels.shape[2], pixels.shape[3])
    return framed(functional.interpolate(mean, inner, mode="bilinear", align_corners=False), whole)


def layers_of(model: Model) -> list[str]:
    """Name of the layer in each member whose features are weighed; fewer where a member has none."""
    return [network.attention_layer for network, _ in model.network.members() if network.attention_layer is not None]


def _at_layer(network: Network, inputs: Tensor, name: str) -> tuple[Tensor, Tensor]:
    """Activations of a network's `attention_layer` and the logit's gradients there, both (N, C, h, w)."""
    layer = network.attention_layer
    if layer is None:
        raise ModelError(
            "a class activation map needs a map of features with gradients, which this model has not",
            where=name,
            remedy="use the method occlusion, which works with any model",
        )
    kept: list[Tensor] = []
    hook = network.get_submodule(layer).register_forward_hook(lambda _module, _inputs, output: kept.append(output))
    try:
        with torch.enable_grad():
            logits = network(inputs.detach().requires_grad_().contiguous(memory_format=torch.channels_last))
            gradients = (
                torch.autograd.grad(logits.sum(), kept[0], allow_unused=True)[0] if logits.requires_grad else None
            )
    finally:
        hook.remove()
    if gradients is None:
        raise ModelError(
            "no gradient flows through this model's head",
            where=name,
            remedy="use the method occlusion, which works with any model",
        )
    return network.as_maps(kept[0].detach()), network.as_maps(gradients)
