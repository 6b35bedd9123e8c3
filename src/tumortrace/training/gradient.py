"""Gradient descent: the loop that trains a network.

Random state follows from (seed, epoch, step), and everything else that changes is in the checkpoint: a run that was
killed at any moment and resumed ends bit for bit where an undisturbed one does (same machine, CPU).
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import NamedTuple, cast

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from tumortrace.cohorts.bags import bags_of
from tumortrace.errors import RecipeError, RunError
from tumortrace.evaluation.measures import MEASURES
from tumortrace.models.architecture import Network, build_network
from tumortrace.models.bags.pooling import SlidePooling
from tumortrace.models.checkpoint import load_checkpoint, save_checkpoint
from tumortrace.models.description import Architecture
from tumortrace.models.device import (
    autocast,
    keep_memory,
    prediction_batch,
    resolve_device,
    resolve_precision,
    room_for_images,
)
from tumortrace.models.layers import LogOdds
from tumortrace.models.streams import Streams, streams
from tumortrace.models.weights import load_weights
from tumortrace.records.files import write_csv
from tumortrace.records.progress import progress_bar
from tumortrace.training.features import frozen_features
from tumortrace.training.learner import (
    AfterEpoch,
    Progress,
    Row,
    improves,
    outputs_of,
    scores,
    seed_everything,
    seed_of,
)
from tumortrace.training.ranks import ALONE, Ranks
from tumortrace.training.stage import Descent, Stage, binary_loss, class_loss, learning_rate, stages_of
from tumortrace.training.task import Patches, Task, epoch_order

CHECKPOINT_SECONDS = 60
AHEAD = 50  # steps that an accelerator may be given before its outcomes are looked at


class Part(NamedTuple):
    """What a part of a batch teaches."""

    loss: Tensor
    outputs: Tensor  # logits and labels, shape (n, 2)
    gradients: list[Tensor | None]  # of what its loss, weighed by its share, adds to that of the batch


class Taken(NamedTuple):
    """A step whose outcome has not been looked at yet."""

    step: int
    size: int  # images
    shares: list[float]
    losses: Tensor  # of the batch's parts
    outputs: Tensor


class GradientLearner:
    """Fits a network to the training split and keeps the weights that are best on validation; see `Learner`.

    Where the body is frozen throughout and nothing is augmented, its features are computed once and the head alone is
    trained on them, with the same result. Of slides, whose features were made beforehand, it is so in any case.
    """

    def __init__(self, task: Task, ranks: Ranks = ALONE) -> None:
        keep_memory()
        self.task, self.ranks, self.recipe, recipe = task, ranks, task.recipe, task.recipe
        self.device = resolve_device(task.device)
        self.precision = resolve_precision(task.precision, self.device)
        self.input_size = task.input_size
        seed_everything(task.seed)
        self.network = build_network(recipe.model.name, self.input_size, recipe.model.arguments, task.positive)
        self.weights = load_weights(self.network, recipe.weights)
        self.network.to(self.device).to(memory_format=torch.channels_last)
        self.stages = stages_of(recipe)
        body_stays = self.network.published is not None and all("body" in stage.freeze for stage in self.stages)
        bags = bags_of(task.training.images)
        self.trains_head = bags is not None or (task.keep_features and body_stays and recipe.augmentation.identity)
        self.training, self.validation = (
            self._features(patches) if self.trains_head and bags is None else patches
            for patches in (task.training, task.validation)
        )
        if not self.trains_head and self.training.bytes + self.validation.bytes <= room_for_images(self.device):
            self.training, self.validation = (part.kept_on(self.device) for part in (self.training, self.validation))
        if bags is not None:
            cast(SlidePooling, self.network).standardise(*bags.moments(task.training.rows))
        self.together = LogOdds(task.positive)
        kinds = task.training.kinds
        self.shares = torch.from_numpy(np.bincount(kinds) / len(kinds)).float().to(self.device)
        self.share = float(task.training.labels.mean())  # of positives
        once = max(1, round(len(task.training.rows) / recipe.batch_size))
        self.passes = max(1, -(-recipe.least_steps // (recipe.epochs * once)))
        self.steps = once * self.passes
        self.progress, self.streams = Progress(), Streams()
        self.notes: list[str] = []
        if self.passes > 1:
            self.notes.append(
                f"few training images: each of {recipe.epochs} epochs goes over them {self.passes} times "
                f"(least_steps {recipe.least_steps:,}); --epochs N goes over them N times in all"
            )
        self.outputs = torch.zeros(self.passes * len(task.training.rows), 2)  # logits and labels of the epoch's steps
        self.seen = 0  # images of these so far
        self.taken: list[Taken] = []  # steps that are computed, or will be
        self.ahead = 1 if self.device.type == "cpu" else AHEAD
        if recipe.sync_batch_norm and len(task.training.rows) // once < ranks.count:
            raise RecipeError(
                f"batches of {len(task.training.rows) // once} images among {ranks.count} processes",
                where="batch_size",
                expected="an image for each, where sync_batch_norm is true",
                remedy="raise batch_size, or take fewer processes",
            )
        self._enter_stage()

    @property
    def evaluated(self) -> Network:
        """The network that is validated and kept: the averaged one where the recipe averages."""
        return self.descent.evaluated

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
        if not self.task.last.is_file():
            return False
        tensors, state = load_checkpoint(self.task.last)
        self.progress = Progress(**state)
        self._enter_stage()
        self.descent.load(tensors)
        self._keep(tensors.get("outputs", self.outputs[:0]))
        return True

    def fit(self, after_epoch: AfterEpoch | None = None) -> Progress:
        """Train until the last epoch or early stopping, then load the best weights into `evaluated`.

        Args:
            after_epoch: Called with the epoch's row of the history; training ends when it returns true.

        Raises:
            RunError: The loss is no longer a number.
        """
        with progress_bar(self.ranks.first) as bar:
            total = sum(stage.epochs for stage in self.stages) * self.steps
            done = self.progress.epoch * self.steps + self.progress.step
            line = bar.add_task("training", total=total, completed=done)
            ended = False
            while not ended:
                while self.progress.stage_epoch < self.stage.epochs and not self._stopped() and not ended:
                    with streams(self.device, self.descent.parts) as self.streams:
                        self._train_epoch(lambda: bar.advance(line))
                        row = self._finish_epoch()
                    told = f"training, validation AUROC {_shown(row['validation_auroc'])}"
                    bar.update(line, description=told, completed=self.progress.epoch * self.steps)
                    ended = after_epoch is not None and after_epoch(row)
                ended = ended or self.progress.stage + 1 == len(self.stages)
                if not ended:
                    self._next_stage()
        if self.progress.best_epoch and self.ranks.first:
            self.evaluated.load_state_dict(load_checkpoint(self.task.best)[0])
        return self.progress

    def _features(self, patches: Patches) -> Patches:
        key = None if self.task.data_key is None else f"{self.task.data_key} {self.precision}"
        steps, exactly = self.recipe.preprocessing, autocast(self.device, self.precision)
        return frozen_features(self.network, steps, patches, device=self.device, autocast=exactly, key=key)

    def _enter_stage(self) -> None:
        self.descent = Descent(
            self.network,
            self.recipe,
            self.stage,
            device=self.device,
            precision=self.precision,
            head_alone=self.trains_head,
            ranks=self.ranks.count,
        )

    def _next_stage(self) -> None:
        self.ranks.wait()  # the first has written it
        if self.progress.best_epoch:
            self.network.load_state_dict(load_checkpoint(self.task.best)[0])
        self.progress.stage, self.progress.stage_epoch = self.progress.stage + 1, 0
        self._enter_stage()
        self._save_last()

    def _train_epoch(self, advance: Callable[[], None]) -> None:
        recipe, state = self.recipe, self.progress
        batches: list[np.ndarray] = []
        for number in range(self.passes):
            seed = (self.task.seed, state.epoch, *([number] if number else []))
            order = epoch_order(self.training.kinds, recipe.sampling == "balanced", seed)
            batches += np.array_split(order, self.steps // self.passes)  # sizes differ by one at most: none is dropped
        self.descent.train()
        started = saved = time.monotonic()
        while state.step < self.steps:
            batch = batches[state.step]
            seed_everything(self.task.seed, state.epoch, state.step, *([self.ranks.rank] if self.ranks.rank else []))
            self.descent.rate = self._rate()
            self._step(batch)
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

    def _step(self, batch: np.ndarray) -> None:
        """Learn from a batch, whose parts are computed side by side: as many on every machine, however many cores."""
        rows = self.descent.divided(len(batch))
        shares, mine = [len(part) / len(batch) for part in rows], self.ranks.of(range(len(rows)))
        learnt = list(self.streams.map(self._part, ((part, batch[rows[part]], shares[part]) for part in mine)))
        losses = torch.zeros(len(rows), device=self.device)  # sums of what each process has
        outputs = torch.zeros(len(batch), 2, device=self.device)
        for part, one in zip(mine, learnt, strict=True):
            losses[part], outputs[rows[part]] = one.loss, one.outputs
        gradients = self.descent.sum([one.gradients for one in learnt])
        *gradients, total, seen = self.ranks.sum([*gradients, losses, outputs], [*self.descent.learnt, losses, outputs])
        assert total is not None
        assert seen is not None
        self.descent.step(gradients, self.streams)
        self.taken.append(Taken(self.progress.step, len(batch), shares, total, seen))
        if len(self.taken) >= self.ahead:
            self._look()

    def _look(self) -> None:
        """Enter the outcomes of the steps since the last look; an accelerator is waited for here alone."""
        for step, size, shares, losses, outputs in self.taken:
            value = sum(share * loss for share, loss in zip(shares, losses.tolist(), strict=True))
            self._require_number(value, step)
            self.progress.loss_sum += value * size
            self._keep(outputs.cpu())
        self.taken = []

    def _keep(self, outputs: Tensor) -> None:
        """In one block: many small ones keep memory that is freed between them in pieces, and a long epoch grows."""
        self.outputs[self.seen : self.seen + len(outputs)] = outputs
        self.seen += len(outputs)

    def _part(self, numbered: tuple[int, np.ndarray, float]) -> Part:
        part, rows, share = numbered
        state = self.progress
        generator = torch.Generator(self.device).manual_seed(seed_of(self.task.seed, state.epoch, state.step, part))
        inputs = self.training.tensor(rows, self.device, self.recipe.tiles, generator)
        targets = torch.from_numpy(self.training.learnt(rows)).to(self.device, non_blocking=True)
        if not self.trains_head:
            pixels = self.recipe.augmentation.of(self.recipe.preprocessing, inputs, generator)
            pixels, targets = self.recipe.augmentation.mix(pixels, targets, generator)
            inputs = self.recipe.preprocessing.normalise(pixels).contiguous(memory_format=torch.channels_last)
        learners, logits = self.descent.forward(part, inputs, generator)
        if self.training.positive:
            losses = [class_loss(one, targets, self.recipe.loss, self.shares) for one in learners]
            logits = self.together.of(logits.detach())
        else:
            losses = [binary_loss(one.view(-1), targets, self.recipe.loss, self.share) for one in learners]
        loss = torch.stack(losses)
        gradients = self.descent.gradients(loss.sum() * share)
        labels = torch.from_numpy(self.training.labels[rows]).to(self.device, non_blocking=True)
        outputs = torch.stack([logits.detach().view(-1), labels], 1)
        return Part(loss.detach().mean(), outputs, gradients)

    def _require_number(self, loss: float, step: int) -> None:
        if not math.isfinite(loss):
            raise RunError(
                f"the loss is {loss} at epoch {self.progress.epoch + 1}, step {step + 1}",
                remedy="lower optimiser.lr, or set optimiser.clip_norm=1",
            )

    def _finish_epoch(self) -> Row:
        """Validate, keep the best weights and the last state; the epoch's row of the history."""
        state, averaging = self.progress, self.recipe.averaging
        started = time.monotonic()
        if averaging.name == "swa" and state.stage_epoch >= averaging.start * self.stage.epochs:
            self.descent.update_average()
        self._look()
        training = scores(self.outputs[:, 0], self.outputs[:, 1].numpy())
        self.ranks.follow(list(self.descent.state.values()))  # running statistics are those of the first part
        metrics = self._validate()
        row: Row = {
            "epoch": state.epoch + 1,
            "stage": state.stage + 1,
            "learning_rate": self.descent.rate,
            "train_loss": state.loss_sum / (self.passes * len(self.training.rows)),
            **{f"validation_{name}": value for name, value in metrics.items()},
            **{f"train_{name}": training[name] for name in MEASURES},
        }
        value = metrics[self.recipe.stopping.metric]
        if improves(value, state.best_value, self.recipe.stopping):
            state.best_value, state.best_epoch = value, state.epoch + 1
            if self.ranks.first:
                save_checkpoint(self.task.best, dict(self.evaluated.state_dict()), {"epoch": state.epoch + 1})
        row["seconds"] = round(state.seconds + time.monotonic() - started, 3)
        state.history.append(row)
        state.epoch, state.stage_epoch = state.epoch + 1, state.stage_epoch + 1
        state.step, state.loss_sum, state.seconds, self.seen = 0, 0.0, 0.0, 0
        self._save_last()
        if self.ranks.first:
            write_csv(self.task.history_file, pd.DataFrame(state.history))
        return row

    def _validate(self) -> dict[str, float | None]:
        self.evaluated.eval()
        labels, size = self.validation.labels, 4096 if self.trains_head else prediction_batch(self.input_size)
        if bags_of(self.validation.images):
            size = 1  # all tiles of a slide
        batches = np.split(np.arange(len(labels)), range(size, len(labels), size))
        judged = self.ranks.spread(batches, lambda own: list(self.streams.map(self._judged, own)))
        outputs = zip(*judged, strict=True)
        logits, classes = (torch.cat(part) for part in outputs)
        metrics = scores(logits, labels, classes if self.task.positive else None, self.validation.kinds)
        assert metrics["loss"] is not None
        self._require_number(metrics["loss"], self.progress.step)
        return metrics

    @torch.inference_mode()
    def _judged(self, batch: np.ndarray) -> tuple[Tensor, Tensor]:
        inputs, steps = self.validation.tensor(batch, self.device), self.recipe.preprocessing
        if not self.trains_head:
            inputs = steps.normalise(steps.pixels(inputs)).contiguous(memory_format=torch.channels_last)
            inputs = self.evaluated.features(inputs)
        return outputs_of(self.evaluated.top, inputs)

    def _save_last(self) -> None:
        self._look()
        if not self.ranks.first:
            return
        tensors = self.descent.tensors() | ({"outputs": self.outputs[: self.seen]} if self.seen else {})
        save_checkpoint(self.task.last, tensors, vars(self.progress))

    def _stopped(self) -> bool:
        state = self.progress
        since = max(state.best_epoch, state.epoch - state.stage_epoch)
        return state.epoch - since >= self.recipe.stopping.patience


def _shown(value: float | None) -> str:
    return "undefined" if value is None else f"{value:.3f}"
