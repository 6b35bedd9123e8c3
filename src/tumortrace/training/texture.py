"""Fitting a classical learner to hand-made descriptors, its parameters chosen within folds of the training split."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import torch
from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold
from sklearn.pipeline import Pipeline

from tumortrace.cohorts.seen import digests
from tumortrace.errors import RecipeError, SplitError
from tumortrace.models.architecture import build_network
from tumortrace.models.description import Architecture
from tumortrace.models.device import resolve_device, resolve_precision
from tumortrace.models.families.texture import Linear, Texture, Trees
from tumortrace.records.files import write_csv
from tumortrace.records.progress import progress_bar
from tumortrace.training.classifiers import candidates, fit_learner, keep, write_importances
from tumortrace.training.features import described
from tumortrace.training.learner import Progress, improves
from tumortrace.training.probe import measured
from tumortrace.training.recipe import Recipe
from tumortrace.training.task import Patches, Task


class TextureTrainer:
    """Fits `Recipe.learner` to the descriptors of model `texture`, in place of `Trainer`.

    The descriptors are computed once and kept in the cache; there is nothing else to resume. Candidates are compared
    within folds of the training split alone, so that validation, like calibration and test, has chosen nothing.
    Attributes are those of `Trainer`; all of it is computed on the CPU.

    Attributes:
        folds: Indices to learn from and to judge by, within the training split.
        notes: How the folds were made, for the run's record.

    Raises:
        RecipeError: The recipe asks for what no learner does.
        SplitError: The training split cannot be folded.
    """

    def __init__(self, task: Task) -> None:
        recipe = task.recipe
        assert recipe.learner is not None
        _require_plain(recipe, task.training)
        resolve_device(task.device)  # a wrong name is refused
        self.device = torch.device("cpu")
        resolve_precision(task.precision, self.device)
        self.precision = "32-true"
        self.recipe, self.learner, self.history_file = recipe, recipe.learner, task.history_file
        self.training, self.validation, self.data_key = task.training, task.validation, task.data_key
        self.seed = int(np.random.default_rng(task.seed).integers(2**31))
        self.candidates = candidates(self.learner, self.seed)
        self.folds, note = make_folds(task.training, self.learner.folds, self.seed)
        self.notes = [note]
        network = build_network(recipe.model.name, task.input_size, recipe.model.arguments)
        assert isinstance(network, Texture)
        self.network = network
        self.weights: dict[str, Any] = {"origin": "fitted from scratch (scikit-learn)", "sha256": None, "unused": 0}
        self.progress = Progress()

    @property
    def evaluated(self) -> Texture:
        """The network with the chosen learner."""
        return self.network

    @property
    def architecture(self) -> Architecture:
        """What the bundle has to say to build the network again."""
        return Architecture(name=self.recipe.model.name, arguments=dict(self.network.resolved_arguments))

    def resume(self) -> bool:
        """False: descriptors come from the cache, and the search is made again, with the same outcome."""
        return False

    def fit(self, after_epoch: Callable[[dict[str, Any]], bool] | None = None) -> Progress:
        """Fit every candidate and keep the best; each has a row in the history, with `epoch` its number."""
        body, steps = self.network.body, self.recipe.preprocessing
        training = described(body, steps, self.training, key=self.data_key).images
        validation = described(body, steps, self.validation, key=self.data_key).images
        state, best = self.progress, None
        with progress_bar() as bar:
            task = bar.add_task("candidates", total=len(self.candidates) * (len(self.folds) + 1))
            for values in self.candidates:
                row, fitted = self._judged(values, training, validation, lambda: bar.advance(task))
                state.history.append(row)
                mean = row[f"folds_{self.recipe.stopping.metric}"]
                if improves(mean, state.best_value, self.recipe.stopping):
                    state.best_value, state.best_epoch, best = mean, row["epoch"], fitted
                if after_epoch is not None and after_epoch(row):
                    break
        assert best is not None
        pipeline, self.network.top = best
        state.epoch = len(state.history)
        write_csv(self.history_file, pd.DataFrame(state.history))
        labels = self.validation.labels
        write_importances(self.history_file.parent, pipeline, self.network, validation, labels, seed=self.seed)
        return state

    def _judged(
        self, values: dict[str, Any], training: np.ndarray, validation: np.ndarray, advance: Callable[[], None]
    ) -> tuple[dict[str, Any], tuple[Pipeline, Linear | Trees]]:
        """A candidate's row of the history, and what it is when fitted to the whole training split."""
        started, metric, scores = time.monotonic(), self.recipe.stopping.metric, []
        for learnt, judged in self.folds:
            _, layer, _ = self._fit(values, training, learnt)
            scores.append(measured(layer, training[judged], self.training.labels[judged])[metric])
            advance()
        pipeline, layer, converged = self._fit(values, training, np.arange(len(training)))
        advance()
        row: dict[str, Any] = {"epoch": len(self.progress.history) + 1}
        row["head"] = self._told(values) + ("" if converged else ", not converged")
        found = {"train": measured(layer, training, self.training.labels)}
        found["validation"] = measured(layer, validation, self.validation.labels)
        row |= {f"{side}_{name}": value for side, each in found.items() for name, value in each.items()}
        defined = np.array([np.nan if score is None else score for score in scores])
        mean, spread = (None if np.isnan(defined).any() else float(each) for each in (defined.mean(), defined.std()))
        row |= {f"folds_{metric}": mean, f"folds_{metric}_std": spread}
        return row | {"seconds": round(time.monotonic() - started, 3)}, (pipeline, layer)

    def _fit(
        self, values: dict[str, Any], features: np.ndarray, rows: np.ndarray
    ) -> tuple[Pipeline, Linear | Trees, bool]:
        balanced = self.recipe.loss.class_weights == "balanced" or self.recipe.sampling == "balanced"
        labels = self.training.labels[rows]
        pipeline, converged = fit_learner(
            self.learner, values, features[rows], labels, balanced=balanced, seed=self.seed
        )
        return pipeline, keep(pipeline, len(rows), features.shape[1]), converged

    def _told(self, values: dict[str, Any]) -> str:
        """The candidate in words: what is not the same in all of them."""
        varying = [name for name in values if len({str(each[name]) for each in self.candidates}) > 1]
        words = [f"{name} {_short(values[name])}" for name in varying]
        return ", ".join(words) or self.learner.name


