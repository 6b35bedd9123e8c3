"""The verb `train --fractions`: fresh models on growing parts of the training split, tested on the same images."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Unpack

import pandas as pd

from tumortrace.cohorts.cohort import Cohort
from tumortrace.cohorts.layouts import READING, Reading, open_cohort, refuse_within
from tumortrace.cohorts.splits import Splits, read_splits
from tumortrace.errors import SplitError
from tumortrace.records.files import write_csv, write_text
from tumortrace.records.output import require_folder
from tumortrace.records.provenance import machine, versions
from tumortrace.records.run import Run, create_run
from tumortrace.training.admission import admit, divided
from tumortrace.training.chosen import chosen_recipe
from tumortrace.training.learning_curve.outcome import parts_of, write_outcome
from tumortrace.training.learning_curve.subsets import nested_subsets
from tumortrace.training.leave_out import without
from tumortrace.training.part import train_part
from tumortrace.training.recipe import Recipe, parse_recipe
from tumortrace.training.record import data_arguments, data_record, log, recorded
from tumortrace.training.reopen import left_to_do, reopened
from tumortrace.training.seeding import seed_of

VERB = "learning-curve"


def learning_curve(
    data: str | Path | Cohort,
    fractions: Sequence[float],
    *,
    repeats: int = 3,
    recipe: str | Path | Recipe = "tumortrace",
    changes: Sequence[str] = (),
    epochs: int | None = None,
    weights: str | Path | None = None,
    out: str | Path = "runs",
    seed: int = 0,
    split_seed: int | None = None,
    split: str = "group",
    allow: Sequence[str] = (),
    device: str = "auto",
    precision: str = "auto",
    **reading: Unpack[Reading],
) -> Path:
    """Train a recipe on growing parts of the training split, several times, and fit how its error falls.

    Validation, calibration and test are the same images throughout. Parts are nested within a repeat, made of whole
    groups where these are known, and drawn anew for each repeat.

    Args:
        data: Any known layout, or an opened cohort.
        fractions: Shares of the training split, above 0 and at most 1.
        repeats: How often parts are drawn and models trained.
        recipe: As for `train`, like all that follow.
        changes: `key=value` each.
        epochs: Instead of the recipe's number of epochs.
        weights: Instead of the recipe's.
        out: Folder in which the folder of the learning curve is made.
        seed: Seed of the splits, and with repeat and share that of each model.
        split_seed: Seed of the splits alone.
        split: "group" or "random".
        allow: Findings of `check` to train in spite of.
        device: "auto", "cpu", "cuda", "cuda:1" or "mps".
        precision: "auto", "32" or "bf16".
        **reading: How the data are read: options of `open_cohort`.

    Returns:
        The folder, with `learning_curve.csv`, `learning_curve.json`, `report.html`, and an ordinary run folder for
        each model under `models/<repeat>-<share>/`.

    Raises:
        TumorTraceError: The data, the recipe or the machine do not allow it.
    """
    if repeats < 1:
        raise SplitError(f"--repeats {repeats}", expected="1 or more", remedy="use 3")
    chosen, changes = chosen_recipe(recipe, changes, epochs, weights)
    require_folder(Path(out))
    opened = open_cohort(data, **reading).labelled
    refuse_within(Path(out), data, opened)
    cohort = without(opened, chosen)
    splits, looks = divided(cohort, split, seed if split_seed is None else split_seed, chosen.splits)
    admit(cohort, splits, looks=looks, split=split, allow=allow, policies=[chosen.calibration.threshold])
    if not (splits.table["split"] == "test").any():
        raise SplitError("no test split", where=cohort.name, remedy="give the recipe's splits a share for test")
    parts, notes = _parts(cohort, splits, sorted(fractions), repeats, seed)
    arguments = {
        "recipe": chosen.name,
        "set": changes,
        "fractions": sorted(fractions),
        "repeats": repeats,
        "seed": seed,
        "split_seed": split_seed,
        "split": split,
        "device": device,
        "precision": precision,
        **data_arguments(data, allow, reading),
    }
    about = data_record(cohort, splits)
    about["data"]["notes"] = [*cohort.notes, *splits.notes, *notes]
    record = {
        "verb": VERB,
        "command": _command(arguments),
        "arguments": arguments,
        "seed": seed,
        "tumortrace": versions()["tumortrace"],
        "versions": versions(),
        "machine": machine(),
        **about,
    }
    run = create_run(Path(out), f"learning-curve-{chosen.name}", record)
    write_text(run.recipe_file, chosen.to_yaml())
    write_csv(run.splits_file, splits.table)
    write_csv(run.folder / "subsets.csv", parts)
    for note in about["data"]["notes"]:
        log(run, f"note: {note}")
    return _carry_out(run, opened)


def resume_learning_curve(folder: str | Path, data: Cohort | None = None) -> Path:
    """Go on with a learning curve that was interrupted or killed: finished models stay, one that was begun is resumed.

    Args:
        folder: Its folder.
        data: The cohort, where `learning_curve` was given one that was opened already.

    Raises:
        RunError: The folder is no learning curve, or the data have changed since.
    """
    run = Run(Path(folder))
    if not left_to_do(run, VERB, "a folder of `train --fractions`"):
        return run.folder
    data = reopened(run, _recipe(run), data, "resume_learning_curve(folder, data=cohort)")
    run.update(status="running", error=None)
    return _carry_out(run, data)


def _parts(
    cohort: Cohort, splits: Splits, fractions: Sequence[float], repeats: int, seed: int
) -> tuple[pd.DataFrame, list[str]]:
    """Columns `repeat, fraction, id` of every part's training images, and what whole groups did to the shares."""
    training = splits.table[splits.table["split"] == "train"]
    table = training.merge(cohort.table[["id", "label"]], on="id")
    rows, notes = list[pd.DataFrame](), list[str]()
    for repeat in range(repeats):
        last: list[str] = []
        for share, ids in nested_subsets(table, fractions, seed_of(seed, repeat, 0)).items():
            if ids == last:
                notes.append(
                    f"repeat {repeat}: {share:.3g} of the training images is left out, being no whole group more"
                )
                continue
            last = ids
            rows.append(pd.DataFrame({"repeat": repeat, "fraction": share, "id": ids}))
    return pd.concat(rows, ignore_index=True), notes


