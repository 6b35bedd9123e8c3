"""The training loop.

Random state follows from (seed, epoch, step), and everything else that changes is in the checkpoint: a run that was
killed at any moment and resumed ends bit for bit where an undisturbed one does (same machine, CPU).
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import pandas as pd
import torch
from lightning_fabric import Fabric
from torch import Tensor, nn

from tumortrace.errors import RunError
from tumortrace.evaluation.measures import MEASURES
from tumortrace.models.architecture import Network, build_network, freeze, train_unfrozen
from tumortrace.models.checkpoint import load_checkpoint, save_checkpoint
from tumortrace.models.description import Architecture
from tumortrace.models.device import keep_memory, prediction_batch, resolve_device, resolve_precision
from tumortrace.models.weights import load_weights
from tumortrace.records.files import write_csv
from tumortrace.records.progress import progress_bar
from tumortrace.training.features import frozen_features
from tumortrace.training.learner import Progress, improves, scores, seed_everything
from tumortrace.training.optimiser import binary_loss, build_average, build_optimiser, learning_rate
from tumortrace.training.task import Task, epoch_order

CHECKPOINT_SECONDS = 60
logging.getLogger("lightning_fabric").setLevel(logging.WARNING)  # the run's record has device and precision


@dataclass(frozen=True)
class Stage:
    """Epochs with one set of frozen parts and one peak learning rate."""

    epochs: int
    lr: float
    freeze: tuple[str, ...]


class Trainer:
    """Fits a recipe's network to the training split and keeps the weights that are best on the validation split.

    Where the body is frozen throughout and nothing is augmented, its features are computed once and the head alone is
    trained on them, with the same result.

    Args:
        task: What to train, on what, and where its files go.
        keep_features: Whether to compute the features of a frozen body once.

    Attributes:
        network: The network that learns.
        weights: Where its weights come from: `origin`, `sha256`, `unused`.
    """

    def __init__(self, task: Task, *, keep_features: bool = True) -> None:
        keep_memory()
        recipe = task.recipe
        self.recipe, self.training, self.validation = recipe, task.training, task.validation
        self.preprocessing = recipe.preprocessing
        self.checkpoints, self.history_file, self.seed = task.checkpoints, task.history_file, task.seed
        self.device = resolve_device(task.device)
        self.precision = resolve_precision(task.precision, self.device)
        indices: list[int] | int = [self.device.index] if self.device.index is not None else 1
        self.fabric = Fabric(accelerator=self.device.type, devices=indices, precision=self.precision)  # type: ignore[arg-type]
        self.input_size = task.input_size
        seed_everything(task.seed)
        self.network = build_network(recipe.model.name, self.input_size, recipe.model.arguments)
        self.weights = load_weights(self.network, recipe.weights)
        self.network.to(self.device).to(memory_format=torch.channels_last)
        self.stages = [Stage(recipe.epochs, recipe.optimiser.lr, tuple(recipe.freeze))]
        if recipe.fine_tuning:
            second = recipe.fine_tuning
            self.stages.append(Stage(second.epochs, second.lr, tuple(second.freeze)))
        self.trains_head = keep_features and self._body_stays()
        if self.trains_head:
            self._keep_features(task.data_key)
        self.share = float(task.training.labels.mean())  # of positives
        self.steps = max(1, round(len(task.training.rows) / recipe.batch_size))
        self.progress = Progress()
        self.outputs: list[Tensor] = []  # logits and labels of the epoch's steps so far
        self._enter_stage()

    @property
    def evaluated(self) -> Network:
        """The network that is validated and kept: the averaged one where the recipe averages."""
        if self.average is None or not int(self.average.n_averaged):
            return self.network
        return cast(Network, self.average.module)

    @property
    def architecture(self) -> Architecture:
        """What the bundle has to say to build the network again, without any network connection."""
        arguments = {**self.recipe.model.arguments, **self.network.resolved_arguments}
        return Architecture(name=self.recipe.model.name, arguments=arguments)

    @property
    def stage(self) -> Stage:
        """The stage that the training is in."""
        return self.stages[self.progress.stage]

    def resume(self) -> bool:
        """Continue from the last checkpoint; false when there is none yet."""
        path = self.checkpoints / "last.safetensors"
        if not path.is_file():
            return False
        tensors, state = load_checkpoint(path)
        self.progress = Progress(**state)
        self._enter_stage()
        self.network.load_state_dict(_part(tensors, "network"))
        if self.average is not None:
            self.average.load_state_dict(_part(tensors, "average"))
        groups = self.optimiser.state_dict()["param_groups"]
        values: dict[int, dict[str, Tensor]] = {}
        for name, value in _part(tensors, "optimiser").items():
            index, _, key = name.partition(".")
            values.setdefault(int(index), {})[key] = value
        self.optimiser.load_state_dict({"state": values, "param_groups": groups})
        self.outputs = [tensors["outputs"]] if "outputs" in tensors else []
        return True

    def fit(self, after_epoch: Callable[[dict[str, Any]], bool] | None = None) -> Progress:
        """Train until the last epoch or early stopping, then load the best weights into `evaluated`.

        Args:
            after_epoch: Called with the epoch's row of the history; training ends when it returns true.

        Raises:
            RunError: The loss is no longer a number.
        """
        with progress_bar() as bar:
            total = sum(stage.epochs for stage in self.stages) * self.steps
            done = self.progress.epoch * self.steps + self.progress.step
            task = bar.add_task("training", total=total, completed=done)
            ended = False
            while not ended:
                while self.progress.stage_epoch < self.stage.epochs and not self._stopped() and not ended:
                    self._train_epoch(lambda: bar.advance(task))
                    self._finish_epoch()
                    last = self.progress.history[-1]
                    line = f"training, validation AUROC {_shown(last['validation_auroc'])}"
                    bar.update(task, description=line, completed=self.progress.epoch * self.steps)
                    ended = after_epoch is not None and after_epoch(last)
                ended = ended or self.progress.stage + 1 == len(self.stages)
                if not ended:
                    self._next_stage()
        if self.progress.best_epoch:
            self._load_best()
        return self.progress

    def _body_stays(self) -> bool:
        frozen = all("body" in stage.freeze for stage in self.stages)
        return frozen and self.network.published is not None and self.recipe.augmentation.identity

    def _keep_features(self, data_key: str | None) -> None:
        key = None if data_key is None else f"{data_key} {self.precision}"
        self.training, self.validation = (
            frozen_features(
                self.network,
                self.preprocessing,
                patches,
                device=self.device,
                autocast=self.fabric.autocast(),
                key=key,
            )
            for patches in (self.training, self.validation)
        )

    def _enter_stage(self) -> None:
        freeze(self.network, self.stage.freeze)
        learning: nn.Module = self.network.top if self.trains_head else self.network
        self.average = build_average(self.network, self.recipe.averaging)
        self.optimiser = build_optimiser(self.network, self.recipe.optimiser)
        self.wrapped, self.wrapped_optimiser = self.fabric.setup(learning, self.optimiser)
        if self.average is not None:
            self.average.to(self.device)

    def _next_stage(self) -> None:
        if self.progress.best_epoch:
            tensors, _ = load_checkpoint(self.checkpoints / "best.safetensors")
            self.network.load_state_dict(tensors)
        self.progress.stage, self.progress.stage_epoch = self.progress.stage + 1, 0
        self._enter_stage()
        self._save_last()

    def _load_best(self) -> None:
        tensors, _ = load_checkpoint(self.checkpoints / "best.safetensors")
        self.evaluated.load_state_dict(tensors)

    def _train_epoch(self, advance: Callable[[], None]) -> None:
        recipe, state = self.recipe, self.progress
        order = epoch_order(self.training.labels, recipe.sampling == "balanced", (self.seed, state.epoch))
        batches = np.array_split(order, self.steps)  # sizes differ by one at most: no image is dropped
        train_unfrozen(self.network, self.stage.freeze)
        started = saved = time.monotonic()
        while state.step < self.steps:
            batch = batches[state.step]
            seed_everything(self.seed, state.epoch, state.step)
            for group in self.optimiser.param_groups:
                group["lr"] = self._rate() * group["scale"]
            state.loss_sum += self._step(batch) * len(batch)
            state.step += 1
            advance()
            if time.monotonic() - saved > CHECKPOINT_SECONDS and state.step < self.steps:
                state.seconds += time.monotonic() - started
                self._save_last()
                started = saved = time.monotonic()
        state.seconds += time.monotonic() - started

    def _rate(self) -> float:
        state, schedule = self.progress, self.recipe.schedule
        rows = state.history[len(state.history) - state.stage_epoch :]
        return learning_rate(
            schedule,
            self.stage.lr,
            state.stage_epoch * self.steps + state.step,
            self.stage.epochs * self.steps,
            epoch=state.stage_epoch,
            watched=[row[f"validation_{schedule.metric}"] for row in rows],
        )

    def _step(self, batch: np.ndarray) -> float:
        found = self.training.tensor(batch, self.device)
        targets = torch.from_numpy(self.training.learnt(batch)).to(self.device)
        if not self.trains_head:
            pixels = self.recipe.augmentation(self.preprocessing.pixels(found))
            pixels, targets = self.recipe.augmentation.mix(pixels, targets)
            found = self.preprocessing.normalise(pixels).contiguous(memory_format=torch.channels_last)
        logits = self.wrapped(found).float().view(-1)
        loss = binary_loss(logits, targets, self.recipe.loss, self.share)
        self.wrapped_optimiser.zero_grad()
        self.fabric.backward(loss)
        clip = self.recipe.optimiser.clip_norm
        if clip is not None:
            nn.utils.clip_grad_norm_([p for p in self.network.parameters() if p.grad is not None], clip)
        self.wrapped_optimiser.step()
        if self.average is not None and self.recipe.averaging.name == "ema":
            self.average.update_parameters(self.network)
        value = float(loss.detach())
        self._require_number(value)
        labels = torch.from_numpy(self.training.labels[batch])
        self.outputs.append(torch.stack([logits.detach().cpu(), labels], 1))
        return value

    def _require_number(self, loss: float) -> None:
        if not math.isfinite(loss):
            raise RunError(
                f"the loss is {loss} at epoch {self.progress.epoch + 1}, step {self.progress.step + 1}",
                remedy="lower optimiser.lr, or set optimiser.clip_norm=1",
            )

    def _finish_epoch(self) -> None:
        state = self.progress
        started = time.monotonic()
        averaging = self.recipe.averaging
        if (
            self.average is not None
            and averaging.name == "swa"
            and state.stage_epoch >= averaging.start * self.stage.epochs
        ):
            self.average.update_parameters(self.network)
        seen = torch.cat(self.outputs)
        training = scores(seen[:, 0], seen[:, 1].numpy())
        metrics = self._validate()
        row = {
            "epoch": state.epoch + 1,
            "stage": state.stage + 1,
            "learning_rate": self._last_rate(),
            "train_loss": state.loss_sum / len(self.training.rows),
            **{f"validation_{name}": value for name, value in metrics.items()},
            **{f"train_{name}": training[name] for name in MEASURES},
        }
        value = metrics[self.recipe.stopping.metric]
        if improves(value, state.best_value, self.recipe.stopping):
            state.best_value, state.best_epoch = value, state.epoch + 1
            save_checkpoint(
                self.checkpoints / "best.safetensors", dict(self.evaluated.state_dict()), {"epoch": state.epoch + 1}
            )
        row["seconds"] = round(state.seconds + time.monotonic() - started, 3)
        state.history.append(row)
        state.epoch, state.stage_epoch = state.epoch + 1, state.stage_epoch + 1
        state.step, state.loss_sum, state.seconds, self.outputs = 0, 0.0, 0.0, []
        self._save_last()
        write_csv(self.history_file, pd.DataFrame(state.history))

    def _last_rate(self) -> float:
        group = self.optimiser.param_groups[-1]
        return float(group["lr"] / group["scale"])

    @torch.inference_mode()
    def _validate(self) -> dict[str, float | None]:
        network, labels = self.evaluated.eval(), self.validation.labels
        size = 4096 if self.trains_head else prediction_batch(self.input_size)
        logits = []
        for start in range(0, len(labels), size):
            found = self.validation.tensor(np.arange(start, min(start + size, len(labels))), self.device)
            if self.trains_head:
                logits.append(network.top(found).float().cpu().view(-1))
                continue
            inputs = self.preprocessing.normalise(self.preprocessing.pixels(found))
            logits.append(network(inputs.contiguous(memory_format=torch.channels_last)).float().cpu())
        metrics = scores(torch.cat(logits), labels)
        assert metrics["loss"] is not None
        self._require_number(metrics["loss"])
        return metrics

    def _save_last(self) -> None:
        tensors = {f"network.{name}": value for name, value in self.network.state_dict().items()}
        if self.average is not None:
            tensors |= {f"average.{name}": value for name, value in self.average.state_dict().items()}
        for index, values in self.optimiser.state_dict()["state"].items():
            found = {name: value for name, value in values.items() if isinstance(value, Tensor)}
            tensors |= {f"optimiser.{index}.{name}": value for name, value in found.items()}
        if self.outputs:
            tensors["outputs"] = torch.cat(self.outputs)
        save_checkpoint(self.checkpoints / "last.safetensors", tensors, vars(self.progress))

    def _stopped(self) -> bool:
        state = self.progress
        since = max(state.best_epoch, state.epoch - state.stage_epoch)
        return state.epoch - since >= self.recipe.stopping.patience


def _part(tensors: dict[str, Tensor], name: str) -> dict[str, Tensor]:
    return {key.removeprefix(f"{name}."): value for key, value in tensors.items() if key.startswith(f"{name}.")}


def _shown(value: float | None) -> str:
    return "undefined" if value is None else f"{value:.3f}"
