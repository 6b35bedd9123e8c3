"""What every network family promises, and the families by name."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar, cast

from pydantic import BaseModel, ValidationError
from torch import Tensor, nn

from tumortrace.errors import ModelError, shown
from tumortrace.images.preprocessing import Preprocessing
from tumortrace.models.layers import LogOdds, with_classes
from tumortrace.registry import Registry

#: What a body makes of images: maps (N, C, h, w), tokens or vectors (N, D), or those of each member of an ensemble.
Maps = Tensor | list[Any]
Arguments = TypeVar("Arguments", bound=BaseModel)


class Network(nn.Module):
    """What a network family promises: `body` makes maps of images, `top` logits of them; both may be frozen by name.

    It is a class and no `typing.Protocol`, because whoever holds a network also asks for what `nn.Module` offers. A
    family has to set `body` and `top`; all else has a default that fits a body of convolutions.

    Attributes:
        body: From normalised float32 images (N, 3, height, width).
        pool: From what the body makes to what `top` takes; nothing in it learns. By default it changes nothing.
        top: From `features` to logits (N, 1) of the positive class.
        attention_layer: Submodule whose activations are weighed for class activation maps; None where there is none.
        published: Name of the published body that `body` has the tensors of, whose `features` are also worth keeping
            when it is frozen; None for a body of our own.
        takes_features: Whether it takes features of a slide's tiles in place of images; then `top` is all that learns.
    """

    body: nn.Module
    pool: nn.Module
    top: nn.Module
    attention_layer: str | None = "body"
    published: str | None = None
    takes_features: bool = False

    @property
    def resolved_arguments(self) -> Mapping[str, Any]:
        """What a bundle names besides the recipe's arguments, to build the network again offline."""
        return {}

    def __init__(self) -> None:
        super().__init__()
        self.pool = nn.Identity()

    def forward(self, images: Tensor) -> Tensor:
        """Logits, shape (N,), of images."""
        return self.from_maps(self.maps(images))

    def maps(self, images: Tensor) -> Maps:
        """What the body makes of images."""
        maps: Tensor = self.body(images)
        return maps

    def pooled(self, maps: Maps) -> Tensor:
        """What `top` takes, of what `maps` gives."""
        features: Tensor = self.pool(maps)
        return features

    def features(self, images: Tensor) -> Tensor:
        """What `top` takes, of images: always the same where the body is frozen."""
        return self.pooled(self.maps(images))

    def from_maps(self, maps: Maps) -> Tensor:
        """Logits, shape (N,), of maps: with `maps`, the forward pass in two steps."""
        logits: Tensor = self.top(self.pooled(maps))
        return logits.squeeze(1)

    def tell_apart(self, positive: Sequence[bool]) -> None:
        """Part K classes: `top` gets a logit for each, then `LogOdds` of those that are positive together.

        Args:
            positive: Which of the K classes, three or more, are.
        """
        self.top = with_classes(self.top, positive)

    def class_logits(self, maps: Maps) -> Tensor:
        """Logits of the classes, shape (N, K), of what `maps` gives; (N, 0) where there are two."""
        features = self.pooled(maps)
        if not isinstance(self.top, nn.Sequential) or not isinstance(self.top[-1], LogOdds):
            return features.new_zeros(len(features), 0)
        logits: Tensor = self.top[:-1](features)
        return logits

    def with_classes(self, maps: Maps) -> tuple[Tensor, Tensor]:
        """`from_maps` and `class_logits` of a network that parts more than two classes, from one pass of its head."""
        classes = self.class_logits(maps)
        together = cast(LogOdds, cast(nn.Sequential, self.top)[-1])
        return together.of(classes).squeeze(1), classes

    def members(self) -> list[tuple[Network, Preprocessing]]:
        """The networks that this one is the mean of, with what each does to its images; itself with nothing."""
        return [(self, Preprocessing())]

    def as_maps(self, activations: Tensor) -> Tensor:
        """Activations of `attention_layer`, or gradients there, in the order (N, C, h, w).

        Raises:
            ModelError: They have no places in the image.
        """
        if activations.ndim != 4:
            raise ModelError(
                f"features of shape {tuple(activations.shape)} cannot be laid out as a map",
                remedy="use integrated-gradients or occlusion, which need none",
            )
        return activations


#: Builders `(input_size: (height, width), **arguments) -> Network`.
ARCHITECTURES: Registry[Callable[..., Network]] = Registry("model", "tumortrace.models.families", ModelError)

