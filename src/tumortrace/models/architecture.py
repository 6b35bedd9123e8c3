"""Names of network families and what every one of them promises."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence

from torch import nn

from tumortrace.errors import ModelError
from tumortrace.registry import Registry

#: Builders `(input_size: (height, width), **arguments) -> nn.Module`. The network takes float32 images of shape
#: (N, 3, height, width), normalised, and returns logits of the positive class, shape (N,). Its attribute
#: `attention_layer` names the submodule whose activations are weighed for class activation maps, or is None: features
#: (N, C, h, w) or a transformer's tokens. `body` is the part that `freeze: [body]` freezes, `top` the rest.
ARCHITECTURES: Registry[Callable[..., nn.Module]] = Registry("model", "tumortrace.models.families", ModelError)


def build_network(name: str, input_size: tuple[int, int], arguments: dict[str, object]) -> nn.Module:
    """Build a freshly initialised network.

    Raises:
        ModelError: The name is unknown or the arguments do not fit.

    Example:
        >>> network = build_network("plain-cnn", (64, 64), {"blocks": [16, 32], "head": [{"dense": 256}]})
        >>> count_parameters(network)
        {'total': 1401617, 'trainable': 1401617}
    """
    builder = ARCHITECTURES[name]
    try:
        return builder(input_size=input_size, **arguments)
    except TypeError as error:
        raise ModelError(
            f"arguments {arguments} do not fit model {name!r} ({error})", remedy="look at `tumortrace models`"
        ) from error


def require_arguments(name: str, arguments: Mapping[str, object]) -> None:
    """Refuse a name or arguments that no network is built from, without building one.

    Raises:
        ModelError: The name is unknown, or an argument is not one of its own.

    Example:
        >>> require_arguments("plain-cnn", {"blocks": [16, 32]})
    """
    try:
        inspect.signature(ARCHITECTURES[name]).bind_partial(input_size=None, **arguments)
    except TypeError as error:
        raise ModelError(
            f"arguments {dict(arguments)} do not fit model {name!r} ({error})", remedy="look at `tumortrace models`"
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
    for parameter in network.parameters():
        parameter.requires_grad_(True)
    for module in _parts(network, parts):
        for parameter in module.parameters():
            parameter.requires_grad_(False)


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
