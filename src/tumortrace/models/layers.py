"""Parts that network families share: pooling, attention to the centre, and the head."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from tumortrace.errors import ModelError
from tumortrace.models.views import Views

POOLINGS = ("flatten", "average", "centre")

_FLAT = 0.01  # variance within an image, in units of that among all, below which noise is not blown up


class Dropout(nn.Dropout):
    """torch's dropout, whose draws may come from a source of its own, so that streams do not share one.

    Attributes:
        generator: Of the draws; None is torch's own.
    """

    generator: torch.Generator | None = None

    def forward(self, input: Tensor) -> Tensor:
        if self.generator is None or not self.training or not self.p:
            return super().forward(input)
        kept = torch.empty_like(input).bernoulli_(1 - self.p, generator=self.generator)
        return input * kept / (1 - self.p)


@contextmanager
def drawing_from(generator: torch.Generator, network: nn.Module) -> Iterator[None]:
    """Let all `Dropout` in a network draw from a source of its own."""
    layers = [layer for layer in network.modules() if isinstance(layer, Dropout)]
    for layer in layers:
        layer.generator = generator
    try:
        yield
    finally:
        for layer in layers:
            layer.generator = None


class InstanceBatchNorm(nn.Module):
    """Batch norm, after which half of the channels are standardised within each image too.

    What stain and light change about an image as a whole is gone from that half; the other half still tells it. After
    Pan et al. (2018), "Two at once: enhancing learning and generalization capacities via IBN-Net"; batch norm comes
    first here, since sums of squares lose no digits then where they are taken in bfloat16.

    Args:
        channels: Channels C of inputs and outputs of shape (N, C, H, W).

    Example:
        >>> normed = InstanceBatchNorm(4)(torch.randn(8, 4, 6, 6) + torch.arange(8.0).view(8, 1, 1, 1))
        >>> normed[:, :2].mean((2, 3)).abs().max().item() < 1e-5, normed[:, 2:].mean((2, 3)).abs().max().item() > 1
        (True, True)
    """

    within: Tensor

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.batch = nn.BatchNorm2d(channels, affine=False)
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))
        self.register_buffer("within", torch.arange(channels) < channels // 2, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        pixels = self.batch(x).flatten(2).transpose(1, 2)
        ones = pixels.new_ones(pixels.shape[0], 1, pixels.shape[1])
        # sums as products of matrices: several times as fast on CPUs as reductions over part of the channels
        mean = torch.bmm(ones, pixels).float() / pixels.shape[1]
        variance = (torch.bmm(ones, pixels * pixels).float() / pixels.shape[1] - mean * mean).clamp_min(0)
        factor = torch.where(self.within, torch.rsqrt(variance + _FLAT), 1.0) * self.weight
        offset = self.bias - torch.where(self.within, mean, 0.0) * factor
        scaled = torch.addcmul(offset.to(pixels.dtype), pixels, factor.to(pixels.dtype))
        return scaled.transpose(1, 2).unflatten(2, x.shape[2:])


class CentreAttention(nn.Module):
    """Weighs positions, the centre more at first.

    The weights are a softmax over a learnt map, which begins as a Gaussian bump over the centre, plus a learnt
    linear score of the features there: the label is decided in the centre 32x32 px, its surroundings are context.
    They are scaled to a mean of 1, so that the size of the features stays.

    Args:
        channels: Channels C of the features.
        size: Height and width of the features.
        symmetric: Whether the map treats positions alike that a symmetry of the square, or of the rectangle, exchanges.
    """

    def __init__(self, channels: int, size: tuple[int, int], *, symmetric: bool = False) -> None:
        super().__init__()
        self.views = Views.of(size) if symmetric else Views()
        rows = torch.linspace(-1, 1, size[0]).view(-1, 1)
        columns = torch.linspace(-1, 1, size[1]).view(1, -1)
        self.position = nn.Parameter(-2 * (rows**2 + columns**2))
        self.score = nn.Conv2d(channels, 1, 1)
        for values in self.score.parameters():
            nn.init.zeros_(values)

    def forward(self, features: Tensor) -> Tensor:
        position = self.views.mean(self.views.together(self.position[None, None]))
        score = self.score(features) + position
        weights = score.flatten(1).softmax(1).view_as(score) * score[0].numel()
        return features * weights


class CentrePooling(nn.Module):
    """A mean over positions weighted by `CentreAttention` beside the plain one; 2 C features."""

    def __init__(self, channels: int, size: tuple[int, int], *, symmetric: bool = False) -> None:
        super().__init__()
        self.attention = CentreAttention(channels, size, symmetric=symmetric)

    def forward(self, features: Tensor) -> Tensor:
        return torch.cat([self.attention(features).mean((2, 3)), features.mean((2, 3))], 1)


class GlobalAverage(nn.Module):
    """The mean over positions."""

    def forward(self, features: Tensor) -> Tensor:
        return features.mean((2, 3))


def build_pooling(name: str, channels: int, size: tuple[int, int]) -> tuple[nn.Module, int]:
    """A layer from features of shape (N, C, h, w) to (N, units), and the number of units.

    Args:
        name: "flatten"; "average", the mean over positions; "centre", see `CentrePooling`.
        channels: C.
        size: h and w.

    Raises:
        ModelError: The name is unknown.
    """
    if name == "flatten":
        return nn.Flatten(), channels * size[0] * size[1]
    if name == "average":
        return GlobalAverage(), channels
    if name == "centre":
        return CentrePooling(channels, size), 2 * channels
    raise ModelError(f"pooling {name!r}", expected="one of " + ", ".join(POOLINGS), remedy="choose one of these")


def require_one_each(**values: Sequence[object]) -> None:
    """Arguments that tell something of every stage have to be of one length.

    Raises:
        ModelError: They are not.
    """
    if len({len(of) for of in values.values()}) > 1:
        raise ModelError(
            ", ".join(f"{name} of {len(of)} stages" for name, of in values.items()),
            where="model.arguments",
            expected="one value of each for every stage",
            remedy="change them together",
        )


class LogOdds(nn.Module):
    """The logit of all positive classes together, shape (N, 1), of the logits of K classes, shape (N, K).

    Its sigmoid is the sum of the softmax over the positive ones. While a network learns, the logits of the classes pass
    as they are, since the loss is of these.

    Args:
        positive: Which of the K classes are.

    Example:
        >>> logits = torch.tensor([[0.0, 1.0, 2.0]])
        >>> together = LogOdds([False, True, True]).eval()(logits).sigmoid()
        >>> torch.allclose(together, logits.softmax(1)[:, 1:].sum(1, keepdim=True))
        True
    """

    def __init__(self, positive: Sequence[bool]) -> None:
        super().__init__()
        self.positive = [index for index, side in enumerate(positive) if side]
        self.negative = [index for index, side in enumerate(positive) if not side]

    @property
    def several(self) -> bool:
        """Whether there are more than two classes."""
        return len(self.positive) + len(self.negative) > 2

    def forward(self, logits: Tensor) -> Tensor:
        return logits if self.training and self.several else self.of(logits)

    def of(self, logits: Tensor) -> Tensor:
        """The same, also while learning."""
        positive, negative = (logits[:, columns].logsumexp(1, True) for columns in (self.positive, self.negative))
        return positive - negative


class Neighbours(nn.Module):
    """Logit of the share of positives among the nearest training images, in standardised features.

    Half a neighbour of each class is added, so that the logit stays finite.

    Args:
        units: Features D of an image.
        count: Neighbours that vote.
        images: Training images N, whose features (N, D) and labels (N,) are buffers.
        classes: K where they vote for one of more than two; there is a logit for each then.
    """

    features: Tensor
    labels: Tensor
    mean: Tensor
    scale: Tensor

    def __init__(self, units: int, count: int, images: int, classes: int = 0) -> None:
        super().__init__()
        self.count, self.classes = count, classes
        self.register_buffer("features", torch.zeros(images, units))
        self.register_buffer("labels", torch.zeros(images))
        self.register_buffer("mean", torch.zeros(units))
        self.register_buffer("scale", torch.ones(units))

    def forward(self, features: Tensor) -> Tensor:
        distance = torch.cdist((features - self.mean) / self.scale, (self.features - self.mean) / self.scale)
        nearest = distance.topk(self.count, largest=False).indices
        if self.classes:
            votes = (self.labels[nearest].unsqueeze(2) == torch.arange(self.classes, device=nearest.device)).sum(1)
            return torch.log(votes + 0.5)
        positives = self.labels[nearest].sum(1, keepdim=True)
        return torch.log((positives + 0.5) / (self.count - positives + 0.5))

    def for_classes(self, count: int) -> Neighbours:
        """The same for K classes, not yet filled."""
        return Neighbours(self.features.shape[1], self.count, len(self.features), count)


def with_classes(top: nn.Module, positive: Sequence[bool]) -> nn.Sequential:
    """A head with a logit for each of K classes, then `LogOdds`: its last layer is replaced by one that learns anew.

    Args:
        top: A head of one logit, in which nothing of two classes is learnt yet.
        positive: Which of the K classes are.

    Example:
        >>> head = with_classes(build_head(8, [{"dense": 4}]), [False, True, True])
        >>> head(torch.zeros(5, 8)).shape, head.eval()(torch.zeros(5, 8)).shape
        (torch.Size([5, 3]), torch.Size([5, 1]))
    """
    *before, last = [layer for layer in _flat(top) if not isinstance(layer, LogOdds)]
    if isinstance(last, nn.Linear):
        layer: nn.Module = glorot(nn.Sequential(nn.Linear(last.in_features, len(positive))))[0]
    else:
        layer = last.for_classes(len(positive))  # type: ignore[operator]
    return nn.Sequential(*before, layer, LogOdds(positive))


def _flat(module: nn.Module) -> list[nn.Module]:
    """The layers of nested sequences in one list."""
    if not isinstance(module, nn.Sequential):
        return [module]
    return [layer for part in module for layer in _flat(part)]


def build_head(units: int, steps: Sequence[Mapping[str, Any]] = (), outputs: int = 1) -> nn.Sequential:
    """Layers from pooled features of shape (N, units) to logits of shape (N, 1).

    Args:
        units: Features that come in.
        steps: Layers before the last, each a mapping of one key: `{dense: 256}` (linear and ReLU),
            `{dropout: 0.5}` (share of units dropped in training), `{batch_norm: true}`. A last step
            `{neighbours: 20, images: 500}` (see `Neighbours`) takes the place of the last layer.
        outputs: Units of the last layer: 1, or 2 for a softmax over both classes.

    Raises:
        ModelError: A step is not one of these.

    Example:
        >>> head = build_head(2048, [{"dense": 16}, {"dropout": 0.3}])
        >>> head(torch.zeros(5, 2048)).shape
        torch.Size([5, 1])
    """
    layers: list[nn.Module] = []
    for step in steps:
        match dict(step):
            case {"dense": int(wide)} if len(step) == 1 and wide > 0:
                layers += [nn.Linear(units, wide), nn.ReLU()]
                units = wide
            case {"dropout": int(share) | float(share)} if len(step) == 1 and 0 <= share < 1:
                layers.append(Dropout(share))
            case {"batch_norm": True} if len(step) == 1:
                layers.append(nn.BatchNorm1d(units, eps=1e-3, momentum=0.01))
            case {"neighbours": int(count), "images": int(images)} if len(step) == 2 and step is steps[-1]:
                return nn.Sequential(*layers, Neighbours(units, count, images))
            case _:
                raise ModelError(
                    f"head step {dict(step)}",
                    expected="{dense: units}, {dropout: share below 1} or {batch_norm: true}",
                    remedy="mend model.arguments.head",
                )
    if outputs not in (1, 2):
        raise ModelError(f"outputs: {outputs!r}", expected="1, or 2 for a softmax over both classes")
    layers.append(nn.Linear(units, outputs))
    if outputs == 2:
        layers.append(LogOdds((False, True)))
    return glorot(nn.Sequential(*layers))


def glorot(module: nn.Sequential) -> nn.Sequential:
    """Start convolutions and linear layers from Glorot's uniform distribution and zero biases, as Keras does.

    Glorot and Bengio (2010), "Understanding the difficulty of training deep feedforward neural networks".
    """
    for layer in module.modules():
        if isinstance(layer, nn.Conv2d | nn.Linear):
            nn.init.xavier_uniform_(layer.weight)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
    return module


@torch.no_grad()
def features_of(body: nn.Module, input_size: tuple[int, int]) -> torch.Size:
    """Shape of what `body` makes of one RGB image of `input_size`, without changing the body."""
    was = body.training
    shape = body.eval()(torch.zeros(1, 3, *input_size)).shape
    body.train(was)
    return shape
