"""The training loop.

Random state follows from (seed, epoch, step), and everything else that changes is in the checkpoint: a run that was
killed at any moment and resumed ends bit for bit where an undisturbed one does (same machine, CPU).
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from lightning_fabric import Fabric
from torch import Tensor, nn
from torch.nn import functional
from torch.optim.swa_utils import AveragedModel

from tumortrace.evaluation.metrics import METRICS, classification
from tumortrace.models.architecture import build_network
from tumortrace.models.checkpoint import load_checkpoint, save_checkpoint
from tumortrace.models.device import keep_memory, resolve_device, resolve_precision
from tumortrace.runs.files import write_csv
from tumortrace.runs.progress import progress_bar
from tumortrace.training.muon import Muon
from tumortrace.training.recipe import Averaging, Optimiser, Recipe, Stopping
from tumortrace.training.schedule import learning_rate

CHECKPOINT_SECONDS = 60


@dataclass(frozen=True)
class Patches:
    """Images of one split: rows of a patch store, with labels.

    Attributes:
        images: uint8, shape (M, H, W, 3), memory-mapped; M is the whole cohort.
        rows: int64, shape (N,): which of the images.
        labels: float32, shape (N,): 0 or 1.
    """

    images: np.ndarray
    rows: np.ndarray
    labels: np.ndarray


@dataclass
class Progress:
    """Where a training stands; all of it goes into the checkpoint as JSON."""

    epoch: int = 0
    step: int = 0
    loss_sum: float = 0.0
    seconds: float = 0.0
    best_epoch: int = 0
    best_value: float | None = None
    history: list[dict[str, Any]] = field(default_factory=list)


def seed_everything(*numbers: int) -> None:
    """Seed torch's generators from a tuple of whole numbers, so that (seed, epoch, step) names one random state."""
    torch.manual_seed(int(np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0] >> np.uint64(1)))


