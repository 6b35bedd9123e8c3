"""Class activation maps: the last map of features, weighed by how the logit depends on it."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional

from tumortrace.errors import ModelError
from tumortrace.images.geometry import symmetry
from tumortrace.inference.explain.evidence import framed, members_of, network_inputs, turned_back, views_of
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
    outer = network_inputs(model, pixels)
    views = views_of(model, outer)
    turned = torch.cat([symmetry(outer, view) for view in views])
    size = (turned.shape[2], turned.shape[3])
    members = members_of(model.network)
    total = torch.zeros(len(turned), 1, *size, device=turned.device)
    for network, steps in members:
        seen = steps.pixels(turned)
        crop = (min(steps.crop or size[0], size[0]), min(steps.crop or size[1], size[1]))
        activations, gradients = _at_layer(network, steps.normalise(seen), model.info.name)
        maps = rule(activations, gradients).clamp_min(0)
        total += framed(functional.interpolate(maps, crop, mode="bilinear", align_corners=False), size)
    per_view = (total / len(members)).chunk(len(views))
    mean = torch.stack([turned_back(maps, view) for maps, view in zip(per_view, views, strict=True)]).mean(0)
    return functional.interpolate(mean, pixels.shape[2:], mode="bilinear", align_corners=False)


def layers_of(model: Model) -> list[str]:
    """Name of the layer in each member whose features are weighed; fewer where a member has none."""
    names = [getattr(network, "attention_layer", None) for network, _ in members_of(model.network)]
    return [str(name) for name in names if name is not None]


def _at_layer(network: nn.Module, inputs: Tensor, name: str) -> tuple[Tensor, Tensor]:
    """Activations of a network's `attention_layer` and the logit's gradients there, both (N, C, h, w)."""
    layer = getattr(network, "attention_layer", None)
    if layer is None:
        raise ModelError(
            "a class activation map needs a map of features with gradients, which this model has not",
            where=name,
            remedy="use the method occlusion, which works with any model",
        )
    kept: list[Tensor] = []
    hook = network.get_submodule(str(layer)).register_forward_hook(lambda _module, _inputs, output: kept.append(output))
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
    body = getattr(network, "body", None)
    return _as_maps(kept[0].detach(), body, name), _as_maps(gradients, body, name)


def _as_maps(features: Tensor, body: nn.Module | None, name: str) -> Tensor:
    """Features in the order (N, C, h, w): tokens of a transformer are laid out, prefix tokens dropped."""
    if features.ndim == 4:
        return features.permute(0, 3, 1, 2) if getattr(body, "output_fmt", "NCHW") == "NHWC" else features
    if features.ndim == 3:
        grid = _grid(features.shape[1], body)
        if grid is not None:
            patches = features[:, features.shape[1] - grid[0] * grid[1] :]
            return patches.transpose(1, 2).unflatten(2, grid)
    raise ModelError(
        f"features of shape {tuple(features.shape)} cannot be laid out as a map",
        where=name,
        remedy="use integrated-gradients or occlusion, which need none",
    )


def _grid(tokens: int, body: nn.Module | None) -> tuple[int, int] | None:
    """Rows and columns of the patches among `tokens`, of which some may stand for the whole image."""
    prefix = int(getattr(body, "num_prefix_tokens", 0) or 0)
    known = getattr(getattr(body, "patch_embed", None), "grid_size", None)
    for patches in (tokens, tokens - prefix):
        if known is not None and known[0] * known[1] == patches:
            return int(known[0]), int(known[1])
        side = round(patches**0.5)
        if known is None and side * side == patches:
            return side, side
    # the body was built for another size than the images have, or pools between its stages
    for patches in (tokens, tokens - prefix):
        side = round(patches**0.5)
        if side * side == patches:
            return side, side
    return None
