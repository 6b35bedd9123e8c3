"""A stage of gradient descent: what learns in it, its loss, its learning rate, and one step."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from copy import deepcopy
from dataclasses import dataclass
from functools import reduce
from typing import TypeVar, cast

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from tumortrace.evaluation.measures import rises
from tumortrace.models.architecture import Network, freeze, train_unfrozen
from tumortrace.models.checkpoint import load_optimiser, optimiser_tensors
from tumortrace.models.device import autocast
from tumortrace.models.layers import Dropout, drawing_from
from tumortrace.models.streams import Streams
from tumortrace.training.compiled import compiled, compiling
from tumortrace.training.optimiser import Muon, build_average, build_optimiser
from tumortrace.training.options import Loss, Schedule
from tumortrace.training.recipe import Recipe
from tumortrace.training.whole_batch import WholeBatchNorm

Learning = TypeVar("Learning", bound=nn.Module)
PARTS = 2  # of a batch on CPUs; batch norm sees each by itself, so that the number is the same on every machine
SMALLEST_PART = 4  # images of which a batch norm can tell statistics


@dataclass(frozen=True)
class Stage:
    """Epochs with one set of frozen parts and one peak learning rate."""

    epochs: int
    lr: float
    freeze: tuple[str, ...]


def stages_of(recipe: Recipe) -> list[Stage]:
    """The stage of a recipe, and the one of fine-tuning where it has one."""
    stages = [Stage(recipe.epochs, recipe.optimiser.lr, tuple(recipe.freeze))]
    if second := recipe.fine_tuning:
        stages.append(Stage(second.epochs, second.lr, tuple(second.freeze)))
    return stages


class Descent:
    """A network that learns by gradient descent, with all that a checkpoint must hold of it.

    Args:
        network: The network; what the stage freezes of it stays.
        recipe: Its optimiser, averaging and clipping.
        stage: Which parts are frozen.
        device: Where it learns.
        precision: As `resolve_precision` names it.
        head_alone: Whether steps take features and train `network.top` on them.
        ranks: How many processes compute a batch together: into so many parts it is divided at least.

    Attributes:
        average: Averaged weights, or None.
        optimiser: Over what is not frozen.
        parts: Into how many parts a batch is divided, which pass through the network side by side.
    """

    def __init__(
        self,
        network: Network,
        recipe: Recipe,
        stage: Stage,
        *,
        device: torch.device,
        precision: str = "32-true",
        head_alone: bool,
        ranks: int = 1,
    ) -> None:
        freeze(network, stage.freeze)
        self.network, self.clip, self.stage = network, recipe.optimiser.clip_norm, stage
        self.device, self.precision = device, precision
        self.average = build_average(network, recipe.averaging)
        self.averages_steps = recipe.averaging.name == "ema"
        self.optimiser = build_optimiser(network, recipe.optimiser)
        learning: nn.Module = network.top if head_alone else network
        self.learnt = [p for p in learning.parameters() if p.requires_grad]
        compiles = not head_alone and (recipe.compile is True or recipe.compile == device.type)
        self.compute = compiled(_logits) if compiles else _logits
        self.compiling: Callable[[], AbstractContextManager[None]] = compiling if compiles else nullcontext
        whole = head_alone or "body" in stage.freeze or device.type != "cpu" or compiles or _draws(network)
        self.parts, self.head_alone = max(1 if whole or recipe.sync_batch_norm else PARTS, ranks), head_alone
        self.sync_batch_norm = recipe.sync_batch_norm and ranks > 1  # one process has the whole batch in one part
        self._make_twins()
        if self.average is not None:
            self.average.to(device)

    @property
    def evaluated(self) -> Network:
        """The averaged network, where there is an average yet, or else the network."""
        if self.average is None or not int(self.average.n_averaged):
            return self.network
        return cast(Network, self.average.module)

    @property
    def rate(self) -> float:
        """Learning rate of the last layers, which no layer decay lowers."""
        group = self.optimiser.param_groups[-1]
        return float(group["lr"] / group["scale"])

    @rate.setter
    def rate(self, rate: float) -> None:
        for group in self.optimiser.param_groups:
            group["lr"] = rate * group["scale"]

    def _make_twins(self) -> None:
        self.networks = [self.network, *(twin(self.network) for _ in range(self.parts - 1))]

    def divided(self, size: int) -> list[np.ndarray]:
        """The images of a batch of some size, from 0, in parts."""
        most = self.parts if self.sync_batch_norm else min(self.parts, max(1, size // SMALLEST_PART))
        return np.array_split(np.arange(size), most)

    def train(self) -> None:
        """Put what learns into training mode, and what is frozen into inference mode."""
        for network in self.networks:
            train_unfrozen(network, self.stage.freeze)

    def forward(self, part: int, inputs: Tensor, generator: torch.Generator) -> tuple[list[Tensor], Tensor]:
        """Logits of a part of a batch, of each network that learns for itself and of all; parts may run side by side.

        The members of an ensemble learn each for itself: what they have in common are the images.
        """
        network = self.networks[part]
        norms = WholeBatchNorm() if self.sync_batch_norm else nullcontext()
        # a source of its own would be compiled in, anew each step; a compiled step has one part, and torch's serves
        draws = nullcontext() if self.compute is not _logits else drawing_from(generator, network)
        with autocast(self.device, self.precision), draws, norms, self.compiling():
            outputs = network.top(inputs) if self.head_alone else self.compute(network, inputs)
            if self.head_alone or len(network.members()) == 1:
                return [outputs.float()], outputs.float()
            return [member.float() for member in outputs.unbind(1)], network.top(outputs.detach()).float()

    def gradients(self, loss: Tensor) -> list[Tensor | None]:
        """Of what learns, in its order; nothing is added up in the parameters themselves."""
        with self.compiling():
            return list(torch.autograd.grad(loss, self.learnt, allow_unused=True))

    def sum(self, gradients: Sequence[Sequence[Tensor | None]]) -> list[Tensor | None]:
        """Of the gradients of parts of a batch."""
        total: list[Tensor | None] = []
        for _, *parts in zip(self.learnt, *gradients, strict=True):
            terms = [part for part in parts if part is not None]
            total.append(reduce(torch.add, terms) if terms else None)
        return total

    def step(self, gradients: Sequence[Tensor | None], streams: Streams) -> None:
        """One step down the gradients of a batch."""
        for parameter, gradient in zip(self.learnt, gradients, strict=True):
            parameter.grad = gradient
        if self.clip is not None:
            nn.utils.clip_grad_norm_(self.learnt, self.clip)
        if isinstance(self.optimiser, Muon):
            self.optimiser.streams = streams
        self.optimiser.step()
        if self.averages_steps:
            self.update_average()

    def update_average(self) -> None:
        """Take the weights of now into the average, where there is one."""
        if self.average is not None:
            self.average.update_parameters(self.network)

    @property
    def state(self) -> dict[str, Tensor]:
        """Weights and running statistics of the network, and of the averaged one, by name; not copies."""
        tensors = {f"network.{name}": value for name, value in self.network.state_dict().items()}
        if self.average is not None:
            tensors |= {f"average.{name}": value for name, value in self.average.state_dict().items()}
        return tensors

    def tensors(self) -> dict[str, Tensor]:
        """All that `load` needs, by name."""
        return self.state | optimiser_tensors(self.optimiser, "optimiser")

    def load(self, tensors: dict[str, Tensor]) -> None:
        """Take up what `tensors` gave."""
        self.network.load_state_dict(_below(tensors, "network"))
        self._make_twins()  # frozen batch norm computes with the statistics that were loaded
        if self.average is not None:
            self.average.load_state_dict(_below(tensors, "average"))
        load_optimiser(self.optimiser, tensors, "optimiser")


def twin(network: Learning) -> Learning:
    """A network with the same parameters, not copies, and running statistics of its own.

    No one reads those that it gathers while it learns; where batch norm is frozen it computes with what was copied.
    """
    return deepcopy(network, {id(parameter): parameter for parameter in network.parameters()})


def _logits(network: Network, inputs: Tensor) -> Tensor:
    """Of the network; of an ensemble, those of each member, shape (N, M, ...)."""
    outputs: Tensor = network(inputs) if len(network.members()) == 1 else network.features(inputs)
    return outputs


def _draws(network: nn.Module) -> bool:
    """Whether a layer draws from torch's own source, whose draws would come in another order every time."""
    chances = (
        getattr(layer, name, 0)
        for layer in network.modules()
        if not isinstance(layer, Dropout)
        for name in ("p", "drop_prob", "drop_rate")
    )
    return any(isinstance(chance, int | float) and chance > 0 for chance in chances)


