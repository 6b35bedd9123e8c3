"""The methods of explaining by name, and the one door to all of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from torch import Tensor
from torch.nn import functional

from tumortrace.errors import ModelError
from tumortrace.inference.explain.attributions import centre, edges, integrated_gradients, occlusion
from tumortrace.inference.explain.cam import Rule, class_activation_maps, grad_cam, grad_cam_plus_plus, layer_cam
from tumortrace.inference.explain.evidence import framed, prepared_pixels, require_gradients
from tumortrace.models.bundle import Model

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
        needs: Refuses with ModelError a model, shown prepared patches, that the method does not fit; None where it
            fits any.
    """

    title: str
    paper: str
    maps: Callable[[Model, Tensor], Tensor]
    unit: str | None
    signed: bool = False
    additive: bool = False
    needs: Callable[[Model, Tensor], object] | None = None


def _cam(rule: Rule) -> Callable[[Model, Tensor], Tensor]:
    return lambda model, pixels: class_activation_maps(model, pixels, rule)


_grad_cam = _cam(grad_cam)

#: A row here, and the function that it names, is all that a method takes.
METHODS: dict[str, Method] = {
    "grad-cam": Method("Grad-CAM", "Selvaraju et al. (2017)", _grad_cam, "logit", needs=_grad_cam),
    "grad-cam++": Method("Grad-CAM++", "Chattopadhay et al. (2018)", _cam(grad_cam_plus_plus), None, needs=_grad_cam),
    "layer-cam": Method("Layer-CAM", "Jiang et al. (2021)", _cam(layer_cam), "logit", needs=_grad_cam),
    "integrated-gradients": Method(
        "Integrated gradients",
        "Sundararajan et al. (2017)",
        integrated_gradients,
        "logit",
        signed=True,
        additive=True,
        needs=require_gradients,
    ),
    "occlusion": Method("Occlusion", "Zeiler and Fergus (2014)", occlusion, "logit", signed=True),
}

CONTROLS: dict[str, Method] = {
    "centre": Method("Centre bump (control)", "", centre, None),
    "edges": Method("Edge detector (control)", "", edges, None),
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
    model.require_shape(images)
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


def refusals(model: Model) -> dict[str, ModelError]:
    """Why a model cannot be explained by some methods, told by trying on noise what each kind of them needs.

    Hand-made descriptors have no gradients, and some networks no map of features: `occlusion` is always left.
    """
    noise = np.random.default_rng(0).integers(60, 240, (1, *model.info.patch_size, 3), dtype=np.uint8)
    pixels = prepared_pixels(model, noise)
    refused: dict[object, ModelError] = {}
    for needs in {method.needs for method in METHODS.values()}:
        try:
            if needs is not None:
                needs(model, pixels)
        except ModelError as error:
            refused[needs] = error
    return {name: refused[method.needs] for name, method in METHODS.items() if method.needs in refused}


def allowed_methods(model: Model) -> list[str]:
    """Names of the methods that a model can be explained by."""
    refused = refusals(model)
    return [name for name in METHODS if name not in refused]


def _heat(model: Model, images: np.ndarray, method: Method) -> np.ndarray:
    maps = method.maps(model, prepared_pixels(model, images)).detach()
    crop = seen_by(model)
    if tuple(maps.shape[2:]) != crop:  # enlarged by super-resolution
        share = maps.shape[2] * maps.shape[3] / (crop[0] * crop[1]) if method.additive else 1
        maps = functional.interpolate(maps, crop, mode="area") * share
    return framed(maps, model.info.patch_size)[:, 0].cpu().numpy().astype(np.float64)


def seen_by(model: Model) -> tuple[int, int]:
    """Height and width in pixels of the centre crop that the network sees."""
    height, width = model.info.patch_size
    crop = model.info.preprocessing.crop
    return min(crop or height, height), min(crop or width, width)