def _carry_out(run: Run, opened: Cohort) -> Path:
    arguments, recipe = run.read()["arguments"], _recipe(run)
    cohort = without(opened, recipe)
    splits = read_splits(run.splits_file, cohort, by_group=arguments["split"] == "group")
    parts = pd.read_csv(run.folder / "subsets.csv", dtype={"id": "string"}, keep_default_na=False)
    with recorded(run):
        for repeat, fraction, own in parts_of(parts):
            kept = splits.table["id"].isin(own["id"]) | (splits.table["split"] != "train")
            part = replace(splits, table=splits.table[kept].reset_index(drop=True))
            place = run.folder / "models" / f"{repeat}-{fraction:g}"
            seed = seed_of(arguments["seed"], repeat, round(1e6 * fraction))
            train_part(run, place, opened, part, recipe, seed)
        write_outcome(run)
    return run.folder


def _recipe(run: Run) -> Recipe:
    return parse_recipe(run.recipe_file.read_text(encoding="utf-8"), str(run.recipe_file))


def _command(arguments: dict[str, Any]) -> str:
    words = ["tumortrace", "train", arguments["data"] or "COHORT", "--recipe", arguments["recipe"]]
    words += ["--fractions", ",".join(f"{100 * share:g}%" for share in arguments["fractions"])]
    for name, option in (("set", "--set"), ("allow", "--allow")):
        for value in arguments[name]:
            words += [option, value]
    for name in ("repeats", "seed", "split_seed", "split", "device", "precision", *READING):
        if arguments[name] is not None:
            words += [f"--{name.replace('_', '-')}", str(arguments[name])]
    return shlex.join(words)
