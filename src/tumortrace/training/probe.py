"""Probing a frozen body: simple classifiers on its features, the best on the validation split kept."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from functools import cache, partial

import numpy as np
import pandas as pd
import torch
from sklearn.preprocessing import StandardScaler
from torch import nn

from tumortrace.errors import RecipeError
from tumortrace.models.architecture import Network, build_network
from tumortrace.models.description import Architecture
from tumortrace.models.device import autocast, keep_memory, resolve_device, resolve_precision
from tumortrace.models.weights import load_weights
from tumortrace.records.files import write_csv
from tumortrace.records.progress import track
from tumortrace.records.tables import FEATURE_MAP, FEW_SHOT
from tumortrace.training.centres import tell_centres
from tumortrace.training.features import frozen_features
from tumortrace.training.few_shot import feature_map, few_shot, fitted_logistic, neighbours
from tumortrace.training.learner import AfterEpoch, Progress, Row, keep_best, measure, seed_everything
from tumortrace.training.task import Patches, Task

#: Steps of `build_head`, and what fits the head.
Head = tuple[list[Row], Callable[[], nn.Module]]


class ProbeLearner:
    """Fits the heads of `Recipe.probe` to the features of a frozen body; see `Learner`.

    The features are computed once and kept in the cache; there is nothing else to resume. The head is chosen on the
    validation split by the recipe's `stopping.metric`, so that the calibration split stays for calibration alone. The
    precision "auto" is float32.

    Raises:
        RecipeError: The recipe's model has no body to probe, or asks for a pooling that learns.
    """

    def __init__(self, task: Task) -> None:
        keep_memory()
        self.task, recipe = task, task.recipe
        self.device = resolve_device(task.device)
        # As it will be used: prediction is in float32, and computing the features once is no long work.
        self.precision = resolve_precision("32" if task.precision == "auto" else task.precision, self.device)
        seed_everything(task.seed)
        network = build_network(recipe.model.name, task.input_size, recipe.model.arguments, task.positive)
        before = -2 if task.positive else -1  # of the layer that the heads take the place of
        learns = isinstance(network.top, nn.Sequential) and any(True for _ in network.top[:before].parameters())
        if network.published is None or learns:
            raise RecipeError(
                f"a probe of {recipe.model.name} with {recipe.model.arguments}",
                expected="model.name backbone with pooling average, flatten or own",
                remedy="mend the recipe",
            )
        self.weights = load_weights(network, recipe.weights)
        self.network = network.to(self.device).to(memory_format=torch.channels_last)
        self.network.requires_grad_(False)
        self.head: list[Row] = []
        self.progress = Progress()
        self.notes: list[str] = []

    @property
    def evaluated(self) -> Network:
        """The network with the chosen head."""
        return self.network

    @property
    def architecture(self) -> Architecture:
        """What the bundle has to say to build the network again."""
        model = self.task.recipe.model
        arguments = {**model.arguments, **self.network.resolved_arguments, "head": self.head, "outputs": 1}
        return Architecture(name=model.name, arguments=arguments)

    def resume(self) -> bool:
        """False: features come from the cache, and the heads take seconds."""
        return False

    def fit(self, after_epoch: AfterEpoch | None = None) -> Progress:
        """Fit every candidate and keep the best; each has a row in the history, with `epoch` its number."""
        task = self.task
        training, validation = (
            frozen_features(
                self.network,
                task.recipe.preprocessing,
                patches,
                device=self.device,
                autocast=autocast(self.device, self.precision),
                key=None if task.data_key is None else f"{task.data_key} {self.precision}",
            )
            for patches in (task.training, task.validation)
        )
        candidates = self._judged(training, validation)
        self.head, build = keep_best(candidates, self.progress, task.recipe.stopping, after_epoch)
        head = build()
        self.network.top = (head if self.task.positive else nn.Sequential(head)).to(self.device)
        write_csv(task.history_file, pd.DataFrame(self.progress.history))
        self._tell_features(training, validation)
        return self.progress

    def _tell_features(self, training: Patches, validation: Patches) -> None:
        """What the features are worth beside the kept head: with few labels, as a map, and across centres."""
        probe, folder = self.task.recipe.probe, self.task.history_file.parent
        assert probe is not None
        few = few_shot(training, validation, probe.shots, probe.repeats, self.task.seed)
        if not few.empty:
            FEW_SHOT.write(folder, few)
        places = feature_map(validation, self.task.seed)
        if not places.empty:
            FEATURE_MAP.write(folder, places)
        tell_centres([training, validation], folder)

    def _judged(self, training: Patches, validation: Patches) -> Iterator[tuple[Row, float | None, Head]]:
        """Each candidate's row of the history, its value on validation, and what it is."""
        features = training.images.astype(np.float32)
        candidates = list(self._candidates(features, training.kinds))
        for number, (name, steps, build) in enumerate(track(candidates, "heads"), 1):
            started = time.monotonic()
            measured = measure(build(), validation.images, validation.labels, validation.kinds)
            fitted = measure(build(), features, training.labels, training.kinds)
            row: Row = {"epoch": number, "head": name}
            row |= {f"train_{key}": value for key, value in fitted.items()}
            row |= {f"validation_{key}": value for key, value in measured.items()}
            row["seconds"] = round(time.monotonic() - started, 3)
            yield row, measured[self.task.recipe.stopping.metric], (steps, build)

    def _candidates(
        self, features: np.ndarray, labels: np.ndarray
    ) -> Iterator[tuple[str, list[Row], Callable[[], nn.Module]]]:
        """Name, steps of `build_head`, and what fits the head (once), of each candidate."""
        probe = self.task.recipe.probe
        assert probe is not None
        scale, positive = StandardScaler().fit(features), self.task.positive
        if "logistic" in probe.heads:
            for penalty in probe.inverse_penalties:
                fit = cache(partial(fitted_logistic, scale, features, labels, penalty, positive))
                yield f"logistic, C {penalty:g}", [], fit
        if "knn" in probe.heads:
            for count in sorted({min(count, len(labels)) for count in probe.neighbours}):
                steps: list[Row] = [{"neighbours": count, "images": len(labels)}]
                yield (
                    f"{count} neighbours",
                    steps,
                    cache(partial(neighbours, scale, features, labels, positive, steps)),
                )
