"""The verb `train`: from data and a recipe to a finished run folder."""

from __future__ import annotations

import shlex
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch

from tumortrace.cohorts.cohort import Cohort
from tumortrace.cohorts.layouts import open_cohort
from tumortrace.cohorts.seen import write_seen
from tumortrace.cohorts.splits import Splits, assign_splits, read_splits
from tumortrace.cohorts.store import PatchStore, open_store
from tumortrace.errors import RunError, SplitError, TumorTraceError
from tumortrace.models.architecture import count_parameters
from tumortrace.reports.report import REPORT, write_model_card, write_report
from tumortrace.runs.files import write_csv, write_text
from tumortrace.runs.progress import say
from tumortrace.runs.provenance import machine, versions
from tumortrace.runs.run import Run, create_run, now
from tumortrace.training.finish import finish
from tumortrace.training.fit import Patches, Trainer
from tumortrace.training.recipe import Recipe, load_recipe, parse_recipe

#: Arguments that say how to read the data.
READING = ("positive", "group_column", "group_from_name", "label_from_name", "resolution")


def train(
    data: str | Path | Cohort,
    *,
    recipe: str | Path | Recipe = "tumortrace",
    changes: Sequence[str] = (),
    epochs: int | None = None,
    out: str | Path = "runs",
    seed: int = 0,
    split: str = "group",
    device: str = "auto",
    precision: str = "auto",
    positive: str | None = None,
    group_column: str | None = None,
    group_from_name: str | None = None,
    label_from_name: str | None = None,
    resolution: float | None = None,
) -> Path:
    """Train, calibrate and evaluate a classifier; write everything about it into a new run folder.

    Args:
        data: Any known layout, or an opened cohort.
        recipe: Name of a shipped recipe, path of a YAML file, or a recipe.
        changes: `key=value` each, as `--set` takes them.
        epochs: Instead of the recipe's number of epochs.
        out: Folder in which the run folder is made.
        seed: Seed of splits, weights, order and augmentation. Two runs from one seed are identical (CPU).
        split: "group" keeps slides or patients together; "random" does not, and the report says so.
        device: "auto", "cpu", "cuda", "cuda:1" or "mps".
        precision: "auto", "32" or "bf16".
        positive: Name of the positive class, where the data do not make it plain.
        group_column: Column of a table that names slide or patient.
        group_from_name: Regular expression that finds slide or patient in a file name.
        label_from_name: Regular expression that finds the label in a file name.
        resolution: Micrometres per pixel of the images, where the data do not say; `scan` needs it.

    Returns:
        The run folder.

    Raises:
        TumorTraceError: The data, the recipe or the machine do not allow it; the message says what to do.
    """
    if split not in ("group", "random"):
        raise SplitError(f"--split {split!r}", expected="group or random", remedy="use one of these")
    options: dict[str, Any] = {
        "positive": positive,
        "group_column": group_column,
        "group_from_name": group_from_name,
        "label_from_name": label_from_name,
        "resolution": resolution,
    }
    if epochs is not None:
        changes = [*changes, f"epochs={epochs}"]
    if not isinstance(recipe, Recipe):
        recipe = load_recipe(recipe, changes)
    elif changes:
        raise RunError(
            "changes besides a finished recipe", remedy="give the recipe's name, or change the recipe itself"
        )
    cohort = open_cohort(data, **options).labelled
    splits = assign_splits(cohort, fractions=recipe.splits, seed=seed, by_group=split == "group")
    _require_both_classes(cohort, splits)
    arguments = {
        "data": None if isinstance(data, Cohort) else str(data),
        "recipe": recipe.name,
        "set": list(changes),
        "seed": seed,
        "split": split,
        "device": device,
        "precision": precision,
        **options,
    }
    record = {"verb": "train", "command": _command(arguments), "arguments": arguments, "seed": seed}
    run = create_run(Path(out), recipe.name, record | _data_record(cohort, splits))
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
    record = run.read()
    if record.get("verb") != "train":
        raise RunError(f"a run of {record.get('verb')!r}", where=run.folder, expected="a run of `train`")
    if record["status"] == "finished" and (run.folder / REPORT).is_file():  # the report is written last
        say(f"{run.folder} is finished; nothing to resume")
        return run.folder
    arguments = record["arguments"]
    if data is None:
        if arguments["data"] is None:
            raise RunError(
                "the run was given an opened cohort", where=run.folder, remedy="call resume(run, data=cohort)"
            )
        data = open_cohort(arguments["data"], **{name: arguments[name] for name in READING})
    data = data.labelled
    if data.fingerprint != record["data"]["fingerprint"]:
        raise RunError(
            "the data have changed since the run began",
            where=arguments["data"] or data.name,
            expected=f"fingerprint {record['data']['fingerprint'][:12]}",
            remedy="restore the files, or start a new run",
        )
    recipe = parse_recipe(run.recipe_file.read_text(encoding="utf-8"), str(run.recipe_file))
    splits = read_splits(run.splits_file, data, by_group=arguments["split"] == "group")
    run.update(status="running", error=None)
    return _carry_out(run, data, splits, recipe)


