"""The verb `train --members`: one recipe trained several times, and the runs joined in an ensemble."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Unpack

from tumortrace.cohorts.cohort import Cohort
from tumortrace.cohorts.layouts import Reading, open_cohort, refuse_within
from tumortrace.cohorts.splits import Splits, read_splits
from tumortrace.errors import RunError
from tumortrace.records.files import write_csv, write_text
from tumortrace.records.output import require_folder
from tumortrace.records.run import Run, create_run
from tumortrace.training.admission import admit, divided
from tumortrace.training.chosen import chosen_recipe
from tumortrace.training.ensemble import VERB, join
from tumortrace.training.leave_out import without
from tumortrace.training.part import train_part
from tumortrace.training.recipe import Recipe, parse_recipe
from tumortrace.training.record import command, data_arguments, data_record, log, recorded
from tumortrace.training.reopen import left_to_do, reopened


def train_members(
    data: str | Path | Cohort,
    members: int,
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
    allow: Sequence[str] = (),
    device: str = "auto",
    precision: str = "auto",
    **reading: Unpack[Reading],
) -> Path:
    """Train a recipe several times, from different weights on the same splits, and join the runs.

    Args:
        data: As for `train`, like all that follow.
        members: How many, at least two; they have the seeds `seed`, `seed` + 1 and so on.
        recipe: What to train.
        changes: `key=value` each.
        epochs: Instead of the recipe's number of epochs.
        weights: Instead of the recipe's.
        distil: A teacher for each of them.
        out: Folder in which the ensemble's run folder is made.
        seed: Of the first member, and of the splits unless `split_seed` is given.
        split_seed: Seed of the splits alone.
        split: "group" or "random".
        allow: Findings of `check` to train in spite of.
        device: "auto", "cpu", "cuda", "cuda:1" or "mps".
        precision: "auto", "32" or "bf16".
        **reading: How the data are read: options of `open_cohort`.

    Returns:
        The ensemble's run folder, with an ordinary run folder of each member under `members/<number>/`.

    Raises:
        TumorTraceError: The data, the recipe or the machine do not allow it.
    """
    if members < 2:
        raise RunError(f"{members} member(s)", expected="at least 2", remedy="leave --members out for a single network")
    chosen, changes = chosen_recipe(recipe, changes, epochs, weights)
    require_folder(Path(out))
    opened = open_cohort(data, **reading).labelled
    refuse_within(Path(out), data, opened)
    cohort = without(opened, chosen)
    splits, looks = divided(cohort, split, seed if split_seed is None else split_seed, chosen.splits)
    admit(cohort, splits, looks=looks, split=split, allow=allow, policies=[chosen.calibration.threshold])
    arguments = {
        "recipe": chosen.name,
        "set": changes,
        "members": members,
        "seed": seed,
        "split_seed": split_seed,
        "split": split,
        "device": device,
        "precision": precision,
        "distil": None if distil is None else str(Path(distil).resolve()),
        **data_arguments(data, allow, reading),
    }
    record = {"verb": VERB, "command": command(arguments), "arguments": arguments, "seed": seed}
    run = create_run(Path(out), VERB, record | data_record(cohort, splits))
    write_text(_recipe_file(run), chosen.to_yaml())
    write_csv(run.splits_file, splits.table)
    log(run, f"train: {members} members of {chosen.name}, each in a folder of its own under {run.folder / 'members'}")
    return _carry_out(run, opened, splits)


def resume_ensemble(folder: str | Path, data: Cohort | None = None) -> Path:
    """Go on with an ensemble that was interrupted or killed: members that are finished stay, the rest is trained.

    Args:
        folder: Its run folder.
        data: The cohort, where `train_members` or `ensemble` was given one that was opened already.

    Raises:
        RunError: The folder is no ensemble, or the data have changed since.
    """
    run = Run(Path(folder))
    if not left_to_do(run, VERB, "an ensemble"):
        return run.folder
    recipe = _member_recipe(run)
    opened = reopened(run, recipe, data, "resume_ensemble(folder, data=cohort)")
    by_group = run.read()["arguments"]["split"] == "group"
    splits = read_splits(run.splits_file, without(opened, recipe), by_group=by_group)
    run.update(status="running", error=None)
    return _carry_out(run, opened, splits)


def _carry_out(run: Run, opened: Cohort, splits: Splits) -> Path:
    arguments, recipe = run.read()["arguments"], _member_recipe(run)
    with recorded(run):
        members = [Path(folder) for folder in arguments.get("runs", [])]  # those that `ensemble` was given
        for number in range(arguments.get("members", 0)):
            place = run.folder / "members" / str(number + 1)
            members.append(train_part(run, place, opened, splits, recipe, arguments["seed"] + number))
        return join(run, [Run(folder) for folder in members], without(opened, recipe), splits)


def _member_recipe(run: Run) -> Recipe:
    """What the members are trained by; of `ensemble`, what the first of its runs was."""
    arguments = run.read()["arguments"]
    file = _recipe_file(run) if "members" in arguments else Run(Path(arguments["runs"][0])).recipe_file
    return parse_recipe(file.read_text(encoding="utf-8"), str(file))


def _recipe_file(run: Run) -> Path:
    return run.folder / "members" / "recipe.yaml"
