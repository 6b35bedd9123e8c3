"""The verb `train`: from data and a recipe to a finished run folder."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar, Unpack

from tumortrace.cohorts.cohort import Cohort, ReadingOptions
from tumortrace.cohorts.material import Material
from tumortrace.cohorts.seen import write_seen
from tumortrace.cohorts.splits import Splits
from tumortrace.errors import RecipeError, SplitError
from tumortrace.models.architecture import count_parameters
from tumortrace.records.run import Run
from tumortrace.training.bodies import notes_on_body
from tumortrace.training.experiment import ON_GIVEN_SPLITS, Experiment, take_up
from tumortrace.training.finish import finish
from tumortrace.training.gradient import GradientLearner
from tumortrace.training.learner import Learner
from tumortrace.training.ranks import Ranks, follow, place_of, together
from tumortrace.training.recipe import Recipe, choose_recipe
from tumortrace.training.task import Task, teacher_targets
from tumortrace.work.hands import Hands
from tumortrace.work.pieces import carry_out
from tumortrace.work.worker import Tell

Piece = TypeVar("Piece")


def train(
    data: str | Path | Cohort,
    *,
    recipe: str | Path | Recipe = "tumortrace",
    changes: Sequence[str] = (),
    epochs: int | None = None,
    weights: str | Path | None = None,
    distil: str | Path | None = None,
    out: str | Path = "runs",
    seed: int = 0,
    split_seed: int | None = None,
    split: str = "group",
    splits: Splits | None = None,
    allow: Sequence[str] = (),
    device: str = "auto",
    precision: str = "auto",
    devices: int = 1,
    nodes: int = 1,
    **reading: Unpack[ReadingOptions],
) -> Path:
    """Train, calibrate and evaluate a classifier; write everything about it into a new run folder.

    Args:
        data: Any known layout, `synthetic:patches` or `synthetic:mri`, or an opened cohort.
        recipe: Name of a shipped recipe, path of a YAML file, or a recipe.
        changes: Changes to the recipe, as in `optimiser.lr=0.01`.
        epochs: Instead of the recipe's number of epochs.
        weights: Instead of the recipe's: "random", "imagenet", or a file.
        distil: Run folder or bundle of a teacher whose probabilities are learnt beside the labels.
        out: Folder in which the run folder is made.
        seed: Seed of splits, weights, order and augmentation. Two runs from one seed are identical (CPU).
        split_seed: Seed of the splits alone; default `seed`.
        split: "group" keeps slides or patients together; "random" does not, and the report says so.
        splits: Ready splits of the data; None assigns them.
        allow: Findings of `check` to train in spite of; which of them were needed is on record. A random split allows
            its own leakage.
        device: "auto", "cpu", "cuda", "cuda:1" or "mps".
        precision: "auto", "32" or "bf16".
        devices: GPUs of a machine, or processes where there are none, that compute each batch together.
        nodes: Machines that do, each with so many: started by torchrun or srun, or each by itself (docs/training.md).
        **reading: How the data are read: options of `open_cohort`.

    Returns:
        The run folder.

    Raises:
        TumorTraceError: The data, the recipe or the machine do not allow it; the message says what to do.
    """
    if devices * nodes > 1 and (place := place_of(devices, nodes)).rank:
        return follow(learn, place)
    recipe, changes = choose_recipe(recipe, changes, epochs, weights)
    if devices * nodes > 1 and learner_of(recipe) is not GradientLearner:
        raise RecipeError(
            f"--devices {devices} with recipe {recipe.name}", expected="a recipe that learns by gradient descent"
        )

    def given(material: Material) -> Splits:
        if splits is None or not splits.table["id"].isin(material.cohort.table["id"]).all():
            where = material.cohort.name
            raise SplitError("splits that name images which the data lack", where=where, remedy="restore the files")
        return splits

    experiment = Experiment.begin(
        "train",
        data,
        recipe,
        reading,
        name=recipe.name,
        out=out,
        split=split,
        allow=allow,
        divide=None if splits is None else given,
        remark="" if splits is None else ON_GIVEN_SPLITS,
        recipe=recipe.name,
        set=changes,
        seed=seed,
        split_seed=split_seed,
        device=device,
        precision=precision,
        devices=devices,
        nodes=nodes,
        distil=None if distil is None else str(Path(distil).resolve()),
    )
    experiment.keep()
    return fit(experiment)


def resume(run_folder: str | Path, data: str | Path | Cohort | None = None) -> Path:
    """Continue a training that was interrupted or killed; it ends as if nothing had happened.

    Args:
        run_folder: The run folder.
        data: Where the data are now, if they were moved; the cohort, where one was given that was opened already.

    Raises:
        RunError: The folder is no run, or the data have changed since.
    """
    asked = Run(Path(run_folder)).record.arguments
    if asked.devices * asked.nodes > 1 and (place := place_of(asked.devices, asked.nodes)).rank:
        return follow(learn, place)
    experiment = take_up(run_folder, "train", "a run of `train`", data, "resume(run, data=cohort)")
    return Path(run_folder) if experiment is None else fit(experiment)


def fit(experiment: Experiment) -> Path:
    """Carry out an experiment of one training, from where it stands to its end; returns its folder."""
    run, recipe, material = experiment.run, experiment.recipe, experiment.material
    started = time.monotonic()
    arguments = experiment.arguments
    with experiment.recorded(), ExitStack() as stack:
        task, notes = _taught(experiment, experiment.task(run.folder, recipe, run.record.seed))
        task, ranks = stack.enter_context(together(task, arguments.devices, arguments.nodes))
        learner = learner_of(recipe)(task) if ranks.count == 1 else GradientLearner(task, ranks)
        resumed = learner.resume()
        earlier = sum(epoch["seconds"] for epoch in learner.progress.history)  # before a kill, whole epochs alone
        margin = _unseen_margin(recipe, material.store.size)
        body = notes_on_body(recipe, material.cohort.resolution, material.store.size)
        experiment.describe(learner, [*material.prepared(recipe.preprocessing).notes, *margin, *body, *notes])
        where = f", resumed at epoch {learner.progress.epoch + 1}" if resumed else ""
        images = f"{len(task.training.rows):,} {material.cohort.unit}s"
        experiment.log(f"train: {recipe.name} on {images}, leakage {experiment.splits.leakage}{where}")
        progress = learner.fit()
        stack.close()  # the others have done their work
        if recipe.learner:  # which is not there before the fit
            run.update(parameters=count_parameters(learner.evaluated))
        write_seen(run.seen_file, material.store, material.cohort, experiment.splits)
        headline = finish(experiment, learner.evaluated, learner.architecture, learner.device)
        seconds = earlier + time.monotonic() - started
        return experiment.finish(seconds, [headline], epochs=progress.epoch, best_epoch=progress.best_epoch)


def learn(task: Task, ranks: Ranks) -> None:
    """What the other processes of a training do; the first one does it within `fit`."""
    learner = GradientLearner(task, ranks)
    learner.resume()
    learner.fit()


def fit_part(whole: Experiment, place: Path, splits: Splits, recipe: Recipe, seed: int) -> Path:
    """Train one of several models into `place`, or go on with it; nobody will resume from its checkpoints then."""
    part = whole.part(place, recipe, splits, seed)
    if part.run.record.status != "finished":
        fit(part)
    shutil.rmtree(part.run.checkpoints, ignore_errors=True)
    return part.run.folder


def fit_parts(
    fit_one: Callable[[Experiment, Piece, Tell], None],
    pieces: Sequence[Piece],
    whole: Experiment,
    again: Callable[[], Experiment | None],
    places: Sequence[Path],
    hands: Hands,
) -> None:
    """Train the models of which an experiment is made, here or by workers; the first that cannot be trained ends all.

    Args:
        fit_one: Trains one, or goes on with it.
        pieces: What tells it which.
        whole: The experiment.
        again: Takes it up in a worker.
        places: The folder of each model.
        hands: Who trains.
    """

    def receive(_: int, outcome: Exception | None) -> None:
        if outcome is not None:
            raise outcome

    accelerated = whole.arguments.device in ("auto", "cuda")
    begin: Callable[[], Any] = again if hands.elsewhere else lambda: whole
    carry_out(fit_one, pieces, receive, begin=begin, places=places, title="model", hands=hands, accelerated=accelerated)


def learner_of(recipe: Recipe) -> type[Learner]:
    """What fits the recipe: gradient descent, a probe, or a classical learner."""
    if recipe.learner:
        from tumortrace.training.texture import TextureLearner  # here, as it loads scikit-learn, like the probe

        return TextureLearner
    if recipe.probe:
        from tumortrace.training.probe import ProbeLearner

        return ProbeLearner
    return GradientLearner


def _taught(experiment: Experiment, task: Task) -> tuple[Task, list[str]]:
    """The task with a teacher's probabilities, where there is one, and what has to be said of that."""
    if experiment.arguments.distil is None:
        return task, []
    share = experiment.recipe.loss.distillation
    training, notes = teacher_targets(
        experiment.arguments.distil, experiment.material, experiment.splits, task.training, share
    )
    return replace(task, training=training), notes


def _unseen_margin(recipe: Recipe, size: tuple[int, int]) -> list[str]:
    """A note where the recipe's centre crop leaves most of each image unseen, as one for histology does with MRI."""
    crop = recipe.preprocessing.crop
    if crop is not None and crop > max(size):
        return [f"images of {size[1]}x{size[0]} px are smaller than the crop of {crop} px, and are taken whole"]
    if crop is None or crop * crop >= 0.25 * size[0] * size[1]:
        return []
    return [
        f"recipe {recipe.name} looks at the centre {crop}x{crop} px of images of {size[1]}x{size[0]} px alone; if the "
        "label is not decided there, add --set preprocessing.crop=null --set preprocessing.size=64"
    ]
