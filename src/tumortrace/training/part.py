"""One of several trainings that belong together: a fold, a part of a learning curve, a member of an ensemble."""

from __future__ import annotations

import shutil
from pathlib import Path

from tumortrace.cohorts.cohort import READING, Cohort
from tumortrace.cohorts.splits import Splits
from tumortrace.records.run import Run
from tumortrace.training.experiment import is_finished
from tumortrace.training.recipe import Recipe
from tumortrace.training.train import resume, train


def begun_in(place: Path) -> Path | None:
    """The run folder that `train` made in `place` and got far enough with to be resumed, or None."""
    needed = ("run.json", "recipe.yaml", "splits.csv")
    begun = [folder for folder in sorted(place.glob("*")) if all((folder / name).is_file() for name in needed)]
    return begun[-1] if begun else None


def train_part(whole: Run, place: Path, opened: Cohort, splits: Splits, recipe: Recipe, seed: int) -> Path:
    """Train one model into `place`, or go on with it; checkpoints that nobody will resume from are deleted.

    Args:
        whole: The run that it is a part of; its arguments say on what device, how the data are read, what is allowed.
        place: Folder for the part's run folder alone.
        opened: The labelled images.
        splits: Their splits.
        recipe: What to train.
        seed: Of the weights, the order and the augmentation.

    Returns:
        The run folder, finished.
    """
    arguments = whole.read()["arguments"]
    begun = begun_in(place)
    if begun is None:
        begun = train(
            opened if arguments["data"] is None else arguments["data"],
            recipe=recipe,
            out=place,
            seed=seed,
            split=arguments["split"],
            splits=splits,
            allow=arguments["allow"],
            distil=arguments.get("distil"),
            device=arguments["device"],
            precision=arguments["precision"],
            **{name: arguments[name] for name in READING},
        )
    elif not is_finished(Run(begun)):
        resume(begun, opened)
    shutil.rmtree(Run(begun).checkpoints, ignore_errors=True)
    return begun
