"""The model as one function of a patch's pixels, through which gradients flow: what all methods explain."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional
from torchvision.transforms.functional import gaussian_blur

from tumortrace.errors import ModelError
from tumortrace.models.bundle import Model
from tumortrace.models.device import prediction_batch


def prepared_pixels(model: Model, images: np.ndarray) -> Tensor:
    """Patches after `Preprocessing.prepare`, scaled.

    Args:
        model: The model.
        images: uint8, shape (N, H, W, 3); H and W are the bundle's `patch_size`.

    Returns:
        float32, shape (N, 3, h, w), range [0, 1], on the model's device; h and w are the bundle's prepared size.
    """
    prepared = np.array(model.info.preprocessing.prepare(images), order="C")  # of its own: images may be read-only
    return torch.from_numpy(prepared).permute(0, 3, 1, 2).to(model.device).float() / 255


def evidence(model: Model, pixels: Tensor) -> Tensor:
    """The logit of the positive class as `Model.logits` gives it, the mean over symmetries included.

    Args:
        model: The model.
        pixels: float32, shape (N, 3, h, w), range [0, 1]: what `prepared_pixels` gives.

    Returns:
        float32, shape (N,); differentiable wherever the network is.
    """
    turned = model.info.views.together(network_inputs(model, pixels))
    logits: Tensor = model.network(turned.contiguous(memory_format=torch.channels_last))
    return model.info.views.mean(logits.float())


def network_inputs(model: Model, pixels: Tensor) -> Tensor:
    """Prepared patches in [0, 1] as the network takes them."""
    steps = model.info.preprocessing
    return steps.normalise(steps.pixels(pixels))


def framed(maps: Tensor, size: tuple[int, int]) -> Tensor:
    """Maps (N, 1, h, w) of a centre crop as maps of the whole, (N, 1, *size); zero outside of the crop.

    Example:
        >>> framed(torch.ones(1, 1, 1, 2), (3, 4))[0, 0].tolist()
        [[0.0, 0.0, 0.0, 0.0], [0.0, 1.0, 1.0, 0.0], [0.0, 0.0, 0.0, 0.0]]
    """
    top, left = ((whole - part) // 2 for whole, part in zip(size, maps.shape[2:], strict=True))
    bottom, right = size[0] - maps.shape[2] - top, size[1] - maps.shape[3] - left
    return functional.pad(maps, (left, right, top, bottom))


def patches_at_once(model: Model, pixels: Tensor) -> int:
    """How many patches of this size to ask `evidence` about at once."""
    return max(1, prediction_batch((pixels.shape[2], pixels.shape[3])) // len(model.info.views))


def require_gradients(model: Model, pixels: Tensor) -> None:
    """Refuse a model that no gradient passes through: hand-made descriptors, trees, votes of neighbours.

    Raises:
        ModelError: No gradient reaches the pixels.
    """
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


GLASS, AIR = 0.95, 0.0


def blank(pixels: Tensor) -> Tensor:
    """What each patch would show with nothing there: bright glass where it has colours, black air where it is grey.

    A classifier of stained tissue knows glass and finds no tumour on it. The patch's mean colour or a blurred copy say
    less than one would think: flat violet is what a dense nest of cells looks like from afar, and networks take it for
    that (`measure` records with what probability). Grey pictures are taken for radiology, whose background is black.

    Args:
        pixels: float32, shape (N, 3, h, w), range [0, 1].

    Returns:
        float32 of the same shape.

    Example:
        >>> violet, grey = torch.tensor([0.5, 0.2, 0.6]), torch.tensor([0.4, 0.4, 0.4])
        >>> [round(level, 2) for level in blank(torch.stack([violet, grey]).view(2, 3, 1, 1))[:, 0, 0, 0].tolist()]
        [0.95, 0.0]
    """
    coloured = (pixels.amax(1) - pixels.amin(1)).amax((1, 2)) > 2 / 255
    level = torch.where(coloured, pixels.new_tensor(GLASS), pixels.new_tensor(AIR))
    return level.view(-1, 1, 1, 1).expand_as(pixels).contiguous()


def _mean_colour(pixels: Tensor) -> Tensor:
    return pixels.mean((2, 3), keepdim=True).expand_as(pixels).contiguous()


def _blurred(pixels: Tensor) -> Tensor:
    deviation = max(pixels.shape[2:]) / 6
    side = 2 * (min(pixels.shape[2:]) // 3) + 1
    return gaussian_blur(pixels, [side, side], [deviation, deviation])


#: The blank patch, and others that one could compare with.
BASELINES: dict[str, Callable[[Tensor], Tensor]] = {
    "glass or air": blank,
    "its own mean colour": _mean_colour,
    "blurred": _blurred,
}