def _below(tensors: dict[str, Tensor], name: str) -> dict[str, Tensor]:
    return {key.removeprefix(f"{name}."): value for key, value in tensors.items() if key.startswith(f"{name}.")}


def binary_loss(logits: Tensor, targets: Tensor, options: Loss, share: float) -> Tensor:
    """Mean binary cross-entropy of a batch.

    Args:
        logits: Of the positive class, shape (N,).
        targets: Labels, or probabilities to learn, shape (N,).
        options: Label smoothing and class weights.
        share: Of the positives among all training images, by which "balanced" weighs.
    """
    weights = None
    if options.class_weights == "balanced":
        weights = (1 - targets) * 0.5 / (1 - share) + targets * 0.5 / share
    smoothed = targets * (1 - options.label_smoothing) + options.label_smoothing / 2
    return functional.binary_cross_entropy_with_logits(logits, smoothed, weights)


def class_loss(logits: Tensor, targets: Tensor, options: Loss, shares: Tensor) -> Tensor:
    """Mean cross-entropy of a batch of more than two classes.

    Args:
        logits: Of the classes, shape (N, K).
        targets: What to learn, shape (N, K), sum 1.
        options: Label smoothing, by which s of a target is spread over the classes alike, and class weights.
        shares: Of the classes among all training images, shape (K,), by which "balanced" weighs.
    """
    smoothed = targets * (1 - options.label_smoothing) + options.label_smoothing / targets.shape[1]
    losses = -(smoothed * logits.log_softmax(1)).sum(1)
    if options.class_weights == "balanced":
        losses = losses * (targets / (len(shares) * shares)).sum(1)
    return losses.mean()


