"""The verb `ensemble`: several trained runs as one bundle, calibrated as one."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Unpack

import pandas as pd

from tumortrace.cohorts.cohort import READING, Cohort, ReadingOptions, Source
from tumortrace.cohorts.layouts import open_cohort, refuse_within
from tumortrace.cohorts.seen import write_seen
from tumortrace.cohorts.splits import Splits, read_splits
from tumortrace.cohorts.store import open_store
from tumortrace.errors import RunError
from tumortrace.images.preprocessing import Preprocessing
from tumortrace.models.architecture import build_network, count_parameters
from tumortrace.models.bundle import Model, load_model
from tumortrace.models.description import Architecture, ModelInfo
from tumortrace.records.command import command_line
from tumortrace.records.files import write_csv, write_text
from tumortrace.records.output import require_folder
from tumortrace.records.provenance import machine, versions
from tumortrace.records.run import Run, create_run, now
from tumortrace.training.experiment import (
    admit,
    command,
    data_arguments,
    data_record,
    device_name,
    divided,
    left_to_do,
    log,
    recorded,
    reopened,
    without,
)
from tumortrace.training.finish import Fitted, finish
from tumortrace.training.part import train_part
from tumortrace.training.recipe import Recipe, chosen_recipe, parse_recipe
from tumortrace.training.train import prepare_store, write_reports

VERB = "ensemble"
#: Steps that a network cannot do for itself, because they work on whole uint8 patches.
PREPARED = ("crop", "stain", "equalisation", "super_resolution")


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
    records = [member.read() for member in members]
    _require_alike(members, records, [load_model(member.folder).info for member in members])
    arguments = records[0]["arguments"]
    if data is None:
        source = Source.recorded(arguments)
        if source is None:
            raise RunError("the runs were given an opened cohort", remedy="call ensemble(runs, data=cohort)")
        data = open_cohort(source)
    first = members[0].recipe_file
    cohort = without(data.labelled, parse_recipe(first.read_text(encoding="utf-8"), str(first)))
    if cohort.fingerprint != records[0]["data"]["fingerprint"]:
        raise RunError("the data have changed since the runs were made", where=cohort.name, remedy="restore the files")
    splits = read_splits(members[0].splits_file, cohort, by_group=arguments["split"] == "group")
    kept = {name: arguments[name] for name in ("data", "split", "seed", *READING)}
    record = {
        "verb": VERB,
        "command": command_line("ensemble", *(member.folder for member in members)),
        "arguments": {**kept, "runs": [str(member.folder) for member in members], "device": device},
        "seed": records[0]["seed"],
    }
    run = create_run(Path(out), VERB, record | data_record(cohort, splits))
    write_csv(run.splits_file, splits.table)
    return join(run, members, cohort, splits)


def join(run: Run, members: Sequence[Run], cohort: Cohort, splits: Splits) -> Path:
    """Make the ensemble of finished runs in a run folder that has been begun; what was there of it is made anew.

    Args:
        run: The ensemble's run; its arguments name the device.
        members: The runs.
        cohort: Their labelled images.
        splits: Their splits.

    Returns:
        The run folder.

    Raises:
        RunError: The runs do not fit together.
    """
    started = time.monotonic()
    with recorded(run):
        records = [member.read() for member in members]
        models = [load_model(member.folder, device=run.read()["arguments"]["device"]) for member in members]
        _require_alike(members, records, [model.info for model in models])
        recipe = _recipe(members, models)
        write_text(run.recipe_file, recipe.to_yaml())
        write_csv(run.history_file, pd.DataFrame({"member": [m.info.name for m in models]}))
        store = open_store(cohort)
        prepared = prepare_store(store, recipe.preprocessing)
        network = build_network(recipe.model.name, models[0].info.patch_size, recipe.model.arguments)
        for place, model in zip(network.get_submodule("body").children(), models, strict=True):
            place.load_state_dict(model.network.state_dict())
        hashes = ", ".join(model.info.weights_sha256[:12] for model in models)
        run.update(
            tumortrace=versions()["tumortrace"],
            versions=versions(),
            machine=machine(),
            device=str(models[0].device),
            device_name=device_name(models[0].device),
            weights={"origin": f"the {len(models)} members ({hashes})", "sha256": None, "seed": None},
            parameters=count_parameters(network),
            members=[{"name": m.info.name, "weights_sha256": m.info.weights_sha256} for m in models],
            data=run.read()["data"] | {"notes": records[0]["data"]["notes"]},
            audit=records[0].get("audit"),
        )
        write_seen(run.folder / "seen.csv", store, cohort, splits)
        fitted = Fitted(network, recipe.model, models[0].device)
        headline = finish(run, recipe, cohort, splits, store, prepared.images, fitted)
        own = time.monotonic() - started
        if "members" in run.read()["arguments"]:  # which were trained for it
            own += sum(record["duration_s"] for record in records)
        run.update(status="finished", finished=now(), duration_s=round(own, 1))
        write_reports(run, headline)
    return run.folder


def _require_alike(members: Sequence[Run], records: list[dict[str, Any]], infos: list[ModelInfo]) -> None:
    first = infos[0]
    splits = [pd.read_csv(member.splits_file, dtype=str).sort_values("id").reset_index(drop=True) for member in members]
    for member, record, info, table in zip(members[1:], records[1:], infos[1:], splits[1:], strict=True):
        same = {
            "trained on other data": record["data"]["fingerprint"] == records[0]["data"]["fingerprint"],
            "split otherwise": table.equals(splits[0]),
            "made for other classes": info.classes == first.classes,
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


def _prepared(steps: Preprocessing) -> dict[str, Any]:
    return steps.model_dump(include=set(PREPARED))


def _recipe(members: Sequence[Run], models: list[Model]) -> Recipe:
    """The first member's recipe around all the networks; steps on whole patches are done before them."""
    first = parse_recipe(members[0].recipe_file.read_text(encoding="utf-8"), str(members[0].recipe_file))
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


# The verb `train --members`: one recipe trained several times, and the runs joined in an ensemble.


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
        raise RunError(f"{members} member(s)", expected="at least 2", remedy="leave --members out for a single network")
    chosen, changes = chosen_recipe(recipe, changes, epochs, weights)
    require_folder(Path(out))
    opened = open_cohort(data, **reading).labelled
    refuse_within(Path(out), opened)
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
        **data_arguments(opened, allow),
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
