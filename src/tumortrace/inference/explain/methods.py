"""The methods of explaining by name, and the one door to all of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from captum.attr import IntegratedGradients, Occlusion
from torch import Tensor
from torch.nn import functional

from tumortrace.errors import ModelError
from tumortrace.inference.explain.cam import Rule, class_activation_maps, grad_cam, grad_cam_plus_plus, layer_cam
from tumortrace.inference.explain.evidence import blank, evidence, framed, prepared_pixels
from tumortrace.models.bundle import Model
from tumortrace.models.device import prediction_batch

# Occlusion: how far the logit falls when a window is covered. Works with any model, gradients or not.


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
    at_once = prediction_batch((height, width)) // len(model.info.views) // len(pixels)
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


# Integrated gradients: what each pixel adds to the logit on the way from a patch without structure.


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
    at_once = max(1, prediction_batch((pixels.shape[2], pixels.shape[3])) // len(model.info.views))
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


# Heat maps that explain nothing, to measure methods against: a good measure must tell them from the real ones.


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


BATCH = 16


@dataclass(frozen=True)
class Method:
    """One way to explain.

    Attributes:
        title: Name as people write it.
        paper: Where it was published.
        maps: From a model and prepared patches, float32 (N, 3, h, w) in [0, 1], to maps (N, 1, h, w).
        unit: Of the heat: "logit", or None where it has none.
        signed: Whether there is negative heat, against the positive class.
        additive: Whether the map's sum means something, so that scaling must keep it.
        gradients: Whether the model must let gradients through.
    """

    title: str
    paper: str
    maps: Callable[[Model, Tensor], Tensor]
    unit: str | None
    signed: bool = False
    additive: bool = False
    gradients: bool = True


def _cam(rule: Rule) -> Callable[[Model, Tensor], Tensor]:
    return lambda model, pixels: class_activation_maps(model, pixels, rule)


METHODS: dict[str, Method] = {
    "grad-cam": Method("Grad-CAM", "Selvaraju et al. (2017)", _cam(grad_cam), "logit"),
    "grad-cam++": Method("Grad-CAM++", "Chattopadhay et al. (2018)", _cam(grad_cam_plus_plus), None),
    "layer-cam": Method("Layer-CAM", "Jiang et al. (2021)", _cam(layer_cam), "logit"),
    "integrated-gradients": Method(
        "Integrated gradients",
        "Sundararajan et al. (2017)",
        integrated_gradients,
        "logit",
        signed=True,
        additive=True,
    ),
    "occlusion": Method("Occlusion", "Zeiler and Fergus (2014)", occlusion, "logit", signed=True, gradients=False),
}

CONTROLS: dict[str, Method] = {
    "centre": Method("Centre bump (control)", "", centre, None, gradients=False),
    "edges": Method("Edge detector (control)", "", edges, None, gradients=False),
}


def heat_map(model: Model, image: np.ndarray, method: str = "grad-cam") -> np.ndarray:
    """Where in a patch the evidence for the positive class lies.

    What is explained is the logit that is predicted: the mean over the symmetries where the model averages over them,
    and all members of an ensemble.

    Args:
        model: A loaded model.
        image: uint8, shape (H, W, 3); H and W are the bundle's `patch_size`.
        method: A name in `METHODS`.

    Returns:
        float64, shape (H, W), in the method's unit; zero outside of the crop that the network sees. In [0, inf)
        unless the method is `signed`: then what speaks against the positive class is negative.

    Raises:
        ModelError: There is no such method, the image has another shape or type, or the model does not fit the method
            (hand-made descriptors have no gradients: `occlusion` works with any model).
    """
    return heat_maps(model, image[None], method)[0]


def heat_maps(model: Model, images: np.ndarray, method: str = "grad-cam") -> np.ndarray:
    """`heat_map` of several patches at once: uint8 (N, H, W, 3) to float64 (N, H, W)."""
    chosen = require_method(method)
    height, width = model.info.patch_size
    if images.ndim != 4 or images.dtype != np.uint8 or images.shape[1:] != (height, width, 3):
        raise ModelError(
            f"images of shape {images.shape} and type {images.dtype}",
            expected=f"uint8 images of shape (N, {height}, {width}, 3)",
            remedy="resize with tumortrace.images.decoding.fit",
        )
    return heat_of(model, images, chosen)


def heat_of(model: Model, images: np.ndarray, method: Method) -> np.ndarray:
    """`heat_maps` by a method that need not be registered."""
    batches = (images[start : start + BATCH] for start in range(0, len(images), BATCH))
    parts = [_heat(model, batch, method) for batch in batches]
    return np.concatenate(parts) if parts else np.empty((0, *model.info.patch_size))


def require_method(name: str) -> Method:
    """The method of this name.

    Raises:
        ModelError: There is none.
    """
    if name not in METHODS:
        raise ModelError(
            f"no method of explaining named {name!r}", expected="one of " + ", ".join(METHODS), remedy="choose one"
        )
    return METHODS[name]


def allowed_methods(model: Model) -> list[str]:
    """Names of the methods that a model can be explained by, told by trying them on noise, once each way.

    Hand-made descriptors have no gradients, and some networks no map of features: `occlusion` is always left.
    """
    noise = np.random.default_rng(0).integers(60, 240, (1, *model.info.patch_size, 3), dtype=np.uint8)
    pixels = prepared_pixels(model, noise)
    checks: dict[bool, Callable[[], object]] = {
        True: lambda: require_gradients(model, pixels),
        False: lambda: METHODS["grad-cam"].maps(model, pixels),
    }
    works: dict[bool, bool] = {}
    for additive, check in checks.items():
        try:
            check()
            works[additive] = True
        except ModelError:
            works[additive] = False
    return [name for name, method in METHODS.items() if not method.gradients or works[method.additive]]


def _heat(model: Model, images: np.ndarray, method: Method) -> np.ndarray:
    maps = method.maps(model, prepared_pixels(model, images)).detach()
    steps, (height, width) = model.info.preprocessing, images.shape[1:3]
    crop = (min(steps.crop or height, height), min(steps.crop or width, width))
    if tuple(maps.shape[2:]) != crop:  # enlarged by super-resolution
        share = maps.shape[2] * maps.shape[3] / (crop[0] * crop[1]) if method.additive else 1
        maps = functional.interpolate(maps, crop, mode="area") * share
    return framed(maps, (height, width))[:, 0].cpu().numpy().astype(np.float64)