def learning_rate(
    schedule: Schedule, peak: float, step: int, steps: int, *, epoch: int = 0, watched: Sequence[float | None] = ()
) -> float:
    """Learning rate at `step` (from 0) of the `steps` of a stage.

    It is a pure function, so that a resumed run needs no state for it. `one_cycle` rises from peak / 25 along a cosine
    during the warm-up and falls to peak / 10,000 along another; the others rise in a straight line.

    Args:
        schedule: Which one.
        peak: Learning rate at its peak.
        step: Steps of the stage so far.
        steps: Steps that the stage takes at most.
        epoch: Epochs of the stage so far.
        watched: `schedule.metric` on validation after each of them.

    Example:
        >>> cycle = Schedule(name="one_cycle", warmup=0.5)
        >>> [round(learning_rate(cycle, 1.0, step, 5), 4) for step in range(5)]
        [0.04, 0.52, 1.0, 0.5, 0.0001]
        >>> learning_rate(Schedule(name="step", every=2, factor=0.5), 1.0, 0, 5, epoch=4)
        0.25
    """
    position = step / max(1, steps - 1)
    warmup = schedule.warmup if schedule.warmup is not None else 0.25 if schedule.name == "one_cycle" else 0.0
    if schedule.name == "one_cycle":
        if position < warmup:
            return _cosine(peak / 25, peak, position / warmup)
        return _cosine(peak, peak / 10_000, (position - warmup) / (1 - warmup))
    if position < warmup:
        return peak * (step + 1) / (warmup * max(1, steps - 1) + 1)
    if schedule.name == "cosine":
        return _cosine(peak, min(peak, schedule.floor), (position - warmup) / (1 - warmup))
    if schedule.name == "step":
        return max(peak * schedule.factor ** (epoch // schedule.every), min(peak, schedule.floor))
    if schedule.name == "plateau":
        return _plateau(schedule, peak, watched)
    return peak


def _plateau(schedule: Schedule, peak: float, watched: Sequence[float | None]) -> float:
    """As torch's ReduceLROnPlateau does with `threshold=0`, replayed over the epochs so far."""
    sign = -1.0 if rises(schedule.metric) else 1.0
    rate, best, waited = peak, math.inf, 0
    for value in watched:
        error = math.inf if value is None else sign * value
        if error < best:
            best, waited = error, 0
            continue
        waited += 1
        if waited > schedule.patience:
            rate, waited = max(rate * schedule.factor, min(peak, schedule.floor)), 0
    return rate


def _cosine(start: float, end: float, share: float) -> float:
    return end + (start - end) * (1 + math.cos(math.pi * share)) / 2
