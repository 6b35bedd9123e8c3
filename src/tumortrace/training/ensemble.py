"""The verb `ensemble`: several trained runs as one bundle, calibrated as one."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from tumortrace.cohorts.cohort import Cohort
from tumortrace.cohorts.layouts import READING, open_cohort
from tumortrace.cohorts.seen import write_seen
from tumortrace.cohorts.splits import read_splits
from tumortrace.cohorts.store import open_store
from tumortrace.errors import RunError
from tumortrace.imaging.preprocessing import Preprocessing
from tumortrace.models.architecture import build_network, count_parameters
from tumortrace.models.bundle import Model, load_model
from tumortrace.models.description import Architecture
from tumortrace.runs.files import write_csv, write_text
from tumortrace.runs.provenance import machine, versions
from tumortrace.runs.run import Run, create_run, now
from tumortrace.training.finish import Fitted, finish
from tumortrace.training.recipe import Recipe, parse_recipe
from tumortrace.training.record import data_record, device_name, recorded
from tumortrace.training.train import prepare_store, train, write_reports

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
    members = [Run(Path(folder)) for folder in runs]
    records = [member.read() for member in members]
    models = [load_model(member.folder, device=device) for member in members]
    _require_alike(members, records, models)
    arguments = records[0]["arguments"]
    if data is None:
        if arguments["data"] is None:
            raise RunError("the runs were given an opened cohort", remedy="call ensemble(runs, data=cohort)")
        data = open_cohort(arguments["data"], **{name: arguments[name] for name in READING})
    cohort = data.labelled
    if cohort.fingerprint != records[0]["data"]["fingerprint"]:
        raise RunError("the data have changed since the runs were made", where=cohort.name, remedy="restore the files")
    splits = read_splits(members[0].splits_file, cohort, by_group=arguments["split"] == "group")
    recipe = _recipe(members, models)
    kept = {name: arguments[name] for name in ("data", "split", "seed", *READING)}
    record = {
        "verb": "ensemble",
        "command": "tumortrace ensemble " + " ".join(str(member.folder) for member in members),
        "arguments": {**kept, "runs": [str(member.folder) for member in members], "device": device},
        "seed": records[0]["seed"],
    }
    run = create_run(Path(out), "ensemble", record | data_record(cohort, splits))
    started = time.monotonic()
    with recorded(run):
        write_text(run.recipe_file, recipe.to_yaml())
        write_csv(run.splits_file, splits.table)
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
        )
        write_seen(run.folder / "seen.csv", store, cohort, splits)
        fitted = Fitted(network, recipe.model, models[0].device)
        headline = finish(run, recipe, cohort, splits, store, prepared.images, fitted)
        run.update(status="finished", finished=now(), duration_s=round(time.monotonic() - started, 1))
        write_reports(run, headline)
    return run.folder


def train_members(data: str | Path | Cohort, members: int, *, seed: int = 0, **options: Any) -> Path:
    """Train a recipe several times, from different weights on the same splits, and join the runs.

    Args:
        data: As for `train`.
        members: How many, at least two; they have the seeds `seed`, `seed` + 1 and so on.
        seed: Of the first member, and of the splits unless `split_seed` is given.
        options: As for `train`.

    Returns:
        The ensemble's run folder; the members' lie beside it.
    """
    if members < 2:
        raise RunError(f"{members} member(s)", expected="at least 2", remedy="leave --members out for a single network")
    options["split_seed"] = seed if options.get("split_seed") is None else options["split_seed"]
    runs = [train(data, seed=seed + member, **options) for member in range(members)]
    cohort = data if isinstance(data, Cohort) else None
    return ensemble(runs, out=options.get("out", "runs"), device=options.get("device", "auto"), data=cohort)


def _require_alike(members: list[Run], records: list[dict[str, Any]], models: list[Model]) -> None:
    first = models[0].info
    splits = [pd.read_csv(member.splits_file, dtype=str).sort_values("id").reset_index(drop=True) for member in members]
    for member, record, model, table in zip(members[1:], records[1:], models[1:], splits[1:], strict=True):
        info = model.info
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


def _recipe(members: list[Run], models: list[Model]) -> Recipe:
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