#: The same of networks that take bags of features, `input_size` being (1, features of a tile).
BAG_ARCHITECTURES: Registry[Callable[..., Network]] = Registry("model", "tumortrace.models.bags", ModelError)


def takes_features(name: str) -> bool:
    """Whether a family takes features of a slide's tiles in place of images.

    Example:
        >>> takes_features("slide-pooling"), takes_features("plain-cnn")
        (True, False)
    """
    return name in list(BAG_ARCHITECTURES)


def _builder(name: str) -> Callable[..., Network]:
    return BAG_ARCHITECTURES[name] if takes_features(name) else ARCHITECTURES[name]


def build_network(
    name: str, input_size: tuple[int, int], arguments: Mapping[str, Any], positive: Sequence[bool] = ()
) -> Network:
    """Build a freshly initialised network.

    Args:
        name: Of the family.
        input_size: Height and width in pixels.
        arguments: Of its own.
        positive: Where it parts K > 2 classes, which of them are positive.

    Raises:
        ModelError: The name is unknown or the arguments do not fit.

    Example:
        >>> network = build_network("plain-cnn", (64, 64), {"blocks": [16, 32], "head": [{"dense": 256}]})
        >>> count_parameters(network)
        {'total': 1401617, 'trainable': 1401617}
    """
    builder = _builder(name)
    try:
        network = builder(input_size=input_size, **arguments)
    except (TypeError, ValueError, RuntimeError) as error:  # the last two of torch's layers
        raise _misfit(name, arguments, error) from error
    if positive:
        network.tell_apart(positive)
    return network


def require_arguments(name: str, arguments: Mapping[str, object]) -> None:
    """Refuse a name or arguments that no network is built from, without building one.

    Raises:
        ModelError: The name is unknown, or an argument is not one of its own.

    Example:
        >>> require_arguments("plain-cnn", {"blocks": [16, 32]})
    """
    try:
        inspect.signature(_builder(name)).bind_partial(input_size=None, **arguments)
    except TypeError as error:
        raise _misfit(name, arguments, error) from error


def _misfit(name: str, arguments: Mapping[str, object], error: Exception) -> ModelError:
    return ModelError(
        f"arguments {dict(arguments)} do not fit model {name!r} ({error})", remedy="look at `tumortrace models`"
    )


def parse_argument(kind: type[Arguments], values: object, name: str, expected: str | None = None) -> Arguments:
    """One of a family's arguments as what it is made of.

    Raises:
        ModelError: It does not fit; the field is named.
    """
    try:
        return kind.model_validate(values)
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(str(part) for part in (name, *first["loc"]))
        raise ModelError(
            f"{first['msg']} (found {shown(first['input'])})", where=f"model.arguments.{field}", expected=expected
        ) from error


def count_parameters(network: nn.Module) -> dict[str, int]:
    """Numbers of parameters as Keras counts them: running means and variances of batch norm belong to the total."""
    trainable = sum(p.numel() for p in network.parameters() if p.requires_grad)
    frozen = sum(p.numel() for p in network.parameters() if not p.requires_grad)
    running = sum(b.numel() for b in network.buffers() if b.is_floating_point())
    return {"total": trainable + frozen + running, "trainable": trainable}


def freeze(network: nn.Module, parts: Sequence[str]) -> None:
    """Freeze submodules and thaw everything else; frozen ones are put into inference mode by `train_unfrozen`.

    Args:
        network: The network.
        parts: Names of submodules, as "body" or "body.layer1".

    Raises:
        ModelError: The network has no such part.

    Example:
        >>> network = build_network("backbone", (32, 32), {"body": "resnet18"})
        >>> freeze(network, ["body"])
        >>> count_parameters(network)["trainable"]
        513
    """
    network.requires_grad_(True)
    for module in _parts(network, parts):
        module.requires_grad_(False)


def train_unfrozen(network: nn.Module, parts: Sequence[str]) -> None:
    """Put the network into training mode; batch norm and dropout of its frozen parts stay as in inference."""
    network.train()
    for module in _parts(network, parts):
        module.eval()


def _parts(network: nn.Module, names: Sequence[str]) -> list[nn.Module]:
    try:
        return [network.get_submodule(name) for name in names]
    except AttributeError as error:
        known = ", ".join(name for name, _ in network.named_modules() if len(name) > 0 and name.count(".") < 2)
        raise ModelError(
            f"no part of the network to freeze: {error}",
            expected=f"parts such as {known[:120]}",
            remedy="mend `freeze` in the recipe",
        ) from error
