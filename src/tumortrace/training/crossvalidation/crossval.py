"""The verb `crossval`: a fresh model for each fold, so that every image is tested by one that never saw it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Unpack

import pandas as pd

from tumortrace.cohorts.cohort import Cohort
from tumortrace.cohorts.folds import assign_folds, groups_on_both_sides
from tumortrace.cohorts.layouts import Reading, open_cohort, refuse_within
from tumortrace.cohorts.splits import Splits, told_together, units_of
from tumortrace.errors import SplitError
from tumortrace.records.files import write_csv, write_text
from tumortrace.records.output import require_folder
from tumortrace.records.provenance import machine, versions
from tumortrace.records.run import Run, create_run
from tumortrace.training.admission import looks_and_copies
from tumortrace.training.crossvalidation.fold_plan import (
    Named,
    check_all,
    command_line,
    listed,
    load_recipes,
    splits_of_fold,
    without_splits,
)
from tumortrace.training.crossvalidation.out_of_fold import write_outcome
from tumortrace.training.leave_out import without
from tumortrace.training.part import train_part
from tumortrace.training.recipe import Recipe, parse_recipe
from tumortrace.training.record import data_arguments, data_record, log, recorded
from tumortrace.training.reopen import left_to_do, reopened
from tumortrace.training.seeding import seed_of


def crossval(
    data: str | Path | Cohort,
    *,
    recipe: Named = "tumortrace",
    folds: int = 5,
    repeats: int = 1,
    changes: Sequence[str] = (),
    epochs: int | None = None,
    out: str | Path = "runs",
    seed: int = 0,
    split: str = "group",
    keep_test: bool = False,
    allow: Sequence[str] = (),
    device: str = "auto",
    precision: str = "auto",
    **reading: Unpack[Reading],
) -> Path:
    """Train a fresh model for each fold, test it on the fold, and write what the folds say together.

    In each fold the rest of the images is divided anew into train, validation and calibration, so that everything that
    is fitted (weights, epoch, temperature, threshold) is fitted without the fold. Several recipes go through the same
    folds and are compared by paired tests.

    Args:
        data: Any known layout, or an opened cohort. Splits that the data bring are ignored, aloud.
        recipe: Name, YAML file or recipe, or several of them.
        folds: Number of folds, at least 2.
        repeats: How often the images are divided into folds anew.
        changes: `key=value` each, applied to every recipe.
        epochs: Instead of the recipes' number of epochs.
        out: Folder in which the folder of the cross-validation is made.
        seed: Seed of folds and splits, and with repeat and fold that of each model.
        split: "group" keeps slides or patients together; "random" does not, and the report says what that hides.
        keep_test: Leave the test split that the data bring out of the folds, for a last look.
        allow: Findings of `check` to train in spite of, as for `train`.
        device: "auto", "cpu", "cuda", "cuda:1" or "mps".
        precision: "auto", "32" or "bf16".
        **reading: How the data are read: options of `open_cohort`.

    Returns:
        The folder, with `folds.csv`, `predictions.csv` (out-of-fold), `crossval.json`, `report.html`, and an ordinary
        run folder for each fold under `folds/<recipe>/<repeat>-<fold>/`.

    Raises:
        TumorTraceError: The data, a recipe or the machine do not allow it; nothing has been trained then.
    """
    if split not in ("group", "random"):
        raise SplitError(f"--split {split!r}", expected="group or random", remedy="use one of these")
    changes = [*changes, *([] if epochs is None else [f"epochs={epochs}"])]
    recipes = load_recipes(recipe, changes)
    require_folder(Path(out))
    opened = open_cohort(data, **reading).labelled
    refuse_within(Path(out), data, opened)
    cohort = without(opened, recipes[0])
    divided, notes = without_splits(cohort, keep_test)
    by_group = split == "group"
    assign_folds(divided, folds, repeats, seed=seed, by_group=by_group)  # refused before any image is decoded
    looks, copies = looks_and_copies(cohort)
    table = assign_folds(divided, folds, repeats, seed=seed, by_group=by_group, copies=copies)
    rows = divided.table
    notes += told_together(rows.assign(unit=units_of(rows, by_group, copies)), by_group)
    arguments = {
        "recipe": [one.name if isinstance(one, Recipe) else str(one) for one in listed(recipe)],
        "folds": folds,
        "repeats": repeats,
        "set": changes,
        "seed": seed,
        "split": split,
        "keep_test": keep_test,
        "device": device,
        "precision": precision,
        **data_arguments(data, allow, reading),
    }
    first, one_sided = check_all(cohort, table, looks, copies, recipes, arguments)
    about = data_record(cohort, first)["data"] | {"notes": [*cohort.notes, *notes, *one_sided]}
    del about["splits"]  # of one fold
    names = [one.name for one in recipes]
    record: dict[str, Any] = {
        "verb": "crossval",
        "command": command_line(arguments),
        "arguments": arguments,
        "recipes": names,
        "seed": seed,
        "data": about,
        "leakage": _leakage(table, first),
        "tumortrace": versions()["tumortrace"],
        "versions": versions(),
        "machine": machine(),
    }
    run = create_run(Path(out), "crossval-" + (names[0] if len(names) == 1 else f"{len(names)}-recipes"), record)
    for one in recipes:
        write_text(_recipe_file(run, one.name), one.to_yaml())
    write_csv(run.folder / "folds.csv", table)
    for note in about["notes"]:
        log(run, f"note: {note}")
    models = f"{folds} folds x {repeats} repeats x {len(recipes)} recipes"
    log(run, f"crossval: {models} on {table['id'].nunique():,} images, leakage {record['leakage']}")
    return _carry_out(run, opened)


def resume_crossval(folder: str | Path, data: Cohort | None = None) -> Path:
    """Go on with a cross-validation that was interrupted or killed: finished folds stay, one that was begun is resumed.

    Args:
        folder: Its folder.
        data: The cohort, where `crossval` was given one that was opened already.

    Raises:
        RunError: The folder is no cross-validation, or the data have changed since.
    """
    run = Run(Path(folder))
    if not left_to_do(run, "crossval", "a folder of `crossval`"):
        return run.folder
    data = reopened(run, _stored(run)[0], data, "resume_crossval(folder, data=cohort)")
    run.update(status="running", error=None)
    return _carry_out(run, data)


def _carry_out(run: Run, opened: Cohort) -> Path:
    arguments = run.read()["arguments"]
    text = {"id": "string", "group": "string"}
    table = pd.read_csv(run.folder / "folds.csv", dtype=text, keep_default_na=False, na_values={"group": [""]})
    recipes = _stored(run)
    cohort = without(opened, recipes[0])
    with recorded(run, "crossval"):
        _, copies = looks_and_copies(cohort)
        for repeat, fold in table[["repeat", "fold"]].drop_duplicates().sort_values(["repeat", "fold"]).to_numpy():
            for recipe in recipes:
                splits = splits_of_fold(cohort, table, copies, recipe, int(repeat), int(fold), arguments)
                place = run.folder / "folds" / recipe.name / f"{repeat}-{fold}"
                train_part(run, place, opened, splits, recipe, seed_of(arguments["seed"], int(repeat), int(fold)))
        write_outcome(run, cohort, table)
    return run.folder


def _leakage(table: pd.DataFrame, first: Splits) -> str:
    """One sentence about all folds: that of the first one's splits, unless groups were cut through."""
    shared = groups_on_both_sides(table)
    if not shared:
        return first.leakage
    cut = f"{shared} of {table['group'].nunique()} groups stand in several folds"
    return f"present: {cut}, so that models are tested on slides or patients that they have learnt from"


def _stored(run: Run) -> list[Recipe]:
    """The recipes as they were when it began."""
    files = [_recipe_file(run, name) for name in run.read()["recipes"]]
    return [parse_recipe(file.read_text(encoding="utf-8"), str(file)) for file in files]


def _recipe_file(run: Run, name: str) -> Path:
    return run.folder / "recipes" / f"{name}.yaml"
