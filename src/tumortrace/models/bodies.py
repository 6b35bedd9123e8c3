"""Published bodies: what a name stands for, and how it is built for images of a size."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from typing import Any

import timm
import torchvision
from timm.models.eva import Eva
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from tumortrace.errors import ModelError
from tumortrace.models.foundation import HUB, TORCHVISION, foundation_model, foundation_models
from tumortrace.models.hub import hub_description


class TorchvisionBody(nn.Module):
    """The convolutional part of a torchvision model; its weights have the names that they have there."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self.features: nn.Module = torchvision.models.get_model(name, weights=None).features

    def forward(self, images: Tensor) -> Tensor:
        features: Tensor = self.features(images)
        return features


def build_body(name: str, options: Mapping[str, Any]) -> nn.Module:
    """A body of timm without its classifier, freshly initialised.

    Args:
        name: Timm's.
        options: Arguments of its builder; those that are classes may be named.

    Raises:
        ModelError: There is none of that name, or an option does not fit.

    Example:
        >>> import torch
        >>> with torch.device("meta"):
        ...     body = build_body("vit_tiny_patch16_224", {"mlp_layer": "SwiGLUPacked", "act_layer": "SiLU"})
        >>> type(body.blocks[0].mlp).__name__
        'GluMlp'
    """
    known: dict[str, Any] = {key: _class(key, value) for key, value in options.items() if key != "num_classes"}
    try:
        body: nn.Module = timm.create_model(name, pretrained=False, num_classes=0, **known)
    except (RuntimeError, ValueError, TypeError, OSError, AssertionError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise ModelError(f"timm cannot build {name!r} ({reason})", remedy=_remedy(name)) from error
    return body


def _remedy(name: str) -> str:
    architecture = name.split(".")[0]
    if timm.is_model(architecture):
        return "mend model.arguments: the body's tag, or the options"
    near = difflib.get_close_matches(name.lower(), foundation_models()) + timm.list_models(f"*{architecture[:6]}*")[:5]
    return f"name another body, such as {', '.join(near)}" if near else "name one that timm.list_models() lists"


def _class(key: str, value: object) -> object:
    """The class that an option names, of timm.layers or torch.nn; what timm knows by a name of its own stays a name."""
    if not isinstance(value, str) or not key.endswith(("_layer", "_fn")):
        return value
    name = value.rpartition(".")[2]
    if not name[:1].isupper():
        return value
    places: tuple[object, ...] = (timm.layers, nn, timm.models.vision_transformer)
    # SwiGLUPacked is a partial of a class
    kind = next((kind for place in places if callable(kind := getattr(place, name, None))), None)
    if kind is None:
        raise ModelError(
            f"no class {value!r} in timm.layers or torch.nn",
            where=f"model.arguments.options.{key}",
            remedy="name one, as in mlp_layer: SwiGLUPacked",
        )
    return kind


def resolved(name: str, options: Mapping[str, Any]) -> tuple[str, Mapping[str, Any]]:
    """Timm's name of the architecture and its options, for a hub's name or one of the table, as the hub describes it.

    Of a model of the table no more than the hub's cache is asked, as its row says how to build it.
    """
    row = foundation_model(name)
    if row is None and not name.startswith(HUB):
        return name, options
    hub = name.removeprefix(HUB) if name.startswith(HUB) else row.hub if row else name
    described = hub_description(hub, cached=row is not None)
    if described is None:
        assert row is not None
        merged = {**row.options, **row.call, **options}
        return row.architecture, {key: value for key, value in merged.items() if key != "num_classes"}
    merged = {**(row.call if row else {}), **(described.get("model_args") or {}), **options}
    return described["architecture"], {key: value for key, value in merged.items() if key != "num_classes"}


def body_for(name: str, options: Mapping[str, Any], input_size: tuple[int, int]) -> nn.Module:
    """The body, for images of `input_size` where it is a transformer whose places are learnt."""
    if name.startswith(TORCHVISION):
        try:
            return TorchvisionBody(name.removeprefix(TORCHVISION))
        except (ValueError, AttributeError) as error:
            raise ModelError(
                f"torchvision has no model {name.removeprefix(TORCHVISION)!r} with a part `features`",
                remedy="name another, or one of timm",
            ) from error
    body = build_body(name, options)
    if not isinstance(body, VisionTransformer | Eva):
        return body
    made_for, step = body.patch_embed.img_size, body.patch_embed.patch_size
    if made_for is not None and tuple(made_for) != tuple(input_size):
        if any(side % patch for side, patch in zip(input_size, step, strict=True)):
            raise ModelError(
                f"body {name!r} does not take images of {input_size[0]}x{input_size[1]} px, as its patches are of "
                f"{step[0]} px",
                remedy=f"set preprocessing.size to a multiple of {step[0]}, such as {made_for[0]}",
            )
        body.set_input_size(img_size=(input_size[0], input_size[1]))
    return body