def _carry_out(run: Run, cohort: Cohort, splits: Splits, recipe: Recipe) -> Path:
    record = run.read()
    started = time.monotonic()
    with _recorded(run):
        store = open_store(cohort)
        trainer = Trainer(
            recipe,
            _patches(cohort, store, splits, "train"),
            _patches(cohort, store, splits, "validation"),
            checkpoints=run.checkpoints,
            history_file=run.history_file,
            seed=record["seed"],
            device=record["arguments"]["device"],
            precision=record["arguments"]["precision"],
        )
        resumed = trainer.resume()
        earlier = sum(epoch["seconds"] for epoch in trainer.progress.history)  # before a kill, whole epochs alone
        notes = [*cohort.notes, *splits.notes, *store.notes, *_unseen_margin(recipe, store.size)]
        run.update(
            tumortrace=versions()["tumortrace"],
            versions=versions(),
            machine=machine(),
            device=str(trainer.device),
            device_name=_device_name(trainer.device),
            precision=trainer.precision,
            threads=torch.get_num_threads(),
            weights={"origin": f"random initialisation, seed {record['seed']}", "sha256": None},
            parameters=count_parameters(trainer.network),
            data=record["data"] | {"notes": notes},
        )
        for note in notes:
            _log(run, f"note: {note}")
        counts = splits.table["split"].value_counts()
        where = f", resumed at epoch {trainer.progress.epoch + 1}" if resumed else ""
        _log(run, f"train: {recipe.name} on {counts['train']:,} images, leakage {splits.leakage}{where}")
        progress = trainer.fit()
        write_seen(run.folder / "seen.csv", store, cohort, splits)
        headline = finish(run, recipe, cohort, splits, store, trainer, progress)
        run.update(status="finished", finished=now(), duration_s=round(earlier + time.monotonic() - started, 1))
        write_model_card(run.folder)
        report = write_report(run.folder)
        _log(run, headline)
        _log(run, f"report: {report}")
    return run.folder


@contextmanager
def _recorded(run: Run) -> Iterator[None]:
    """Leave the run's true status in `run.json` however the work ends, short of a kill."""
    try:
        yield
    except KeyboardInterrupt:
        run.update(status="interrupted", finished=now())
        raise RunError(
            "interrupted", where=run.folder, remedy=f"continue with `tumortrace train --resume {run.folder}`"
        ) from None
    except BaseException as error:
        reason = str(error) if isinstance(error, TumorTraceError) else f"{type(error).__name__}: {error}"
        run.update(status="failed", finished=now(), error=reason)
        raise


def _unseen_margin(recipe: Recipe, size: tuple[int, int]) -> list[str]:
    """A note where the recipe's centre crop leaves most of each image unseen, as one for histology does with MRI."""
    crop = recipe.preprocessing.crop
    if crop is None or crop * crop >= 0.25 * size[0] * size[1]:
        return []
    return [
        f"recipe {recipe.name} looks at the centre {crop}x{crop} px of images of {size[1]}x{size[0]} px alone; if the "
        "label is not decided there, add --set preprocessing.crop=null --set preprocessing.size=64"
    ]


def _log(run: Run, line: str) -> None:
    say(line)
    with open(run.folder / "log.txt", "a", encoding="utf-8") as file:
        file.write(f"{now()} {line}\n")


def _patches(cohort: Cohort, store: PatchStore, splits: Splits, name: str) -> Patches:
    rows = split_rows(cohort, splits, name)
    return Patches(store.images, rows, cohort.table["label"].to_numpy(dtype=np.float32)[rows])


def split_rows(cohort: Cohort, splits: Splits, name: str) -> np.ndarray:
    """Rows of the cohort's table (and so of its patch store) that stand in split `name`; int64."""
    chosen = set(splits.table.loc[splits.table["split"] == name, "id"])
    return np.flatnonzero(cohort.table["id"].isin(chosen))


def _require_both_classes(cohort: Cohort, splits: Splits) -> None:
    labels = cohort.table.set_index("id")["label"]
    for name in ("train", "validation", "calibration"):
        ids = splits.table.loc[splits.table["split"] == name, "id"]
        found = labels.loc[ids].dropna().unique()
        if len(found) < 2:
            raise SplitError(
                f"split {name!r} holds {len(ids)} images of {len(found)} class(es)",
                where=cohort.name,
                expected="images of both classes in train, validation and calibration",
                remedy="add labelled images or groups, or give your own split column",
            )


def _data_record(cohort: Cohort, splits: Splits) -> dict[str, Any]:
    rows = splits.table.merge(cohort.table[["id", "label"]], on="id", how="left")
    shares = {
        name: {
            "images": len(part),
            "positives": int(part["label"].sum()),
            "groups": int(part["group"].nunique()) if cohort.has_groups else None,
        }
        for name, part in rows.groupby("split", sort=False)
    }
    order = [name for name in ("train", "validation", "calibration", "test") if name in shares]
    return {
        "data": {
            "name": cohort.name,
            "layout": cohort.layout,
            "fingerprint": cohort.fingerprint,
            "images": len(cohort),
            "groups": int(cohort.table["group"].nunique()) if cohort.has_groups else None,
            "classes": list(cohort.classes),
            "positive_class": cohort.positive_class,
            "resolution": cohort.resolution,
            "notes": list(cohort.notes),
            "splits": {name: shares[name] for name in order},
        },
        "leakage": splits.leakage,
    }


def _command(arguments: dict[str, Any]) -> str:
    words = ["tumortrace", "train", arguments["data"] or "COHORT", "--recipe", arguments["recipe"]]
    for change in arguments["set"]:
        words += ["--set", change]
    for name in (
        "seed",
        "split",
        "device",
        "precision",
        *READING,
    ):
        if arguments[name] is not None:
            words += [f"--{name.replace('_', '-')}", str(arguments[name])]
    return shlex.join(words)


def _device_name(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else machine()
