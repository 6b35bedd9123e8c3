"""Names of network families and what every one of them promises."""

from __future__ import annotations

from collections.abc import Callable

from torch import nn

from tumortrace.errors import ModelError
from tumortrace.registry import Registry

#: Builders `(input_size: (height, width), **arguments) -> nn.Module`. The network takes float32 images of shape
#: (N, 3, height, width), normalised, and returns logits of the positive class, shape (N,). Its attribute
#: `attention_layer` names the submodule whose activations Grad-CAM weighs.
ARCHITECTURES: Registry[Callable[..., nn.Module]] = Registry("model", "tumortrace.models.families", ModelError)


def build_network(name: str, input_size: tuple[int, int], arguments: dict[str, object]) -> nn.Module:
    """Build a freshly initialised network.

    Raises:
        ModelError: The name is unknown or the arguments do not fit.

    Example:
        >>> network = build_network("plain-cnn", (64, 64), {"blocks": [16, 32], "dense": [256]})
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


def count_parameters(network: nn.Module) -> dict[str, int]:
    """Numbers of parameters as Keras counts them: running means and variances of batch norm belong to the total."""
    trainable = sum(p.numel() for p in network.parameters() if p.requires_grad)
    frozen = sum(p.numel() for p in network.parameters() if not p.requires_grad)
    running = sum(b.numel() for b in network.buffers() if b.is_floating_point())
    return {"total": trainable + frozen + running, "trainable": trainable}
