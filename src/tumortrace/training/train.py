"""The verb `train`: from data and a recipe to a finished run folder."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Unpack

import numpy as np
import torch

from tumortrace.cohorts.cohort import Cohort, ReadingOptions
from tumortrace.cohorts.layouts import open_cohort, refuse_within
from tumortrace.cohorts.seen import write_seen
from tumortrace.cohorts.splits import Splits, read_splits
from tumortrace.cohorts.store import PatchStore, open_store, prepared_store
from tumortrace.errors import SplitError
from tumortrace.images.preprocessing import Preprocessing
from tumortrace.models.architecture import count_parameters
from tumortrace.records.files import write_csv, write_text
from tumortrace.records.output import require_folder
from tumortrace.records.provenance import RESEARCH_USE, machine, versions
from tumortrace.records.run import Run, create_run, now
from tumortrace.reports.report import write_model_card, write_report
from tumortrace.training.experiment import (
    admit,
    command,
    data_arguments,
    data_record,
    device_name,
    divided,
    left_to_do,
    log,
    looks_and_copies,
    recorded,
    reopened,
    without,
)
from tumortrace.training.finish import Fitted, finish
from tumortrace.training.gradient import Trainer
from tumortrace.training.probe import ProbeTrainer
from tumortrace.training.recipe import Recipe, chosen_recipe, parse_recipe
from tumortrace.training.task import Patches, Task, teacher_targets
from tumortrace.training.texture import TextureTrainer


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
        splits: Ready splits of the data, as `crossval` makes them; None assigns them.
        allow: Findings of `check` to train in spite of; which of them were needed is on record. A random split allows
            its own leakage.
        device: "auto", "cpu", "cuda", "cuda:1" or "mps".
        precision: "auto", "32" or "bf16".
        **reading: How the data are read: options of `open_cohort`.

    Returns:
        The run folder.

    Raises:
        TumorTraceError: The data, the recipe or the machine do not allow it; the message says what to do.
    """
    recipe, changes = chosen_recipe(recipe, changes, epochs, weights)
    require_folder(Path(out))
    cohort = without(open_cohort(data, **reading).labelled, recipe)
    refuse_within(Path(out), cohort)
    given = splits is not None
    if splits is None:
        splits, looks = divided(cohort, split, seed if split_seed is None else split_seed, recipe.splits)
    elif not splits.table["id"].isin(cohort.table["id"]).all():
        raise SplitError("splits that name images which the data lack", where=cohort.name, remedy="restore the files")
    else:
        looks, _ = looks_and_copies(cohort)
    audit, allowed = admit(
        cohort, splits, looks=looks, split=split, allow=allow, policies=[recipe.calibration.threshold]
    )
    arguments = {
        "recipe": recipe.name,
        "set": changes,
        "seed": seed,
        "split_seed": split_seed,
        "split": split,
        "device": device,
        "precision": precision,
        "distil": None if distil is None else str(Path(distil).resolve()),
        **data_arguments(cohort, allow),
    }
    line = command(arguments) + ("  # on the splits.csv and with the recipe.yaml of this folder" if given else "")
    record = {"verb": "train", "command": line, "arguments": arguments, "seed": seed}
    told = [{"name": f.name, "verdict": f.verdict, "count": f.count, "message": f.message} for f in audit.findings]
    record["audit"] = {"findings": told, "allowed": list(allowed)}
    run = create_run(Path(out), recipe.name, record | data_record(cohort, splits))
    write_text(run.recipe_file, recipe.to_yaml())
    write_csv(run.splits_file, splits.table)
    return _carry_out(run, cohort, splits, recipe)


def resume(run_folder: str | Path, data: Cohort | None = None) -> Path:
    """Continue a training that was interrupted or killed; it ends as if nothing had happened.

    Args:
        run_folder: The run folder.
        data: The cohort, where `train` was given one that was opened already.

    Raises:
        RunError: The folder is no run, or the data have changed since.
    """
    run = Run(Path(run_folder))
    if not left_to_do(run, "train", "a run of `train`"):
        return run.folder
    recipe = parse_recipe(run.recipe_file.read_text(encoding="utf-8"), str(run.recipe_file))
    cohort = without(reopened(run, recipe, data, "resume(run, data=cohort)"), recipe)
    splits = read_splits(run.splits_file, cohort, by_group=run.read()["arguments"]["split"] == "group")
    run.update(status="running", error=None)
    return _carry_out(run, cohort, splits, recipe)


