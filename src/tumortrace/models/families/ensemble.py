"""The mean of several networks as one network."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn.functional import logsigmoid

from tumortrace.errors import ModelError
from tumortrace.images.preprocessing import Preprocessing
from tumortrace.models.architecture import ARCHITECTURES, Maps, Network, build_network
from tumortrace.models.layers import LogOdds


class MeanProbability(nn.Module):
    """The logit of the mean probability, float64, shape (N, 1), of the members' logits, shape (N, members)."""

    def forward(self, logits: Tensor) -> Tensor:
        return torch.logsumexp(logsigmoid(logits), 1, True) - torch.logsumexp(logsigmoid(-logits), 1, True)


class MeanClassProbability(nn.Module):
    """Logits, float64, shape (N, K), of the mean probabilities of K classes, of logits of shape (N, members, K)."""

    def forward(self, logits: Tensor) -> Tensor:
        return torch.logsumexp(logits.log_softmax(2), 1)


class Ensemble(Network):
    """The logit of the members' mean probability; each member preprocesses for itself.

    Args:
        input_size: Height and width in pixels of the patches; they come in the range [0, 1].
        members: For each its `name`, `arguments` and `preprocessing`. By default two small plain networks.
    """

    body: nn.ModuleList

    def __init__(
        self,
        input_size: tuple[int, int],
        members: Sequence[Mapping[str, Any]] = ({"name": "plain-cnn"}, {"name": "plain-cnn"}),
    ) -> None:
        super().__init__()
        if not members:
            raise ModelError("an ensemble of no members", remedy="name at least two runs")
        self.steps = [Preprocessing.model_validate(member.get("preprocessing", {})) for member in members]
        networks = [
            build_network(member["name"], steps.output_size(input_size), member.get("arguments", {}))
            for member, steps in zip(members, self.steps, strict=True)
        ]
        self.body, self.top = nn.ModuleList(networks), MeanProbability()
        layer = networks[0].attention_layer
        self.attention_layer = None if layer is None else f"body.0.{layer}"  # each member has its own

    def forward(self, images: Tensor) -> Tensor:
        return super().forward(images).to(images.dtype)

    def maps(self, images: Tensor) -> list[Maps]:
        """What each member's body makes of images."""
        return [network.maps(steps.normalise(steps.pixels(images))) for network, steps in self.members()]

    def pooled(self, maps: Maps) -> Tensor:
        """The members' logits, float64, shape (N, members), or of their classes, (N, members, K)."""
        several = isinstance(self.top, nn.Sequential)
        logits = [
            (network.class_logits(part) if several else network.from_maps(part)).double()
            for (network, _), part in zip(self.members(), maps, strict=True)
        ]
        return torch.stack(logits, 1)

    def tell_apart(self, positive: Sequence[bool]) -> None:
        """As every network's: each member parts the classes, and their mean probabilities are taken."""
        for network, _ in self.members():
            network.tell_apart(positive)
        self.top = nn.Sequential(MeanClassProbability(), LogOdds(positive))

    def members(self) -> list[tuple[Network, Preprocessing]]:
        """The members, with what each does to its images."""
        return list(zip(cast(Sequence[Network], self.body), self.steps, strict=True))


ARCHITECTURES.register("ensemble")(Ensemble)
