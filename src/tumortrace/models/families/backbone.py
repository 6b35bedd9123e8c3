"""Published bodies (timm, torchvision, model hubs) with a head of our own (Systems A, B, D and E, probes)."""

from __future__ import annotations

import os
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from typing import Any, cast

import timm
import torch
import torchvision
from torch import Tensor, nn

from tumortrace.errors import ModelError
from tumortrace.models.architecture import ARCHITECTURES, Network
from tumortrace.models.layers import CentreAttention, build_head, build_pooling

TORCHVISION, HUB = "torchvision/", "hf-hub:"
BY_HAND = "name timm's architecture in model.arguments.body and give --weights FILE"


class TorchvisionBody(nn.Module):
    """The convolutional part of a torchvision model; its weights have the names that they have there."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self.features: nn.Module = torchvision.models.get_model(name, weights=None).features

    def forward(self, images: Tensor) -> Tensor:
        features: Tensor = self.features(images)
        return features


class Backbone(Network):
    """A published body, pooling, a head and one logit; weights are random until `load_weights` fills the body.

    Args:
        input_size: Height and width in pixels.
        body: A name of timm ("resnet50", "hf-hub:owner/name") or, for models with a convolutional part called
            `features`, of torchvision ("torchvision/squeezenet1_1").
        options: Further arguments of timm's builder of the body.
        pooling: "flatten", "average" or "centre" (see `build_pooling`), or "own": the body's own, as for transformers.
        attention: Whether positions are weighed before pooling, the centre more at first.
        head: Layers before the last, see `build_head`.
        outputs: 1, or 2 for a softmax over both classes.
    """

    top: nn.Sequential

    def __init__(
        self,
        input_size: tuple[int, int],
        body: str = "resnet18",
        options: Mapping[str, Any] | None = None,
        pooling: str = "average",
        attention: bool = False,
        head: Sequence[Mapping[str, Any]] = (),
        outputs: int = 1,
    ) -> None:
        super().__init__()
        self.own_pooling = pooling == "own"
        self.published = body
        body, options = self._resolved = _resolved(body, options or {})
        self.body = _build_body(body, options, keep_pooling=self.own_pooling)
        shape = self._shape(body, input_size)
        if len(shape) == 2:
            if attention:
                raise ModelError(
                    f"body {body!r} gives no map of features to weigh", remedy="leave model.arguments.attention out"
                )
            pool: nn.Module = nn.Identity()
            units = shape[1]
        else:
            pool, units = build_pooling(pooling, shape[1], (shape[2], shape[3]))
        if attention:
            pool = nn.Sequential(CentreAttention(shape[1], (shape[2], shape[3])), pool)
        learnt = any(True for _ in pool.parameters())
        self.pool = nn.Identity() if learnt else pool  # what is not learnt belongs to the features, which are kept
        self.top = nn.Sequential(*([pool] if learnt else []), build_head(units, head, outputs))
        self.attention_layer = self._attention_layer()

    @property
    def resolved_arguments(self) -> Mapping[str, Any]:
        """The architecture that a hub's name stands for."""
        return {"body": self._resolved[0], "options": self._resolved[1]}

    def maps(self, images: Tensor) -> Tensor:
        """What the body makes of images, (N, C, h, w), or (N, D) where it pools for itself."""
        whole = self.own_pooling or isinstance(self.body, TorchvisionBody)
        body = cast(Callable[[Tensor], Tensor], self.body if whole else self.body.forward_features)
        return body(images)

    def as_maps(self, activations: Tensor) -> Tensor:
        """As every network's; tokens of a transformer are laid out."""
        return super().as_maps(lay_out(activations, self.body))

    def _attention_layer(self) -> str | None:
        """The last map of features, or the last tokens that still speak to each other.

        After a transformer's last block nothing but its class token may count, so that no gradient reaches the patches:
        there it is what goes into the block's attention.
        """
        info = getattr(self.body, "feature_info", None)
        if not info:
            return None if self.own_pooling else "body"
        last = f"body.{info[-1]['module']}"
        tokens = hasattr(self.body, "num_prefix_tokens") and last.startswith("body.blocks.")
        return f"{last}.norm1" if tokens else last

    @torch.no_grad()
    def _shape(self, name: str, input_size: tuple[int, int]) -> tuple[int, ...]:
        self.body.eval()
        try:
            shape = tuple(self.maps(torch.zeros(1, 3, *input_size)).shape)
        except (RuntimeError, AssertionError) as error:
            raise ModelError(
                f"body {name!r} does not take images of {input_size[0]}x{input_size[1]} px ({error})",
                remedy="set preprocessing.size to what the body was made for, often 224",
            ) from error
        self.body.train()
        maps = len(shape) == 4 and shape[1] == getattr(self.body, "num_features", shape[1])
        if not (len(shape) == 2 if self.own_pooling else maps):
            raise ModelError(
                f"body {name!r} gives features of shape {shape}",
                remedy="set model.arguments.pooling to " + ("average" if self.own_pooling else "own"),
            )
        return shape


