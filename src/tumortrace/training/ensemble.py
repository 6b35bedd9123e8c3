"""Ensembles: `train --members` trains one recipe several times and joins the runs; `ensemble` joins trained ones."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Unpack

import pandas as pd

from tumortrace.cohorts.cohort import READING, Cohort, ReadingOptions
from tumortrace.cohorts.seen import write_seen
from tumortrace.errors import RecipeError, RunError
from tumortrace.images.preprocessing import Preprocessing
from tumortrace.models.architecture import build_network, count_parameters
from tumortrace.models.bundle import Model, load_model
from tumortrace.models.description import Architecture, ModelInfo
from tumortrace.records.command import command_line
from tumortrace.records.files import write_text
from tumortrace.records.run import Arguments, Member, Run, RunRecord, create_run
from tumortrace.records.tables import HISTORY, SPLITS
from tumortrace.training.experiment import Experiment, describe_data, describe_machine, read_recipe, take_up
from tumortrace.training.finish import finish
from tumortrace.training.recipe import Recipe, choose_recipe
from tumortrace.training.train import fit_part

VERB = "ensemble"
#: Steps that a network cannot do for itself, because they work on whole uint8 patches.
PREPARED = ("crop", "stain", "equalisation", "super_resolution")


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
    **reading: Unpack[ReadingOptions],
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
        raise RunError(f"--members {members}", expected="at least 2", remedy="leave --members out for a single network")
    chosen, changes = choose_recipe(recipe, changes, epochs, weights)
    if chosen.takes_features:
        raise RecipeError(f"--members with recipe {chosen.name}", expected="a recipe for images", remedy="leave it out")
    experiment = Experiment.begin(
        VERB,
        data,
        chosen,
        reading,
        name=VERB,
        out=out,
        split=split,
        allow=allow,
        recipe=chosen.name,
        set=changes,
        members=members,
        seed=seed,
        split_seed=split_seed,
        device=device,
        precision=precision,
        distil=None if distil is None else str(Path(distil).resolve()),
    )
    write_text(_member_recipe(experiment.run), chosen.to_yaml())
    SPLITS.write(experiment.run.folder, experiment.splits.table)
    place = experiment.run.folder / "members"
    experiment.log(f"train: {members} members of {chosen.name}, each in a folder of its own under {place}")
    return _carry_out(experiment)


def resume_ensemble(folder: str | Path, data: str | Path | Cohort | None = None) -> Path:
    """Go on with an ensemble that was interrupted or killed: members that are finished stay, the rest is trained.

    Args:
        folder: Its run folder.
        data: Where the data are now, if they were moved; the cohort, where one was given that was opened already.

    Raises:
        RunError: The folder is no ensemble, or the data have changed since.
    """
    call = "resume_ensemble(folder, data=cohort)"
    experiment = take_up(folder, VERB, "an ensemble", data, call, recipe=lambda run: read_recipe(_member_recipe(run)))
    return Path(folder) if experiment is None else _carry_out(experiment)


def ensemble(
    runs: Sequence[str | Path], *, out: str | Path = "runs", device: str = "auto", data: Cohort | None = None
) -> Path:
    """Join trained runs into one bundle that predicts their mean probability, calibrated and evaluated as one.

    The runs must have been trained on the same data with the same splits, or an image that one has learnt from would
    calibrate or test the others.

    Args:
        runs: Run folders, at least two.
        out: Folder in which the run folder is made.
        device: "auto", "cpu", "cuda", "cuda:1" or "mps".
        data: The cohort, where `train` was given one that was opened already.

    Returns:
        The run folder.

    Raises:
        RunError: Fewer than two runs, or runs that do not fit together.
    """
    if len(runs) < 2:
        raise RunError(f"{len(runs)} run", expected="at least two runs", remedy="name more runs that `train` made")
    if len({Path(folder).resolve() for folder in runs}) < len(runs):
        raise RunError("the same run twice", expected="different runs", remedy="name each once")
    members = [Run(Path(folder)) for folder in runs]
    _require_alike(members, [load_model(member.folder).info for member in members])
    first = members[0]
    opened = Experiment.reopen(first, read_recipe(first.recipe_file), data, "ensemble(runs, data=cohort)")
    record = first.record
    given = {name: getattr(record.arguments, name) for name in ("data", "split", "seed", *READING)}
    about = RunRecord(
        verb=VERB,
        command=command_line(VERB, *runs, device=None if device == "auto" else device),
        arguments=Arguments(**given, runs=[str(member.folder.resolve()) for member in members], device=device),
        seed=record.seed,
        audit=opened.admission,
        **describe_data(opened.material, opened.splits),
        **describe_machine(),
    )
    run = create_run(Path(out), VERB, about)
    SPLITS.write(run.folder, opened.splits.table)
    return _carry_out(replace(opened, run=run))


def _carry_out(experiment: Experiment) -> Path:
    """Train the members that are asked for, and join them or those that are given."""
    arguments, run = experiment.arguments, experiment.run
    with experiment.recorded():
        members = [Run(Path(folder)) for folder in arguments.runs]
        for number in range(arguments.members or 0):
            place = run.folder / "members" / str(number + 1)
            member = fit_part(experiment, place, experiment.splits, experiment.recipe, arguments.seed + number)
            members.append(Run(member))
        return _join(experiment, members)


def _join(experiment: Experiment, members: Sequence[Run]) -> Path:
    """Make the ensemble of finished runs; what was there of it is made anew."""
    run, started = experiment.run, time.monotonic()
    models = [load_model(member.folder, device=experiment.arguments.device) for member in members]
    _require_alike(members, [model.info for model in models])
    recipe = _joint_recipe(experiment.recipe, models)
    joint = replace(experiment, recipe=recipe)
    write_text(run.recipe_file, recipe.to_yaml())
    HISTORY.write(run.folder, pd.DataFrame({"member": [model.info.name for model in models]}))
    network = build_network(recipe.model.name, models[0].info.patch_size, recipe.model.arguments, models[0].info.sides)
    for place, model in zip(network.get_submodule("body").children(), models, strict=True):
        place.load_state_dict(model.network.state_dict())
    hashes = ", ".join(model.info.weights_sha256[:12] for model in models)
    notes = list(dict.fromkeys([*members[0].record.data.notes, *experiment.admission.lines]))
    run.update(
        **describe_machine(models[0].device),
        parameters=count_parameters(network),
        weights={"origin": f"the {len(models)} members ({hashes})", "sha256": None, "seed": None},
        members=[Member(name=model.info.name, weights_sha256=model.info.weights_sha256) for model in models],
        data=run.record.data.model_copy(update={"notes": notes}),
        audit=experiment.admission,
    )
    write_seen(run.seen_file, joint.material.store, joint.cohort, joint.splits)
    headline = finish(joint, network, recipe.model, models[0].device)
    seconds = time.monotonic() - started
    if experiment.arguments.members:  # which were trained for it
        seconds += sum(member.record.duration_s for member in members)
    return joint.finish(seconds, [headline], epochs=0, best_epoch=0)


def _require_alike(members: Sequence[Run], infos: Sequence[ModelInfo]) -> None:
    first, records = infos[0], [member.record for member in members]
    splits = [SPLITS.read(member.folder).sort_values("id").reset_index(drop=True) for member in members]
    for member, record, info, table in zip(members[1:], records[1:], infos[1:], splits[1:], strict=True):
        same = {
            "trained on other data": record.data.same(records[0].data),
            "split otherwise": table.equals(splits[0]),
            "made for other classes": info.classes == first.classes and _names(info) == _names(first),
            "made for patches of another size": info.patch_size == first.patch_size,
            "given differently prepared images": _prepared(info.preprocessing) == _prepared(first.preprocessing)
            or not (info.preprocessing.prepares or first.preprocessing.prepares),
        }
        reasons = [reason for reason, fits in same.items() if not fits]
        if reasons:
            raise RunError(
                f"{reasons[0]} than {members[0].folder.name}",
                where=member.folder,
                expected="runs on the same data with the same splits",
                remedy="train them on the same data with the same --split-seed, as `train --members` does",
            )


def _names(info: ModelInfo) -> tuple[str, ...]:
    return () if info.several is None else info.several.names


def _prepared(steps: Preprocessing) -> dict[str, object]:
    return steps.model_dump(include=set(PREPARED))


def _joint_recipe(first: Recipe, models: Sequence[Model]) -> Recipe:
    """The first member's recipe around all the networks; steps on whole patches are done before them."""
    outer = Preprocessing()
    if models[0].info.preprocessing.prepares:
        outer = Preprocessing.model_validate(_prepared(models[0].info.preprocessing))
    parts = [
        {
            "name": model.info.architecture.name,
            "arguments": model.info.architecture.arguments,
            "preprocessing": model.info.preprocessing.model_dump(
                mode="json", exclude=set(PREPARED) if outer.prepares else set()
            ),
        }
        for model in models
    ]
    return first.model_copy(
        update={
            "name": "ensemble",
            "description": f"Mean of {len(models)} networks: " + ", ".join(model.info.name for model in models),
            "source": "own",
            "published": {},
            "corrected": [],
            "preprocessing": outer,
            "model": Architecture(name="ensemble", arguments={"members": parts}),
            "probe": None,
            "learner": None,
            "symmetries": any(model.info.symmetries for model in models),
        }
    )


def _member_recipe(run: Run) -> Path:
    """What the members are trained by; of `ensemble`, what the first of its runs was."""
    runs = run.record.arguments.runs
    return Run(Path(runs[0])).recipe_file if runs else run.folder / "members" / run.recipe_file.name
