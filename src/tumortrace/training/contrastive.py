"""A body that learns from images without labels: two views of an image are to be alike, views of two images are not."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from tumortrace.errors import ModelError, RunError
from tumortrace.images.augmentation import Augmentation
from tumortrace.models.architecture import Network
from tumortrace.models.checkpoint import load_checkpoint, load_optimiser, optimiser_tensors, save_checkpoint
from tumortrace.models.device import autocast, keep_memory
from tumortrace.models.layers import drawing_from
from tumortrace.models.streams import Streams, streams
from tumortrace.records.output import differing
from tumortrace.records.progress import progress_bar
from tumortrace.training.learner import Row, seed_everything, seed_of
from tumortrace.training.optimiser import Muon, build_optimiser
from tumortrace.training.recipe import Recipe
from tumortrace.training.stage import learning_rate, twin
from tumortrace.training.task import Patches

#: What parts the two views of an image. A patch's class may follow from its very centre, which a crop can lose: the
#: body learns what tissue looks like, and not where it lies.
VIEWS = Augmentation(
    symmetries=True, crop=(0.4, 1.0), stain=0.12, brightness=(0.8, 1.25), blur=(0.1, 1.2), blur_probability=0.3
)
TEMPERATURE = 0.2
PROJECTED = 128  # numbers in which views are compared
CHECKPOINT_SECONDS = 60


@dataclass(frozen=True)
class Settings:
    """What decides what is learnt."""

    recipe: dict[str, Any]
    epochs: int
    batch_size: int
    seed: int
    images: str  # their digest
    precision: str


@dataclass
class Progress:
    """Where the learning stands: finished epochs, steps and sums of the one begun, and a row for each finished one."""

    epoch: int = 0
    step: int = 0
    loss: float = 0.0
    matched: float = 0.0
    seconds: float = 0.0
    history: list[Row] = field(default_factory=list)


class Contrast(nn.Module):
    """A network's body, and the projection of its features in which views are compared.

    Args:
        network: Its `body` is what learns.
        features: Of an image, as `mean_features` gives them.
    """

    def __init__(self, network: Network, features: int) -> None:
        super().__init__()
        self.body = network.body
        self.projection = nn.Sequential(
            nn.Linear(features, features), nn.BatchNorm1d(features), nn.ReLU(), nn.Linear(features, PROJECTED)
        )

    def forward(self, images: Tensor) -> Tensor:
        """Views (N, 3, H, W) as points (N, 128)."""
        points: Tensor = self.projection(mean_features(self.body(images)))
        return points


def mean_features(maps: Tensor) -> Tensor:
    """An image's features: the mean of each map (N, C, h, w) over the image; of tokens (N, T, C) over them."""
    return maps.mean((2, 3)) if maps.ndim == 4 else maps.mean(1) if maps.ndim == 3 else maps


def contrast(first: Tensor, second: Tensor, temperature: float = TEMPERATURE) -> tuple[Tensor, Tensor]:
    """The normalised, temperature-scaled cross-entropy of two views.

    Each view has to find the other of its image among all others of the batch. Chen et al. (2020), "A simple framework
    for contrastive learning of visual representations".

    Args:
        first: Of N images, shape (N, D).
        second: The other view of each, likewise.
        temperature: By which cosines are divided.

    Returns:
        The mean loss, and the share of the views that have their other one for the nearest.

    Example:
        >>> loss, matched = contrast(torch.eye(4), torch.eye(4))
        >>> round(loss.item(), 4), matched.item()  # -log(e^5 / (e^5 + 6))
        (0.0396, 1.0)
    """
    points = functional.normalize(torch.cat([first, second]).float())
    alike = points @ points.T / temperature
    alike.fill_diagonal_(-math.inf)
    other = torch.arange(len(points), device=points.device).roll(len(first))
    return functional.cross_entropy(alike, other), (alike.argmax(1) == other).float().mean()