def _carry_out(run: Run, cohort: Cohort, splits: Splits, recipe: Recipe) -> Path:
    record = run.read()
    arguments = record["arguments"]
    started = time.monotonic()
    with recorded(run):
        store = open_store(cohort)
        prepared = prepare_store(store, recipe.preprocessing)
        training = split_patches(cohort, prepared.images, splits, "train")
        taught, teacher_notes = training, list[str]()
        if arguments.get("distil"):
            taught, teacher_notes = teacher_targets(
                arguments["distil"], cohort, store, splits, training, recipe.loss.distillation
            )
        task = Task(
            recipe,
            taught,
            split_patches(cohort, prepared.images, splits, "validation"),
            checkpoints=run.checkpoints,
            history_file=run.history_file,
            seed=record["seed"],
            device=arguments["device"],
            precision=arguments["precision"],
            data_key=f"{cohort.fingerprint} {store.size} {recipe.preprocessing.preparation_key}",
        )
        trainer = trainer_of(recipe)(task)
        resumed = trainer.resume()
        earlier = sum(epoch["seconds"] for epoch in trainer.progress.history)  # before a kill, whole epochs alone
        notes = [*record["data"]["notes"], *prepared.notes, *_unseen_margin(recipe, store.size), *teacher_notes]
        notes += getattr(trainer, "notes", [])
        notes += [
            f"check: {f['message']}, which is allowed"
            for f in record["audit"]["findings"]
            if f["name"] in record["audit"]["allowed"]
        ]
        notes = list(dict.fromkeys(notes))  # of a run that goes on, the record has most of them
        run.update(
            tumortrace=versions()["tumortrace"],
            versions=versions(),
            machine=machine(),
            device=str(trainer.device),
            device_name=device_name(trainer.device),
            precision=trainer.precision,
            threads=torch.get_num_threads(),
            weights=trainer.weights | {"seed": record["seed"]},
            parameters=count_parameters(trainer.network),
            data=record["data"] | {"notes": notes},
        )
        for note in notes:
            log(run, f"note: {note}")
        counts = splits.table["split"].value_counts()
        where = f", resumed at epoch {trainer.progress.epoch + 1}" if resumed else ""
        log(run, f"train: {recipe.name} on {counts['train']:,} images, leakage {splits.leakage}{where}")
        progress = trainer.fit()
        if recipe.learner:  # which is not there before the fit
            run.update(parameters=count_parameters(trainer.evaluated))
        fitted = Fitted(trainer.evaluated, trainer.architecture, trainer.device, progress.epoch, progress.best_epoch)
        write_seen(run.folder / "seen.csv", store, cohort, splits)
        headline = finish(run, recipe, cohort, splits, store, prepared.images, fitted)
        run.update(status="finished", finished=now(), duration_s=round(earlier + time.monotonic() - started, 1))
        write_reports(run, headline)
    return run.folder


def write_reports(run: Run, headline: str) -> None:
    """The report and the model card of a finished run, and its last lines."""
    report = write_report(run.folder)
    write_model_card(run.folder)
    log(run, headline)
    log(run, f"report: {report}. {RESEARCH_USE}")


def trainer_of(recipe: Recipe) -> type[Trainer] | type[ProbeTrainer] | type[TextureTrainer]:
    """What fits the recipe: gradient descent, a probe, or a classical learner."""
    return TextureTrainer if recipe.learner else ProbeTrainer if recipe.probe else Trainer


def prepare_store(store: PatchStore, preprocessing: Preprocessing) -> PatchStore:
    """The store's images after `Preprocessing.prepare`, done once and kept where that is more than a crop."""
    if not preprocessing.prepares:
        return store
    return prepared_store(store, preprocessing.preparation_key, preprocessing.prepare, "preparing")


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


def split_patches(cohort: Cohort, images: np.ndarray, splits: Splits, name: str) -> Patches:
    """The images and labels of split `name`; `images` has the rows of the cohort's table."""
    rows = split_rows(cohort, splits, name)
    groups = cohort.table["group"].to_numpy(dtype=str)[rows] if cohort.has_groups else None
    return Patches(images, rows, cohort.table["label"].to_numpy(dtype=np.float32)[rows], groups=groups)


def split_rows(cohort: Cohort, splits: Splits, name: str) -> np.ndarray:
    """Rows of the cohort's table (and so of its patch store) that stand in split `name`; int64."""
    chosen = set(splits.table.loc[splits.table["split"] == name, "id"])
    return np.flatnonzero(cohort.table["id"].isin(chosen))