def _require_plain(recipe: Recipe, training: Patches) -> None:
    """Refuse what a learner would leave out without a word."""
    asked = {
        "preprocessing.normalisation other than unit": recipe.preprocessing.normalisation != "unit",
        f"weights {recipe.weights}": recipe.weights != "random",
        "augmentation": not recipe.augmentation.identity,
        "fine_tuning": recipe.fine_tuning is not None,
        "a teacher (--distil)": training.targets is not None,
    }
    for name, found in asked.items():
        if found:
            raise RecipeError(f"{name} with learner {recipe.learner and recipe.learner.name}", remedy="leave it out")


def _short(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


# Folds within the training split, for choices that neither validation nor calibration nor test may make.


Folds = list[tuple[np.ndarray, np.ndarray]]


def make_folds(training: Patches, count: int, seed: int) -> tuple[Folds, str]:
    """Folds of the training split, stratified by class, by slide or patient where these are known.

    Where they are not, copies of a picture stay together.

    Args:
        training: The split.
        count: How many folds.
        seed: Of the order.

    Returns:
        Indices to learn from and to judge by, for each fold, and a note.

    Raises:
        SplitError: A fold would lack a class.
    """
    labels, groups = training.labels.astype(np.int64), training.groups
    pictures = digests(training.images, training.rows) if groups is None else []
    if len(set(pictures)) < len(pictures):
        groups = np.array(pictures)
    remedy = "fewer folds, as in --set learner.folds=2, or more labelled images or groups"
    kind = StratifiedKFold if groups is None else StratifiedGroupKFold
    fewest = min(np.bincount(labels, minlength=2)) if groups is None else len(set(groups))
    if fewest < count:
        what = "images of the rarer class" if groups is None else "pictures" if pictures else "slides or patients"
        raise SplitError(f"{fewest} {what} in the training split", expected=f"{count}, one per fold", remedy=remedy)
    folds = list(kind(count, shuffle=True, random_state=seed).split(labels, labels, groups))
    for number, (learnt, judged) in enumerate(folds, 1):
        if len(set(labels[learnt])) < 2 or len(set(labels[judged])) < 2:
            raise SplitError(f"fold {number} of {count} of the training split lacks a class", remedy=remedy)
    note = f"parameters were chosen within {count} folds of the training split, "
    if training.groups is None:
        return folds, note + "which may share slides or patients, as these are not known: the folds are too kind"
    return folds, note + "of which no two share a slide or patient"
