"""Fitting a classical learner to hand-made descriptors, its parameters chosen within folds of the training split."""

from __future__ import annotations

import time
from collections.abc import Iterator

import numpy as np
import pandas as pd
import torch
from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold
from sklearn.pipeline import Pipeline
from torch import nn

from tumortrace.cohorts.seen import digests
from tumortrace.errors import RecipeError, SplitError
from tumortrace.models.architecture import build_network
from tumortrace.models.description import Architecture
from tumortrace.models.device import resolve_device, resolve_precision
from tumortrace.models.families.texture import Texture
from tumortrace.models.layers import LogOdds
from tumortrace.records.files import write_csv
from tumortrace.records.progress import progress_bar
from tumortrace.training.classifiers import candidates, fit_classifier, keep, write_importances
from tumortrace.training.features import described
from tumortrace.training.learner import AfterEpoch, Progress, Row, keep_best, measure
from tumortrace.training.task import Patches, Task

Folds = list[tuple[np.ndarray, np.ndarray]]


class TextureLearner:
    """Fits `Recipe.learner` to the descriptors of model `texture`; see `Learner`.

    The descriptors are computed once and kept in the cache; there is nothing else to resume. Candidates are compared
    within folds of the training split alone, so that validation, like calibration and test, has chosen nothing. All of
    it is computed on the CPU.

    Attributes:
        folds: Indices to learn from and to judge by, within the training split.

    Raises:
        RecipeError: The recipe asks for what no classical learner does.
        SplitError: The training split cannot be folded.
    """

    def __init__(self, task: Task) -> None:
        recipe = task.recipe
        assert recipe.learner is not None
        _require_plain(task)
        resolve_device(task.device)  # a wrong name is refused
        self.device = torch.device("cpu")
        resolve_precision(task.precision, self.device)
        self.precision = "32-true"
        self.task, self.classifier = task, recipe.learner
        self.seed = int(np.random.default_rng(task.seed).integers(2**31))
        self.candidates = candidates(self.classifier, self.seed)
        self.folds, note = make_folds(task.training, self.classifier.folds, self.seed)
        self.notes = [note]
        network = build_network(recipe.model.name, task.input_size, recipe.model.arguments, task.positive)
        assert isinstance(network, Texture)
        self.network = network
        self.weights: Row = {"origin": "fitted from scratch (scikit-learn)", "sha256": None, "unused": 0}
        self.progress = Progress()

    @property
    def evaluated(self) -> Texture:
        """The network with the chosen classifier."""
        return self.network

    @property
    def architecture(self) -> Architecture:
        """What the bundle has to say to build the network again."""
        return Architecture(name=self.task.recipe.model.name, arguments=dict(self.network.resolved_arguments))

    def resume(self) -> bool:
        """False: descriptors come from the cache, and the search is made again, with the same outcome."""
        return False

    def fit(self, after_epoch: AfterEpoch | None = None) -> Progress:
        """Fit every candidate and keep the best; each has a row in the history, with `epoch` its number."""
        task, body, steps = self.task, self.network.body, self.task.recipe.preprocessing
        training = described(body, steps, task.training, key=task.data_key).images
        validation = described(body, steps, task.validation, key=task.data_key).images
        judged = self._judged(training, validation)
        pipeline, self.network.top = keep_best(judged, self.progress, task.recipe.stopping, after_epoch)
        write_csv(task.history_file, pd.DataFrame(self.progress.history))
        folder, labels = task.history_file.parent, task.validation.labels
        write_importances(folder, pipeline, self.network, validation, labels, task.positive, seed=self.seed)
        return self.progress

    def _judged(
        self, training: np.ndarray, validation: np.ndarray
    ) -> Iterator[tuple[Row, float | None, tuple[Pipeline, nn.Module]]]:
        """Each candidate's row of the history, its mean over the folds, and it, fitted to the whole training split."""
        metric, labels, kinds = self.task.recipe.stopping.metric, self.task.training.labels, self.task.training.kinds
        with progress_bar() as bar:
            fits = bar.add_task("candidates", total=len(self.candidates) * (len(self.folds) + 1))
            for number, values in enumerate(self.candidates, 1):
                started, scores = time.monotonic(), []
                for learnt, judged in self.folds:
                    _, layer, _ = self._fit(values, training, kinds, learnt)
                    scores.append(measure(layer, training[judged], labels[judged], kinds[judged])[metric])
                    bar.advance(fits)
                pipeline, layer, converged = self._fit(values, training, kinds, np.arange(len(training)))
                bar.advance(fits)
                row: Row = {"epoch": number, "head": self._told(values) + ("" if converged else ", not converged")}
                row |= {f"train_{name}": value for name, value in measure(layer, training, labels, kinds).items()}
                measured = measure(layer, validation, self.task.validation.labels, self.task.validation.kinds)
                row |= {f"validation_{name}": value for name, value in measured.items()}
                defined = [score for score in scores if score is not None]
                known = len(defined) == len(scores)
                mean, spread = (float(np.mean(defined)), float(np.std(defined))) if known else (None, None)
                row |= {f"folds_{metric}": mean, f"folds_{metric}_std": spread}
                row["seconds"] = round(time.monotonic() - started, 3)
                yield row, mean, (pipeline, layer)

    def _fit(
        self, values: Row, features: np.ndarray, kinds: np.ndarray, rows: np.ndarray
    ) -> tuple[Pipeline, nn.Module, bool]:
        recipe, positive = self.task.recipe, self.task.positive
        balanced = recipe.loss.class_weights == "balanced" or recipe.sampling == "balanced"
        pipeline, converged = fit_classifier(
            self.classifier, values, features[rows], kinds[rows], balanced=balanced, seed=self.seed
        )
        layer: nn.Module = keep(pipeline, len(rows), features.shape[1])
        return pipeline, nn.Sequential(layer, LogOdds(positive)) if positive else layer, converged

    def _told(self, values: Row) -> str:
        """The candidate in words: what is not the same in all of them."""
        varying = [name for name in values if len({str(others[name]) for others in self.candidates}) > 1]
        words = [f"{name} {_short(values[name])}" for name in varying]
        return ", ".join(words) or self.classifier.name


