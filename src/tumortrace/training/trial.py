"""One trial of a search: draw a recipe, train it, report each epoch, end early where the pruner says so."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import optuna
import pandas as pd
import torch
from optuna.exceptions import UpdateFinishedTrialError
from optuna.trial import TrialState

from tumortrace.errors import TumorTraceError
from tumortrace.evaluation.classes import CLASS, with_classes
from tumortrace.evaluation.intervals import evaluate_table
from tumortrace.models.bundle import Model
from tumortrace.records.files import write_text
from tumortrace.records.metrics import SplitMetrics
from tumortrace.records.run import Run
from tumortrace.records.tables import HISTORY, PREDICTIONS
from tumortrace.training.experiment import Experiment
from tumortrace.training.finish import split_table, uncalibrated
from tumortrace.training.gradient import GradientLearner
from tumortrace.training.learner import Row, seed_of
from tumortrace.training.recipe import Recipe
from tumortrace.training.space import Space, changed
from tumortrace.training.study import best_trial, fail
from tumortrace.training.study_place import trial_folder

#: What a network that cannot be built or trained raises: its trial fails, and the search goes on.
FAILURES = (TumorTraceError, RuntimeError, ValueError, MemoryError)


@dataclass(frozen=True)
class Search:
    """What every trial of a study shares; `shared` where machines work on it that do not see each other's folders."""

    experiment: Experiment
    space: Space
    study: optuna.Study
    shared: bool = False

    @property
    def run(self) -> Run:
        """The study's folder."""
        return self.experiment.run

    def value(self, row: Row) -> float | None:
        """The objective in a row of a history."""
        value = row[f"validation_{self.space.objective.metric}"]
        return None if value is None or not np.isfinite(value) else float(value)

    def best_so_far(self, value: float | None) -> bool:
        """Whether no trial that is finished has a better value."""
        best = best_trial(self.study)
        if best is None or best.value is None or value is None:
            return value is not None
        return value >= best.value if self.space.objective.direction == "maximise" else value <= best.value


def total_epochs(recipe: Recipe) -> int:
    """The most epochs that a training takes, its second stage with it."""
    return recipe.epochs + (recipe.fine_tuning.epochs if recipe.fine_tuning else 0)


def attempt(search: Search, trial: optuna.Trial) -> None:
    """Train what the trial draws, or go on with it; afterwards it is finished, pruned or failed."""
    try:
        state, value = _train(search, trial)
    except UpdateFinishedTrialError:  # by another, who took it up when this one's connection was lost
        return
    except FAILURES as error:
        reason = str(error) if isinstance(error, TumorTraceError) else f"{type(error).__name__}: {error}"
        fail(search.study, trial, " ".join(reason.split())[:500])
        return
    if state == TrialState.COMPLETE and value is None:
        fail(
            search.study, trial, f"validation {search.space.objective.metric} is not defined at the epoch that was kept"
        )
        return
    search.study.tell(trial, value if state == TrialState.COMPLETE else None, state=state, skip_if_finished=True)


def _train(search: Search, trial: optuna.Trial) -> tuple[TrialState, float | None]:
    experiment, place = search.experiment, Run(trial_folder(search.run.folder, trial.number))
    seed = seed_of(experiment.arguments.seed, trial.number)
    trial.set_user_attr("seed", seed)
    recipe = changed(experiment.recipe, search.space.suggest(trial), f"trial {trial.number}")
    write_text(place.recipe_file, recipe.to_yaml())
    learner = GradientLearner(experiment.task(place.folder, recipe, seed))
    if learner.resume():  # a kill may have come between the checkpoint and the file
        HISTORY.write(place.folder, pd.DataFrame(learner.progress.history))
    judge = _Judge(search, trial, total_epochs(recipe))
    pruned = judge.catch_up(learner.progress.history)
    progress = learner.progress if pruned else learner.fit(after_epoch=judge)
    trial.set_user_attr("epochs", progress.epoch)
    trial.set_user_attr("best_epoch", progress.best_epoch)
    trial.set_user_attr("seconds", round(sum(row["seconds"] for row in progress.history), 3))
    if judge.pruned:
        return TrialState.PRUNED, search.value(progress.history[-1])
    value = search.value(progress.history[progress.best_epoch - 1])
    predictions = _predictions(experiment, recipe, learner)
    PREDICTIONS.write(place.folder, predictions)
    if search.shared and search.best_so_far(value):  # for the others, who have not its predictions
        trial.set_user_attr("measured", measure(experiment, predictions).as_json())
    return TrialState.COMPLETE, value


def measure(experiment: Experiment, predictions: pd.DataFrame) -> SplitMetrics:
    """Metrics of a trial on the validation split."""
    return with_classes(evaluate_table(predictions, 0.5), predictions, ordered=experiment.cohort.ordered)


class _Judge:
    """Reports each epoch to the study, and ends a trial that the pruner gives up."""

    def __init__(self, search: Search, trial: optuna.Trial, epochs: int) -> None:
        self.search, self.trial, self.epochs = search, trial, epochs
        self.pruned = False

    def __call__(self, row: Row) -> bool:
        """Report the row of an epoch that has ended; true where the trial ends with it."""
        self._report(row)
        last = self.trial.storage.get_trial(self.trial._trial_id).last_step  # made anew, it was judged there already
        self.pruned = last == row["epoch"] < self.epochs and self.trial.should_prune()  # a last one saves nothing
        return self.pruned

    def catch_up(self, history: list[Row]) -> bool:
        """Report what an interrupted process had not come to."""
        for row in history[:-1]:
            self._report(row)
        return bool(history) and self(history[-1])

    def _report(self, row: Row) -> None:
        if row["epoch"] not in self.trial.storage.get_trial(self.trial._trial_id).intermediate_values:
            value = self.search.value(row)
            self.trial.report(float("nan") if value is None else value, row["epoch"])


def _predictions(experiment: Experiment, recipe: Recipe, learner: GradientLearner) -> pd.DataFrame:
    """Validation split with probabilities as the search measures them: one look at each image, no temperature."""
    table = split_table(experiment, ("validation",))
    info = uncalibrated(experiment, recipe, learner.architecture)
    model = Model(info.model_copy(update={"symmetries": False}), learner.evaluated, learner.device)
    images = experiment.material.prepared(recipe.preprocessing).images
    judged = model.assess(images, table["row"].to_numpy(), description="predicting", prepared=True)
    probability = torch.sigmoid(torch.from_numpy(np.asarray(judged.logit, dtype=np.float64))).numpy()
    by_class = judged.by_class or {}
    told = table.rename(columns={"class_name": CLASS}).assign(probability=probability, **by_class)
    return told[["id", "group", "split", "label", "probability", *([CLASS] if by_class else []), *by_class]]