class Trainer:
    """Fits a recipe's network to the training split and keeps the weights that are best on the validation split.

    Args:
        recipe: What to train and how.
        training: Training split.
        validation: Validation split; never augmented.
        checkpoints: Folder for `last.safetensors` and `best.safetensors`.
        history_file: CSV with one row per epoch.
        seed: Seed of initial weights, order, augmentation and dropout.
        device: "auto", "cpu", "cuda" ...
        precision: "auto", "32" or "bf16".
    """

    def __init__(
        self,
        recipe: Recipe,
        training: Patches,
        validation: Patches,
        *,
        checkpoints: Path,
        history_file: Path,
        seed: int,
        device: str = "auto",
        precision: str = "auto",
    ) -> None:
        keep_memory()
        self.recipe, self.training, self.validation = recipe, training, validation
        self.checkpoints, self.history_file, self.seed = checkpoints, history_file, seed
        self.device = resolve_device(device)
        self.precision = resolve_precision(precision, self.device)
        indices: list[int] | int = [self.device.index] if self.device.index is not None else 1
        self.fabric = Fabric(accelerator=self.device.type, devices=indices, precision=self.precision)  # type: ignore[arg-type]
        seed_everything(seed)
        height, width = training.images.shape[1:3]
        input_size = recipe.preprocessing.output_size((height, width))
        self.network = build_network(recipe.model.name, input_size, recipe.model.arguments)
        self.network.to(memory_format=torch.channels_last)
        self.average = _average(self.network, recipe.averaging)
        self.optimiser = _optimiser(self.network, recipe.optimiser)
        self.wrapped, self.wrapped_optimiser = self.fabric.setup(self.network, self.optimiser)
        if self.average is not None:
            self.average.to(self.device)
        self.steps = max(1, round(len(training.rows) / recipe.batch_size))
        self.progress = Progress()

    @property
    def evaluated(self) -> nn.Module:
        """The network that is validated and kept: the averaged one where the recipe averages."""
        return self.network if self.average is None else self.average.module

    def resume(self) -> bool:
        """Continue from the last checkpoint; false when there is none yet."""
        path = self.checkpoints / "last.safetensors"
        if not path.is_file():
            return False
        tensors, state = load_checkpoint(path)
        self.progress = Progress(**state)
        self.network.load_state_dict(_part(tensors, "network"))
        if self.average is not None:
            self.average.load_state_dict(_part(tensors, "average"))
        groups = self.optimiser.state_dict()["param_groups"]
        values: dict[int, dict[str, Tensor]] = {}
        for name, value in _part(tensors, "optimiser").items():
            index, _, key = name.partition(".")
            values.setdefault(int(index), {})[key] = value
        self.optimiser.load_state_dict({"state": values, "param_groups": groups})
        return True

    def fit(self, after_epoch: Callable[[dict[str, Any]], bool] | None = None) -> Progress:
        """Train until the last epoch or early stopping, then load the best weights into `evaluated`.

        Args:
            after_epoch: Called with the epoch's row of the history; training ends when it returns true.
        """
        with progress_bar() as bar:
            total = self.recipe.epochs * self.steps
            task = bar.add_task(
                "training", total=total, completed=self.progress.epoch * self.steps + self.progress.step
            )
            while self.progress.epoch < self.recipe.epochs and not self._stopped():
                self._train_epoch(lambda: bar.advance(task))
                self._finish_epoch()
                last = self.progress.history[-1]
                line = f"training, validation AUROC {_shown(last['validation_auroc'])}"
                bar.update(task, description=line, completed=self.progress.epoch * self.steps)
                if after_epoch is not None and after_epoch(last):
                    break
        if self.progress.best_epoch:
            tensors, _ = load_checkpoint(self.checkpoints / "best.safetensors")
            self.evaluated.load_state_dict(tensors)
        return self.progress

    def _train_epoch(self, advance: Any) -> None:
        recipe, state = self.recipe, self.progress
        order = np.random.default_rng([self.seed, state.epoch]).permutation(len(self.training.rows))
        batches = np.array_split(order, self.steps)  # sizes differ by one at most: no image is dropped
        self.wrapped.train()
        started = saved = time.monotonic()
        while state.step < self.steps:
            batch = batches[state.step]
            seed_everything(self.seed, state.epoch, state.step)
            rate = learning_rate(
                recipe.schedule, recipe.optimiser.lr, state.epoch * self.steps + state.step, recipe.epochs * self.steps
            )
            for group in self.optimiser.param_groups:
                group["lr"] = rate
            loss = self._step(batch)
            state.loss_sum += loss * len(batch)
            state.step += 1
            advance()
            if time.monotonic() - saved > CHECKPOINT_SECONDS and state.step < self.steps:
                state.seconds += time.monotonic() - started
                self._save_last()
                started = saved = time.monotonic()
        state.seconds += time.monotonic() - started

    def _step(self, batch: np.ndarray) -> float:
        pixels = self.recipe.preprocessing.pixels(self._images(self.training, batch))
        pixels = self.recipe.augmentation(pixels)
        inputs = self.recipe.preprocessing.normalise(pixels).contiguous(memory_format=torch.channels_last)
        labels = torch.from_numpy(self.training.labels[batch]).to(self.device)
        loss = functional.binary_cross_entropy_with_logits(self.wrapped(inputs).float(), labels)
        self.wrapped_optimiser.zero_grad()
        self.fabric.backward(loss)
        self.wrapped_optimiser.step()
        if self.average is not None:
            self.average.update_parameters(self.network)
        return float(loss.detach())

    def _finish_epoch(self) -> None:
        state = self.progress
        started = time.monotonic()
        metrics = self._validate()
        row = {
            "epoch": state.epoch + 1,
            "learning_rate": self.optimiser.param_groups[0]["lr"],
            "train_loss": state.loss_sum / len(self.training.rows),
            **{f"validation_{name}": value for name, value in metrics.items()},
        }
        value = metrics[self.recipe.stopping.metric]
        if _improves(value, state.best_value, self.recipe.stopping):
            state.best_value, state.best_epoch = value, state.epoch + 1
            save_checkpoint(
                self.checkpoints / "best.safetensors", dict(self.evaluated.state_dict()), {"epoch": state.epoch + 1}
            )
        row["seconds"] = round(state.seconds + time.monotonic() - started, 3)
        state.history.append(row)
        state.epoch, state.step, state.loss_sum, state.seconds = state.epoch + 1, 0, 0.0, 0.0
        self._save_last()
        write_csv(self.history_file, pd.DataFrame(state.history))

    @torch.inference_mode()
    def _validate(self) -> dict[str, float | None]:
        network = self.evaluated.eval()
        rows, labels = self.validation.rows, self.validation.labels
        logits = []
        for start in range(0, len(rows), 256):
            images = self._images(self.validation, np.arange(start, min(start + 256, len(rows))))
            inputs = self.recipe.preprocessing.normalise(self.recipe.preprocessing.pixels(images))
            logits.append(network(inputs.contiguous(memory_format=torch.channels_last)).float().cpu())
        logit = torch.cat(logits)
        loss = float(functional.binary_cross_entropy_with_logits(logit, torch.from_numpy(labels)))
        probability = torch.sigmoid(logit.double()).numpy()
        metrics = classification(labels.astype(np.int64), probability, 0.5)
        return {"loss": loss, **{name: metrics[name] for name in METRICS}}

    def _images(self, patches: Patches, indices: np.ndarray) -> Tensor:
        images = torch.from_numpy(patches.images[patches.rows[indices]])
        return images.to(self.device).permute(0, 3, 1, 2)

    def _save_last(self) -> None:
        tensors = {f"network.{name}": value for name, value in self.network.state_dict().items()}
        if self.average is not None:
            tensors |= {f"average.{name}": value for name, value in self.average.state_dict().items()}
        for index, values in self.optimiser.state_dict()["state"].items():
            tensors |= {f"optimiser.{index}.{name}": value for name, value in values.items()}
        save_checkpoint(self.checkpoints / "last.safetensors", tensors, vars(self.progress))

    def _stopped(self) -> bool:
        state = self.progress
        return state.best_epoch > 0 and state.epoch - state.best_epoch >= self.recipe.stopping.patience


