"""Probing a frozen body: simple classifiers on its features, the best on the validation split kept."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
import torch
from lightning_fabric import Fabric
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler
from torch import nn

from tumortrace.errors import RecipeError
from tumortrace.models.architecture import Network, build_network
from tumortrace.models.description import Architecture
from tumortrace.models.device import keep_memory, resolve_device, resolve_precision
from tumortrace.models.layers import build_head
from tumortrace.models.weights import load_weights
from tumortrace.records.files import write_csv
from tumortrace.records.progress import track
from tumortrace.training.features import frozen_features
from tumortrace.training.learner import Progress, improves, scores, seed_everything
from tumortrace.training.task import Task


class ProbeTrainer:
    """Fits the heads of `Recipe.probe` to the features of a frozen body, in place of `Trainer`.

    The features are computed once and kept in the cache. The head is chosen on the validation split by the recipe's
    `stopping.metric`, so that the calibration split stays for calibration alone. There is nothing to resume but the
    features. Attributes are those of `Trainer`, but that the precision "auto" is float32.

    Raises:
        RecipeError: The recipe's model has no body to probe, or asks for a pooling that learns.
    """

    def __init__(self, task: Task) -> None:
        keep_memory()
        recipe = task.recipe
        self.recipe, self.seed, self.history_file = recipe, task.seed, task.history_file
        self.device = resolve_device(task.device)
        # As it will be used: prediction is in float32, and computing the features once is no long work.
        self.precision = resolve_precision("32" if task.precision == "auto" else task.precision, self.device)
        self.data_key = task.data_key
        seed_everything(task.seed)
        network = build_network(recipe.model.name, task.input_size, recipe.model.arguments)
        learns = isinstance(network.top, nn.Sequential) and any(True for _ in network.top[:-1].parameters())
        if network.published is None or learns:
            raise RecipeError(
                f"a probe of {recipe.model.name} with {recipe.model.arguments}",
                expected="model.name backbone with pooling average, flatten or own",
                remedy="mend the recipe",
            )
        self.weights = load_weights(network, recipe.weights)
        self.network = network.to(self.device).to(memory_format=torch.channels_last)
        self.network.requires_grad_(False)
        self.training, self.validation = task.training, task.validation
        self.head: list[dict[str, Any]] = []
        self.progress = Progress()

    @property
    def evaluated(self) -> Network:
        """The network with the chosen head."""
        return self.network

    @property
    def architecture(self) -> Architecture:
        """What the bundle has to say to build the network again."""
        arguments = {**self.recipe.model.arguments, **self.network.resolved_arguments, "head": self.head, "outputs": 1}
        return Architecture(name=self.recipe.model.name, arguments=arguments)

    def resume(self) -> bool:
        """False: features come from the cache, and the heads take seconds."""
        return False

    def fit(self, after_epoch: Callable[[dict[str, Any]], bool] | None = None) -> Progress:
        """Fit every candidate and keep the best; each has a row in the history, with `epoch` its number."""
        autocast = Fabric(accelerator=self.device.type, precision=self.precision).autocast()  # type: ignore[arg-type]
        training, validation = (
            frozen_features(
                self.network,
                self.recipe.preprocessing,
                patches,
                device=self.device,
                autocast=autocast,
                key=None if self.data_key is None else f"{self.data_key} {self.precision}",
            )
            for patches in (self.training, self.validation)
        )
        features, best = training.images.astype(np.float32), None
        for name, steps, head in track(list(self._candidates(features, training.labels)), "heads"):
            started = time.monotonic()
            row = {"epoch": len(self.progress.history) + 1, "head": name}
            row |= {f"train_{key}": value for key, value in measured(head(), features, training.labels).items()}
            found = measured(head(), validation.images, validation.labels)
            row |= {f"validation_{key}": value for key, value in found.items()}
            row["seconds"] = round(time.monotonic() - started, 3)
            self.progress.history.append(row)
            value = found[self.recipe.stopping.metric]
            if improves(value, self.progress.best_value, self.recipe.stopping):
                self.progress.best_value, self.progress.best_epoch = value, len(self.progress.history)
                self.head, best = steps, head
            if after_epoch is not None and after_epoch(row):
                break
        assert best is not None
        self.network.top = nn.Sequential(best()).to(self.device)
        self.progress.epoch = len(self.progress.history)
        write_csv(self.history_file, pd.DataFrame(self.progress.history))
        return self.progress

    def _candidates(
        self, features: np.ndarray, labels: np.ndarray
    ) -> Iterator[tuple[str, list[dict[str, Any]], Callable[[], nn.Module]]]:
        """Name, steps of `build_head`, and what fits the head, of each candidate."""
        assert self.recipe.probe is not None
        scale = StandardScaler().fit(features)
        if "logistic" in self.recipe.probe.heads:
            for penalty in self.recipe.probe.inverse_penalties:
                yield f"logistic, C {penalty:g}", [], _once(partial(_logistic, scale, features, labels, penalty))
        if "knn" in self.recipe.probe.heads:
            for count in sorted({min(count, len(labels)) for count in self.recipe.probe.neighbours}):
                steps = [{"neighbours": count, "images": len(labels)}]
                yield f"{count} neighbours", steps, _once(partial(_neighbours, scale, features, labels, steps))


def _once(build: Callable[[], nn.Module]) -> Callable[[], nn.Module]:
    kept: list[nn.Module] = []

    def built() -> nn.Module:
        if not kept:
            kept.append(build())
        return kept[0]

    return built


def _logistic(scale: StandardScaler, features: np.ndarray, labels: np.ndarray, penalty: float) -> nn.Module:
    """The regression on standardised features as one linear layer on plain ones."""
    fitted = LogisticRegression(C=penalty, max_iter=2000).fit(scale.transform(features), labels.astype(np.int64))
    weight = fitted.coef_ / scale.scale_
    bias = fitted.intercept_ - weight @ scale.mean_
    head = build_head(features.shape[1])
    with torch.no_grad():
        head[-1].weight.copy_(torch.from_numpy(weight))  # type: ignore[operator]
        head[-1].bias.copy_(torch.from_numpy(bias))  # type: ignore[operator]
    return head


def _neighbours(
    scale: StandardScaler, features: np.ndarray, labels: np.ndarray, steps: list[dict[str, Any]]
) -> nn.Module:
    head = build_head(features.shape[1], steps)
    learnt = {"features": features, "labels": labels, "mean": scale.mean_, "scale": scale.scale_}
    head[-1].load_state_dict({name: torch.from_numpy(np.asarray(value)) for name, value in learnt.items()})
    return head


@torch.inference_mode()
def measured(head: nn.Module, features: np.ndarray, labels: np.ndarray) -> dict[str, float | None]:
    """Loss and metrics, at a threshold of 0.5, of what a head makes of features, shape (N, D)."""
    parts = [
        head.eval()(torch.from_numpy(np.array(features[start : start + 4096], dtype=np.float32)))
        for start in range(0, len(features), 4096)
    ]
    return scores(torch.cat(parts).view(-1), labels)
