"""The mean of several networks as one network."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from tumortrace.errors import ModelError
from tumortrace.images.preprocessing import Preprocessing
from tumortrace.models.architecture import ARCHITECTURES, build_network


class Ensemble(nn.Module):
    """The logit of the members' mean probability; each member preprocesses for itself.

    Args:
        input_size: Height and width in pixels of the patches; they come in the range [0, 1].
        members: For each its `name`, `arguments` and `preprocessing`. By default two small plain networks.
    """

    def __init__(
        self,
        input_size: tuple[int, int],
        members: Sequence[Mapping[str, Any]] = ({"name": "plain-cnn"}, {"name": "plain-cnn"}),
    ) -> None:
        super().__init__()
        if not members:
            raise ModelError("an ensemble of no members", remedy="name at least two runs")
        self.steps = [Preprocessing.model_validate(member.get("preprocessing", {})) for member in members]
        self.body = nn.ModuleList(
            build_network(member["name"], steps.output_size(input_size), dict(member.get("arguments", {})))
            for member, steps in zip(members, self.steps, strict=True)
        )
        first = getattr(self.body[0], "attention_layer", None)
        self.attention_layer = None if first is None else f"body.0.{first}"  # each member has its own

    def forward(self, images: Tensor) -> Tensor:
        return self.from_maps(self.maps(images)).to(images.dtype)

    def maps(self, images: Tensor) -> list[Tensor]:
        """What each member's body makes of images."""
        return [
            network.maps(steps.normalise(steps.pixels(images)))  # type: ignore[operator]
            for network, steps in zip(self.body, self.steps, strict=True)
        ]

    def from_maps(self, maps: list[Tensor]) -> Tensor:
        """Logits, shape (N,), float64, from there on."""
        logits = [network.from_maps(own).double() for network, own in zip(self.body, maps, strict=True)]  # type: ignore[operator]
        together = torch.stack(logits)
        positive, negative = (torch.logsumexp(nn.functional.logsigmoid(side), 0) for side in (together, -together))
        return positive - negative


ARCHITECTURES.register("ensemble")(Ensemble)