def make_folds(training: Patches, count: int, seed: int) -> tuple[Folds, str]:
    """Folds of the training split, stratified by class, by slide or patient where these are known.

    They are for choices that neither validation nor calibration nor test may make. Where no group is known, copies of
    a picture stay together.

    Args:
        training: The split.
        count: How many folds.
        seed: Of the order.

    Returns:
        Indices to learn from and to judge by, for each fold, and a note.

    Raises:
        SplitError: A fold would lack a class.
    """
    labels, groups = training.kinds, training.groups
    classes = len(set(labels))
    pictures = digests(training.images, training.rows) if groups is None else []
    if len(set(pictures)) < len(pictures):
        groups = np.array(pictures)
    remedy = "fewer folds, as in --set learner.folds=2, or more labelled images or groups"
    kind = StratifiedKFold if groups is None else StratifiedGroupKFold
    fewest = min(np.bincount(labels, minlength=classes)) if groups is None else len(set(groups))
    if fewest < count:
        what = "images of the rarest class" if groups is None else "pictures" if pictures else "slides or patients"
        raise SplitError(f"{fewest} {what} in the training split", expected=f"{count}, one per fold", remedy=remedy)
    folds = list(kind(count, shuffle=True, random_state=seed).split(labels, labels, groups))
    for number, (learnt, judged) in enumerate(folds, 1):
        if len(set(labels[learnt])) < classes or len(set(training.labels[judged])) < 2:
            raise SplitError(f"fold {number} of {count} of the training split lacks a class", remedy=remedy)
    note = f"parameters were chosen within {count} folds of the training split, "
    if training.groups is None:
        return folds, note + "which may share slides or patients, as these are not known: the folds are too kind"
    return folds, note + "of which no two share a slide or patient"


def _require_plain(task: Task) -> None:
    """Refuse what a classical learner would leave out without a word."""
    recipe = task.recipe
    asked = {
        "preprocessing.normalisation other than unit": recipe.preprocessing.normalisation != "unit",
        f"weights {recipe.weights}": recipe.weights != "random",
        "augmentation": not recipe.augmentation.identity,
        "fine_tuning": recipe.fine_tuning is not None,
        "a teacher (--distil)": task.training.targets is not None,
    }
    for name, given in asked.items():
        if given:
            raise RecipeError(f"{name} with learner {recipe.learner and recipe.learner.name}", remedy="leave it out")


def _short(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
