"""Hand-made descriptors under a classical learner, kept as plain tensors (Systems B and E)."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn

from tumortrace.errors import ModelError
from tumortrace.models.architecture import ARCHITECTURES, Network, parse_argument
from tumortrace.texture.descriptor import SMALLEST, choose, describe


class Descriptors(nn.Module):
    """Descriptors of images in [0, 1], shape (N, 3, H, W): float32, shape (N, D). Computed on the CPU.

    Args:
        input_size: Height and width in pixels.
        chosen: Arguments by descriptor, as `choose` gives them.

    Attributes:
        columns: Names of the features by descriptor, D in all.
    """

    def __init__(self, input_size: tuple[int, int], chosen: dict[str, dict[str, Any]]) -> None:
        super().__init__()
        if min(input_size) < SMALLEST:
            raise ModelError(f"descriptors of {input_size[0]}x{input_size[1]} px", expected="8x8 px or more")
        if not chosen:
            raise ModelError("no descriptor", expected="at least one in model.arguments.descriptors")
        self.chosen = chosen
        blank = np.zeros((1, *input_size, 3), np.uint8)
        self.columns = {name: describe(blank, {name: arguments})[0] for name, arguments in chosen.items()}

    def forward(self, images: Tensor) -> Tensor:
        levels = (images.detach() * 255).round().clamp(0, 255).to(torch.uint8)
        values = describe(levels.permute(0, 2, 3, 1).cpu().numpy(), self.chosen)[1]
        return torch.from_numpy(values.astype(np.float32)).to(images.device)


class Linear(nn.Module):
    """Logistic regression on standardised features: logits, shape (N, 1), or (N, K) of more than two classes."""

    mean: Tensor
    scale: Tensor

    def __init__(self, units: int, outputs: int = 1) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(units))
        self.register_buffer("scale", torch.ones(units))
        self.weigh = nn.Linear(units, outputs)

    def forward(self, features: Tensor) -> Tensor:
        logits: Tensor = self.weigh((features - self.mean) / self.scale)
        return logits

    def for_classes(self, count: int) -> Linear:
        """The same for K classes, not yet fitted."""
        return Linear(len(self.mean), count)


class TreesSize(BaseModel):
    """Sizes of `Trees`.

    Attributes:
        trees: How many.
        nodes: Of all trees together, leaves included.
        depth: Splits from the root to the farthest leaf.
        images: Training images, where leaves hold the share of positives; None where they hold logits.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    trees: int = Field(ge=1)
    nodes: int = Field(ge=1)
    depth: int = Field(ge=0)
    images: int | None = Field(default=None, ge=1)


class Trees(nn.Module):
    """Decision trees over features: logits, shape (N, 1).

    From node i an image goes to `left[i]` where its feature `feature[i]` is at most `threshold[i]`, else to `right[i]`;
    a leaf leads to itself. Logits in the leaves are added up. Shares of positives are averaged; half a training image
    of each class bounds the mean away from 0 and 1, so that the logit stays finite. Of more than two classes every leaf
    holds K numbers, and the logits have the shape (N, K).

    Args:
        units: Features D of an image.
        size: How many trees and nodes.
        classes: K where there are more than two.
    """

    roots: Tensor
    feature: Tensor
    left: Tensor
    right: Tensor
    threshold: Tensor
    value: Tensor

    def __init__(self, units: int, size: TreesSize, classes: int = 0) -> None:
        super().__init__()
        self.units, self.size = units, size
        self.register_buffer("roots", torch.zeros(size.trees, dtype=torch.int32))
        for name in ("feature", "left", "right"):
            self.register_buffer(name, torch.zeros(size.nodes, dtype=torch.int32))
        self.register_buffer("threshold", torch.zeros(size.nodes))
        self.register_buffer("value", torch.zeros(size.nodes, classes) if classes else torch.zeros(size.nodes))
        self.register_load_state_dict_post_hook(_require_trees)

    def forward(self, features: Tensor) -> Tensor:
        node = self.roots.expand(len(features), -1)
        rows = torch.arange(len(features), device=features.device)[:, None]
        for _ in range(self.size.depth):
            below = features[rows, self.feature[node]] <= self.threshold[node]
            node = torch.where(below, self.left[node], self.right[node])
        values = self.value[node]
        if values.ndim == 3:  # (N, trees, K)
            return values.sum(1) if self.size.images is None else values.mean(1).clamp(0.5 / self.size.images).log()
        if self.size.images is None:
            return values.sum(1, keepdim=True)
        return torch.logit(values.mean(1, keepdim=True), 0.5 / self.size.images)

    def for_classes(self, count: int) -> Trees:
        """The same for K classes, not yet grown."""
        return Trees(self.units, self.size, count)


class Texture(Network):
    """Hand-made descriptors, then logistic regression or trees, fitted elsewhere.

    Args:
        input_size: Height and width in pixels.
        descriptors: Names, or arguments by name; default all. See `tumortrace features`.
        trees: Sizes of `Trees`; None for logistic regression.
    """

    attention_layer = None
    body: Descriptors

    def __init__(
        self,
        input_size: tuple[int, int],
        descriptors: Sequence[str] | Mapping[str, Mapping[str, Any]] | None = None,
        trees: Mapping[str, int | None] | None = None,
    ) -> None:
        super().__init__()
        self.body = Descriptors(input_size, _chosen(descriptors))
        units = sum(len(names) for names in self.body.columns.values())
        sizes = None if trees is None else parse_argument(TreesSize, trees, "trees")
        self.top = Linear(units) if sizes is None else Trees(units, sizes)

    @property
    def resolved_arguments(self) -> Mapping[str, Any]:
        """Every argument spelt out, as JSON can hold them; the trees' sizes are known once they are grown."""
        grown = self.top[0] if isinstance(self.top, nn.Sequential) else self.top
        trees = grown.size.model_dump() if isinstance(grown, Trees) else None
        return {"descriptors": json.loads(json.dumps(self.body.chosen)), "trees": trees}


def _chosen(descriptors: Sequence[str] | Mapping[str, Mapping[str, Any]] | None) -> dict[str, dict[str, Any]]:
    if not isinstance(descriptors, Mapping):
        return choose(descriptors)
    given = {name: dict(arguments or {}) for name, arguments in descriptors.items()}
    changes = [f"{name}.{key}={json.dumps(value)}" for name, each in given.items() for key, value in each.items()]
    return choose(list(given), changes)


def _require_trees(trees: Trees, _: object) -> None:
    """Refuse nodes and features that are not there."""
    bounds = {"roots": trees.size.nodes, "left": trees.size.nodes, "right": trees.size.nodes, "feature": trees.units}
    for name, bound in bounds.items():
        found = trees.get_buffer(name)
        if int(found.min()) < 0 or int(found.max()) >= bound:
            raise ModelError(
                f"{name} of the trees run from {int(found.min())} to {int(found.max())}",
                expected=f"0 to {bound - 1}",
                remedy="copy the bundle again from where it came",
            )


ARCHITECTURES.register("texture")(Texture)