class ContrastiveLearner:
    """Learns a body from images alone, resumable.

    The two views of a batch pass through it side by side, one stream each, with statistics of their own. Random state
    follows from (seed, epoch, step); all else is in the checkpoint.

    Args:
        network: Its `body` learns, in place.
        patches: The images; their labels are not looked at.
        recipe: Its preprocessing, optimiser and schedule are taken.
        settings: What decides the outcome.
        checkpoint: File to resume from.
        device: Where it computes.
    """

    def __init__(
        self,
        network: Network,
        patches: Patches,
        recipe: Recipe,
        settings: Settings,
        checkpoint: Path,
        device: torch.device,
    ) -> None:
        keep_memory()
        self.patches, self.recipe, self.settings = patches, recipe, settings
        self.checkpoint, self.device = checkpoint, device
        self.network = network.to(device).to(memory_format=torch.channels_last)
        self.learning = Contrast(self.network, self._features()).to(device).train()
        self.optimiser = build_optimiser(self.learning, recipe.optimiser)
        self.learnt = list(self.learning.parameters())
        self.steps = max(1, len(patches.rows) // settings.batch_size)
        self.progress = Progress()

    def resume(self) -> None:
        """Continue from the checkpoint, where there is one.

        Raises:
            RunError: It is of other images or another recipe.
        """
        if not self.checkpoint.exists():
            return
        tensors, saved = load_checkpoint(self.checkpoint)
        if changed := differing(saved["settings"], asdict(self.settings)):
            raise RunError(
                f"a pre-training begun with {'; '.join(changed)}",
                where=self.checkpoint.parent,
                remedy="call it as it was begun to go on with it, or choose another -o",
            )
        self.progress = Progress(**saved["progress"])
        self.learning.load_state_dict({name: tensors[f"learning.{name}"] for name in self.learning.state_dict()})
        load_optimiser(self.optimiser, tensors, "optimiser")

    def fit(self, after_epoch: Callable[[list[Row]], None]) -> None:
        """Take the steps that are left; `after_epoch` is given the history so far."""
        state, epochs = self.progress, self.settings.epochs
        with streams(self.device, 2) as several, progress_bar() as bar:
            line = bar.add_task("pre-training", total=epochs * self.steps, completed=self._done)
            if isinstance(self.optimiser, Muon):
                self.optimiser.streams = several
            twins = [self.learning, twin(self.learning)]
            while state.epoch < epochs:
                order = np.random.default_rng([self.settings.seed, state.epoch]).permutation(len(self.patches.rows))
                batches = np.array_split(order, self.steps)
                started = saved = time.monotonic()
                while state.step < self.steps:
                    self._step(batches[state.step], several, twins)
                    state.step += 1
                    bar.update(line, completed=self._done)
                    if time.monotonic() - saved > CHECKPOINT_SECONDS:
                        state.seconds += time.monotonic() - started
                        self._save()
                        started = saved = time.monotonic()
                state.seconds += time.monotonic() - started
                loss, matched = state.loss / self.steps, state.matched / self.steps
                row = {"epoch": state.epoch + 1, "loss": loss, "matched": matched, "seconds": round(state.seconds, 3)}
                state.history.append(row)
                state.epoch, state.step, state.loss, state.matched, state.seconds = state.epoch + 1, 0, 0.0, 0.0, 0.0
                self._save()
                after_epoch(state.history)
                bar.update(line, description=f"pre-training, loss {loss:.3f}")

    @property
    def _done(self) -> int:
        return self.progress.epoch * self.steps + self.progress.step

    @torch.no_grad()
    def _features(self) -> int:
        """Of an image, in number."""
        size = self.recipe.preprocessing.output_size(self.patches.size)
        maps = self.network.eval().body(torch.zeros(1, 3, *size, device=self.device))
        if not isinstance(maps, Tensor):
            raise ModelError(
                "a network of several bodies",
                where=f"recipe {self.recipe.name}",
                remedy="pre-train a recipe of one of them",
            )
        return mean_features(maps).shape[1]

    def _view(self, indices: np.ndarray, number: int) -> tuple[Tensor, torch.Generator]:
        """One of the two views of images, ready for the body, and the source of what is drawn after."""
        state, steps = self.progress, self.recipe.preprocessing
        seed = seed_of(self.settings.seed, state.epoch, state.step, number)
        generator = torch.Generator(self.device).manual_seed(seed)
        pixels = VIEWS.of(steps, self.patches.tensor(indices, self.device), generator)
        return steps.normalise(pixels).contiguous(memory_format=torch.channels_last), generator

    def _step(self, batch: np.ndarray, several: Streams, twins: list[Contrast]) -> None:
        """Learn from a batch: both views forward, what they are to each other, and both back."""
        state, settings = self.progress, self.settings
        seed_everything(settings.seed, state.epoch, state.step)
        done, total = self._done, settings.epochs * self.steps
        for group in self.optimiser.param_groups:
            rate = learning_rate(self.recipe.schedule, self.recipe.optimiser.lr, done, total, epoch=state.epoch)
            group["lr"] = group["scale"] * rate

        def forward(numbered: tuple[int, Contrast]) -> Tensor:
            number, network = numbered
            inputs, generator = self._view(batch, number)
            with autocast(self.device, settings.precision), drawing_from(generator, network):
                return network(inputs).float()

        points = list(several.map(forward, enumerate(twins)))
        leaves = [point.detach().requires_grad_() for point in points]
        loss, matched = contrast(leaves[0], leaves[1])
        if not math.isfinite(loss.item()):
            raise RunError(
                f"the loss is {loss.item()} at epoch {state.epoch + 1}, step {state.step + 1}",
                remedy="lower optimiser.lr",
            )
        loss.backward()

        def backward(pair: tuple[Tensor, Tensor]) -> tuple[Tensor, ...]:
            point, leaf = pair
            return torch.autograd.grad(point, self.learnt, leaf.grad)

        first, second = several.map(backward, zip(points, leaves, strict=True))
        for parameter, one, other in zip(self.learnt, first, second, strict=True):
            parameter.grad = one + other
        if self.recipe.optimiser.clip_norm is not None:
            nn.utils.clip_grad_norm_(self.learnt, self.recipe.optimiser.clip_norm)
        self.optimiser.step()
        state.loss += loss.item()
        state.matched += matched.item()

    def _save(self) -> None:
        tensors = {f"learning.{name}": value for name, value in self.learning.state_dict().items()}
        tensors |= optimiser_tensors(self.optimiser, "optimiser")
        save_checkpoint(
            self.checkpoint, tensors, {"settings": asdict(self.settings), "progress": asdict(self.progress)}
        )
