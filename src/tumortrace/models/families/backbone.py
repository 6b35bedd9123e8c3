"""Published bodies (timm, torchvision, model hubs) with a head of our own (Systems A, B, D and E, probes)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn

from tumortrace.errors import ModelError
from tumortrace.models.architecture import ARCHITECTURES, Network
from tumortrace.models.bodies import TorchvisionBody, body_for, resolved
from tumortrace.models.foundation import HUB, foundation_model
from tumortrace.models.layers import CentreAttention, build_head, build_pooling

TOKENS = ("token", "token+mean", "average")


class Backbone(Network):
    """A published body, pooling, a head and one logit; weights are random until `load_weights` fills the body.

    Args:
        input_size: Height and width in pixels.
        body: A foundation model of the table ("uni2-h"), a name of timm ("resnet50", "hf-hub:owner/name") or, for
            models with a convolutional part called `features`, of torchvision ("torchvision/squeezenet1_1").
        options: Further arguments of timm's builder of the body; those that are classes by their names, as in
            `mlp_layer: SwiGLUPacked`, which are looked up in timm.layers and torch.nn.
        pooling: "flatten", "average" or "centre" (see `build_pooling`); "own": the body's own, as for transformers; of
            tokens "token", the class token, "token+mean", beside it the mean of the patches' tokens, registers left
            out, or "average", that mean alone. None takes what the table says of the body, else "average" of maps and
            "own" of tokens.
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
        pooling: str | None = None,
        attention: bool = False,
        head: Sequence[Mapping[str, Any]] = (),
        outputs: int = 1,
    ) -> None:
        super().__init__()
        self.published = body.replace("hf_hub:", HUB, 1)
        body, options = resolved(self.published, options or {})
        row = foundation_model(self.published)
        self.body = body_for(body, options, input_size)
        pooling = pooling or (row.pooling if row else _usual_pooling(self.body))
        if pooling != "own" and hasattr(self.body, "pre_logits"):
            self.body.pre_logits = nn.Identity()  # VGG's two layers of 4096, which only its own classifier uses
        self.own_pooling = pooling == "own"
        self.tokens = _token_pooling(self.body, pooling, body)
        self._resolved = {"body": body, "options": dict(options), "pooling": pooling}
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
        """The architecture and the pooling that a name stands for."""
        return self._resolved

    def maps(self, images: Tensor) -> Tensor:
        """What the body makes of images, (N, C, h, w), or (N, D) where it pools for itself."""
        whole = self.own_pooling or isinstance(self.body, TorchvisionBody)
        made = cast(Callable[[Tensor], Tensor], self.body if whole else self.body.forward_features)(images)
        return made if self.tokens is None else self.tokens(made)

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

    def _usual(self) -> str:
        side = getattr(getattr(self.body, "patch_embed", None), "img_size", None)
        return f"which is {side[0]}" if side else "often 224"

    @torch.no_grad()
    def _shape(self, name: str, input_size: tuple[int, int]) -> tuple[int, ...]:
        self.body.eval()
        try:
            shape = tuple(self.maps(torch.zeros(1, 3, *input_size)).shape)
        except (RuntimeError, AssertionError) as error:
            raise ModelError(
                f"body {name!r} does not take images of {input_size[0]}x{input_size[1]} px ({error})",
                remedy=f"set preprocessing.size to what the body was made for, {self._usual()}",
            ) from error
        self.body.train()
        maps = len(shape) == 4 and shape[1] == getattr(self.body, "num_features", shape[1])
        if not (len(shape) == 2 if self.own_pooling or self.tokens else maps):
            fits = "average" if len(shape) == 4 else "token, token+mean or average" if self.own_pooling else "own"
            raise ModelError(
                f"body {name!r} gives features of shape {shape}", remedy=f"set model.arguments.pooling to {fits}"
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


class TokenPooling(nn.Module):
    """Of tokens (N, T, C), those before the patches' first: (N, C), or (N, 2 C) for "token+mean".

    Args:
        pooling: One of `TOKENS`.
        prefix: How many tokens stand for no patch: the class token and registers.

    Example:
        >>> TokenPooling("token+mean", 2)(torch.tensor([[[1.0], [9.0], [2.0], [4.0]]])).tolist()
        [[1.0, 3.0]]
    """

    def __init__(self, pooling: str, prefix: int) -> None:
        super().__init__()
        self.pooling, self.prefix = pooling, prefix

    def forward(self, tokens: Tensor) -> Tensor:
        mean = tokens[:, self.prefix :].mean(1) if self.pooling != "token" else None
        if mean is None or self.pooling == "average":
            return tokens[:, 0] if mean is None else mean
        return torch.cat([tokens[:, 0], mean], 1)


def _usual_pooling(body: nn.Module) -> str:
    """What is pooled where neither the recipe nor the table says: maps on average, tokens as the body does."""
    prefix = getattr(body, "num_prefix_tokens", None)
    if prefix is None:
        return "average"
    if getattr(body, "global_pool", "token") != "":
        return "own"
    return "token" if prefix else "average"


def _token_pooling(body: nn.Module, pooling: str, name: str) -> TokenPooling | None:
    """The pooling of a body's tokens; None where it has none, or they are not pooled here."""
    prefix = getattr(body, "num_prefix_tokens", None)
    if pooling not in TOKENS or (prefix is None and pooling == "average"):
        return None
    if pooling != "average" and not prefix:
        raise ModelError(
            f"body {name!r} has no class token for pooling {pooling!r}",
            remedy="set model.arguments.pooling to own or average",
        )
    return TokenPooling(pooling, prefix or 0)


ARCHITECTURES.register("backbone")(Backbone)