def lay_out(activations: Tensor, body: nn.Module) -> Tensor:
    """Activations in the order (N, C, h, w) without tokens for the whole image; as they are where unknown."""
    if activations.ndim == 4 and getattr(body, "output_fmt", "NCHW") == "NHWC":
        return activations.permute(0, 3, 1, 2)
    grid = _grid(activations.shape[1], body) if activations.ndim == 3 else None
    if grid is None:
        return activations
    return activations[:, activations.shape[1] - grid[0] * grid[1] :].transpose(1, 2).unflatten(2, grid)


def _grid(tokens: int, body: nn.Module) -> tuple[int, int] | None:
    """Rows and columns of the patches among `tokens`."""
    known = getattr(getattr(body, "patch_embed", None), "grid_size", None)
    patches = (tokens, tokens - int(getattr(body, "num_prefix_tokens", 0) or 0))
    if known is not None and known[0] * known[1] in patches:
        return int(known[0]), int(known[1])
    # no grid is named, or the body was built for another size than the images have, or pools between its stages
    sides = ((round(count**0.5), count) for count in patches)
    return next(((side, side) for side, count in sides if side * side == count), None)


def _resolved(name: str, options: Mapping[str, Any]) -> tuple[str, Mapping[str, Any]]:
    """A hub's name becomes timm's name of the architecture and its options, as the hub's `config.json` says."""
    if not name.startswith(HUB):
        return name, options
    hub = name.removeprefix(HUB)
    address = f"https://huggingface.co/{hub}/resolve/main/config.json"
    require_connection(address, f"the description of {name!r}")
    try:
        _, architecture, arguments = timm.models.load_model_config_from_hf(hub)
    except (OSError, ValueError, KeyError) as error:
        raise ModelError(
            f"the description of {name!r} could not be fetched ({type(error).__name__})",
            remedy=f"see that {address} opens for you (some need a login), or {BY_HAND}",
        ) from error
    return architecture, {**(arguments or {}), **options}


def require_connection(address: str, what: str, remedy: str | None = None) -> None:
    """Refuse at once where there is no network; libraries below would try for a minute.

    Raises:
        ModelError: Nobody answers at `address`. An answer of any kind, refusals included, will do.
    """
    if os.environ.get("HF_HUB_OFFLINE"):  # whoever sets it has the files in the hub's cache
        return
    try:
        urllib.request.urlopen(urllib.request.Request(address, method="HEAD"), timeout=20).close()
    except urllib.error.HTTPError:
        return
    except (OSError, ValueError) as error:
        raise ModelError(
            f"{what} could not be fetched from {address}: no connection", remedy=remedy or f"connect, or {BY_HAND}"
        ) from error


def _build_body(name: str, options: Mapping[str, Any], keep_pooling: bool) -> nn.Module:
    if name.startswith(TORCHVISION):
        try:
            return TorchvisionBody(name.removeprefix(TORCHVISION))
        except (ValueError, AttributeError) as error:
            raise ModelError(
                f"torchvision has no model {name.removeprefix(TORCHVISION)!r} with a part `features`",
                remedy="name another, or one of timm",
            ) from error
    try:
        body: nn.Module = timm.create_model(name, pretrained=False, num_classes=0, **options)
    except (RuntimeError, ValueError, TypeError, OSError) as error:
        near = timm.list_models(f"*{name.split('.')[0][:6]}*")[:5]
        remedy = f"name another body, such as {', '.join(near)}" if near else "name one that timm.list_models() lists"
        raise ModelError(f"timm cannot build {name!r} ({str(error).splitlines()[0]})", remedy=remedy) from error
    if not keep_pooling and hasattr(body, "pre_logits"):
        body.pre_logits = nn.Identity()  # VGG's two layers of 4096, which only its own classifier uses
    return body


ARCHITECTURES.register("backbone")(Backbone)