def _improves(value: float | None, best: float | None, stopping: Stopping) -> bool:
    if value is None:  # undefined on this validation split: every epoch counts as the best so far
        return best is None
    if best is None:
        return True
    gain = best - value if stopping.metric == "loss" else value - best
    return gain > stopping.least_improvement


def _average(network: nn.Module, averaging: Averaging) -> AveragedModel | None:
    if averaging.name == "none":
        return None

    @torch.no_grad()
    def update(averages: Any, values: Any, count: Tensor | int) -> None:
        steps = int(count)
        decay = min(averaging.decay, (1 + steps) / (10 + steps))  # a short memory first, as early weights are poor
        for average, value in zip(averages, values, strict=True):
            if average.is_floating_point():
                average.lerp_(value, 1 - decay)
            else:
                average.copy_(value)

    return AveragedModel(network, multi_avg_fn=update, use_buffers=True)


def _optimiser(network: nn.Module, options: Optimiser) -> torch.optim.Optimizer:
    parameters = [p for p in network.parameters() if p.requires_grad]
    groups = [
        {"params": [p for p in parameters if p.ndim > 1], "weight_decay": options.weight_decay},
        {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
    ]
    kinds: dict[str, Any] = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW, "muon": Muon}
    optimiser: torch.optim.Optimizer = kinds[options.name](groups, lr=options.lr)
    return optimiser


def _part(tensors: dict[str, Tensor], name: str) -> dict[str, Tensor]:
    return {key.removeprefix(f"{name}."): value for key, value in tensors.items() if key.startswith(f"{name}.")}


def _shown(value: float | None) -> str:
    return "undefined" if value is None else f"{value:.3f}"
