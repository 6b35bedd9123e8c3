"""A slide's probability from features of its tiles: embedded, pooled by gated attention, mean or maximum, and weighed.

Ilse, Tomczak, Welling (2018), "Attention-based deep multiple instance learning". "dual" takes attention and maximum
together, half of each, as Li, Li, Eliceiri (2021), "Dual-stream multiple instance learning network", does with two
scores: attention begins flat, and of a few bags it learns their mean before it finds one tile among hundreds.

A bag is what is known of the tiles of one slide; several go through together as one tensor (N, K, D + 1), whose last
column is 1 for a tile and 0 for what fills up a smaller bag.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn

from tumortrace.errors import ModelError
from tumortrace.models.architecture import BAG_ARCHITECTURES, Network
from tumortrace.models.layers import Dropout, build_head

Way = Literal["attention", "dual", "mean", "max"]
WAYS: tuple[Way, ...] = get_args(Way)


class GatedAttention(nn.Module):
    """The weight of each tile: the softmax over a bag of w (tanh(V h) * sigmoid(U h)), equation 9 of Ilse et al.

    Args:
        units: Numbers in h.
        inner: Rows of U and V.

    Example:
        >>> there = torch.tensor([[True, True, False]])
        >>> weights = GatedAttention(4, 2)(torch.zeros(1, 3, 4), there)
        >>> weights.tolist()
        [[0.5, 0.5, 0.0]]
    """

    def __init__(self, units: int, inner: int) -> None:
        super().__init__()
        self.what, self.gate, self.weigh = nn.Linear(units, inner), nn.Linear(units, inner), nn.Linear(inner, 1)

    def forward(self, tiles: Tensor, there: Tensor) -> Tensor:
        """Weights (N, K) of embedded tiles (N, K, units); 0 where `there`, bool (N, K), is false."""
        scores = self.weigh(torch.tanh(self.what(tiles)) * torch.sigmoid(self.gate(tiles))).squeeze(2)
        return scores.masked_fill(~there, -torch.inf).softmax(1)


class Pooling(nn.Module):
    """Bags (N, K, D + 1) to one vector each, (N, hidden).

    Features are standardised by what the training tiles are like, embedded (linear, ReLU), and pooled.

    Args:
        units: Features D of a tile.
        way: How tiles become one: "attention", "mean", "max", the largest value of each number, or "dual", the mean of
            what attention and "max" give.
        hidden: Numbers in an embedded tile.
        inner: Of `GatedAttention`.
        dropout: Share of the embedded numbers dropped in training.
    """

    mean: Tensor
    scale: Tensor

    def __init__(self, units: int, way: Way, hidden: int, inner: int, dropout: float) -> None:
        super().__init__()
        self.way = way
        self.register_buffer("mean", torch.zeros(units))
        self.register_buffer("scale", torch.ones(units))
        self.embed = nn.Sequential(nn.Linear(units, hidden), nn.ReLU(), Dropout(dropout))
        self.attention = GatedAttention(hidden, inner) if way in ("attention", "dual") else None

    def forward(self, bags: Tensor) -> Tensor:
        return self.parts(*self.embedded(bags)).sum(1)

    def parts(self, tiles: Tensor, there: Tensor) -> Tensor:
        """What each embedded tile (N, K, hidden) gives to the bag's vector, (N, K, hidden), which is their sum."""
        if self.way == "max":
            return _largest(tiles, there)
        weighed = self.weights(tiles, there).unsqueeze(2) * tiles
        return (weighed + _largest(tiles, there)) / 2 if self.way == "dual" else weighed

    def embedded(self, bags: Tensor) -> tuple[Tensor, Tensor]:
        """The tiles embedded, (N, K, hidden), and which of them there are, bool (N, K)."""
        there = bags[..., -1] > 0
        tiles: Tensor = self.embed((bags[..., :-1] - self.mean) / self.scale)
        return tiles, there

    def weights(self, tiles: Tensor, there: Tensor) -> Tensor:
        """What each embedded tile counts, (N, K), sum 1; of "max" no such weights are known."""
        if self.attention is None:
            return there / there.sum(1, keepdim=True)
        weights: Tensor = self.attention(tiles, there)
        return weights


def _largest(tiles: Tensor, there: Tensor) -> Tensor:
    """Of each number the largest among a bag's tiles (N, K, hidden), in its tile's place, and 0 elsewhere."""
    shown = tiles * there.unsqueeze(2)  # what is embedded is never negative
    value, place = shown.max(1, keepdim=True)
    return torch.zeros_like(shown).scatter(1, place, value)


class SlidePooling(Network):
    """Features of a slide's tiles, pooled by gated attention, mean or maximum, under a linear layer.

    Args:
        input_size: 1, and the features of a tile.
        pooling: "attention", "dual", "mean" or "max".
        hidden: Numbers to which the features of a tile are embedded.
        attention: Inner numbers of the gated attention.
        dropout: Share of the embedded numbers dropped in training.

    Example:
        >>> bags = torch.cat([torch.rand(2, 5, 8), torch.ones(2, 5, 1)], 2)
        >>> SlidePooling((1, 8))(bags).shape
        torch.Size([2])
    """

    takes_features = True
    attention_layer = None

    def __init__(
        self,
        input_size: tuple[int, int],
        pooling: str = "attention",
        hidden: int = 128,
        attention: int = 64,
        dropout: float = 0.25,
    ) -> None:
        super().__init__()
        way = next((way for way in WAYS if way == pooling), None)
        if way is None:
            raise ModelError(
                f"pooling {pooling!r}", where="model.arguments.pooling", expected=f"one of {', '.join(WAYS)}"
            )
        self.body = nn.Identity()
        self.top = nn.Sequential(Pooling(input_size[1], way, hidden, attention, dropout), build_head(hidden))

    @property
    def pooling(self) -> Pooling:
        """What makes one vector of a bag."""
        first = self.top[0]  # type: ignore[index]
        assert isinstance(first, Pooling)
        return first

    @property
    def resolved_arguments(self) -> Mapping[str, Any]:
        """Nothing that the recipe does not say."""
        return {}

    def standardise(self, mean: Tensor, deviation: Tensor) -> None:
        """Take mean and standard deviation (D,) of the training tiles' features; one that never stirs is left so."""
        self.pooling.mean.copy_(mean)
        self.pooling.scale.copy_(torch.where(deviation > 0, deviation, torch.ones_like(deviation)))

    @torch.inference_mode()
    def attention_of(self, bags: Tensor) -> tuple[Tensor, Tensor]:
        """Of each tile its weight (N, K), sum 1, and its evidence (N, K): its part of the logit, which adds up to the
        logit without the last layer's constant.

        Raises:
            ModelError: It pools by the maximum, which weighs numbers and no tiles, or parts more than two classes.
        """
        last = list(self.top.modules())[-1]
        if self.pooling.way == "max" or not isinstance(last, nn.Linear):
            found = "pooled by the maximum" if self.pooling.way == "max" else "a model of more than two classes"
            raise ModelError(
                found, expected="pooling by attention or mean, of two classes", remedy="use slide-attention"
            )
        tiles, there = self.pooling.embedded(bags)
        return self.pooling.weights(tiles, there), self.pooling.parts(tiles, there) @ last.weight[0]


BAG_ARCHITECTURES.register("slide-pooling")(SlidePooling)
