"""What a run writes down about itself: its data, its command, its device, how it ended."""

from __future__ import annotations

import shlex
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from tumortrace.cohorts.audit import Audit, check, refuse
from tumortrace.cohorts.cohort import READING, Cohort, Source
from tumortrace.cohorts.copies import exact_copies
from tumortrace.cohorts.layouts import open_cohort
from tumortrace.cohorts.splits import Splits, assign_splits
from tumortrace.cohorts.store import open_store
from tumortrace.errors import RecipeError, RunError, SplitError, TumorTraceError
from tumortrace.evaluation.thresholds import require_enough
from tumortrace.records.progress import say
from tumortrace.records.provenance import machine
from tumortrace.records.run import Run, now
from tumortrace.reports.page import REPORT
from tumortrace.training.recipe import Recipe


@contextmanager
def recorded(run: Run, verb: str = "train") -> Iterator[None]:
    """Leave the run's true status in `run.json` however the work ends, short of a kill.

    `verb` is the one whose `--resume` goes on with it.
    """
    try:
        yield
    except BaseException as error:
        # the record of a run within this one turns the keyboard's interrupt into a RunError of that name
        if isinstance(error, KeyboardInterrupt) or getattr(error, "found", None) == "interrupted":
            run.update(status="interrupted", finished=now())
            remedy = f"continue with `tumortrace {verb} --resume {run.folder}`"
            raise RunError("interrupted", where=run.folder, remedy=remedy) from None
        reason = str(error) if isinstance(error, TumorTraceError) else f"{type(error).__name__}: {error}"
        run.update(status="failed", finished=now(), error=reason)
        raise


def log(run: Run, line: str) -> None:
    """Say a line and keep it in the run's `log.txt`."""
    say(line)
    with open(run.folder / "log.txt", "a", encoding="utf-8") as file:
        file.write(f"{now()} {line}\n")


def data_arguments(cohort: Cohort, allow: Sequence[str]) -> dict[str, Any]:
    """Arguments of a run that name its data: where they lie, what is allowed of them, every option of reading.

    `data` is None for a cohort without a source, which whoever resumes has to give again.
    """
    source = cohort.source.arguments() if cohort.source else {"data": None, **dict.fromkeys(READING)}
    return {**source, "allow": list(allow)}


def data_record(cohort: Cohort, splits: Splits) -> dict[str, Any]:
    """Fields `data` and `leakage` of `run.json`."""
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
            "notes": [*cohort.notes, *splits.notes],
            "splits": {name: shares[name] for name in order},
        },
        "leakage": splits.leakage,
    }


def command(arguments: dict[str, Any]) -> str:
    """The command line that the arguments of `train` stand for."""
    words = ["tumortrace", "train", arguments["data"] or "COHORT", "--recipe", arguments["recipe"]]
    for change in arguments["set"]:
        words += ["--set", change]
    for name in arguments.get("allow", []):
        words += ["--allow", name]
    for name in ("members", "seed", "split_seed", "split", "device", "precision", "distil", *READING):
        if arguments.get(name) is not None:
            words += [f"--{name.replace('_', '-')}", str(arguments[name])]
    return shlex.join(words)


def device_name(device: torch.device) -> str:
    """Name of the GPU, or of the machine."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else machine()


# A run that goes on: whether anything is left to do, and its data, which must be those that it began with.


def is_finished(run: Run) -> bool:
    """Whether nothing is left to do: the report is written last."""
    return run.read().get("status") == "finished" and (run.folder / REPORT).is_file()


def left_to_do(run: Run, verb: str, called: str) -> bool:
    """Whether a run can go on; a line says so where it is finished.

    Args:
        run: The run.
        verb: Which it must be of.
        called: That in words, as in "a run of `train`".

    Raises:
        RunError: It is of another verb.
    """
    record = run.read()
    if record.get("verb") != verb:
        found, remedy = f"a run of {record.get('verb')!r}", _other(record, run)
        raise RunError(found, where=run.folder, expected=called, remedy=remedy)
    finished = is_finished(run)
    if finished:
        say(f"{run.folder} is finished; nothing to resume")
    return not finished


def reopened(run: Run, recipe: Recipe, data: Cohort | None, call: str) -> Cohort:
    """The labelled images that a run began with, those that the recipe leaves out with them.

    Args:
        run: The run.
        recipe: Its recipe.
        data: The cohort, where the run was given one that was opened already.
        call: How to give it, for the message.

    Raises:
        RunError: The cohort was not given, or the data have changed since.
    """
    record = run.read()
    arguments = record["arguments"]
    if data is None:
        source = Source.recorded(arguments)
        if source is None:
            raise RunError("it was given an opened cohort", where=run.folder, remedy=f"call {call}")
        data = open_cohort(source)
    if without(data.labelled, recipe).fingerprint != record["data"]["fingerprint"]:
        raise RunError(
            "the data have changed since the run began",
            where=arguments["data"] or data.name,
            expected=f"fingerprint {record['data']['fingerprint'][:12]}",
            remedy="restore the files, or start anew",
        )
    return data.labelled


def _other(record: dict[str, Any], run: Run) -> str | None:
    verb = {"learning-curve": "train", "ensemble": "train"}.get(record.get("verb", ""), record.get("verb", ""))
    return f"`tumortrace {verb} --resume {run.folder}`" if verb in ("train", "crossval", "tune") else None


# Images that a recipe leaves out.


def without(cohort: Cohort, recipe: Recipe) -> Cohort:
    """The cohort without the images that the recipe leaves out; a note says how many.

    Raises:
        RecipeError: The list cannot be read.
    """
    if recipe.leave_out is None:
        return cohort
    try:
        listed = set(pd.read_csv(recipe.leave_out, dtype=str)["id"])
    except (OSError, ValueError, KeyError) as error:
        raise RecipeError(
            f"not readable as a list of ids ({error})",
            where=recipe.leave_out,
            expected="a CSV file with a column id",
            remedy="mend leave_out in the recipe",
        ) from error
    kept = cohort.where(~cohort.table["id"].isin(listed))
    note = f"{len(cohort) - len(kept):,} of {len(cohort):,} images are left out, as {Path(recipe.leave_out).name} says"
    return replace(kept, notes=(*kept.notes, note), source=cohort.source)


# Before anything is trained: splits that keep copies together, and data in which nothing stands against them.


def looks_and_copies(cohort: Cohort) -> tuple[pd.DataFrame, dict[str, str]]:
    """What is seen of the cohort's images, decoded where they are not yet, and which of them have copies."""
    looks = open_store(cohort).looks
    return looks, exact_copies(cohort.table["id"], looks)


def divided(
    cohort: Cohort, split: str, seed: int, fractions: Mapping[str, float] | None
) -> tuple[Splits, pd.DataFrame]:
    """The cohort's splits, copies kept together, and what was seen of its images.

    Args:
        cohort: Labelled images.
        split: "group" keeps slides or patients together, "random" does not.
        seed: Of the division.
        fractions: As for `assign_splits`.

    Raises:
        DataError: It cannot be divided; where the table alone shows that, no image is decoded.
    """
    if split not in ("group", "random"):
        raise SplitError(f"--split {split!r}", expected="group or random", remedy="use one of these")
    by_group = split == "group"
    assign_splits(cohort, fractions=fractions, seed=seed, by_group=by_group)
    looks, copies = looks_and_copies(cohort)
    return assign_splits(cohort, fractions=fractions, seed=seed, by_group=by_group, copies=copies), looks


def admit(
    cohort: Cohort,
    splits: Splits,
    *,
    looks: pd.DataFrame,
    split: str,
    allow: Collection[str] = (),
    policies: Collection[str] = (),
) -> tuple[Audit, tuple[str, ...]]:
    """Refuse data that would make results wrong.

    Args:
        cohort: Labelled images.
        splits: Their splits.
        looks: What decoding showed of them.
        split: "random" allows its own leakage.
        allow: Findings of `check` to pass over.
        policies: Threshold policies, whose confidence the calibration split must be large enough for.

    Returns:
        The audit, and which of its errors were allowed.

    Raises:
        TumorTraceError: A split lacks a class, calibration is too small, or `check` finds an error not allowed.
    """
    _require_both_classes(cohort, splits)
    for policy in policies:
        _require_enough_calibration(cohort, splits, policy)
    audit = check(cohort, splits=splits, quick=True, looks=looks)
    return audit, refuse(audit, [*allow, *(["groups-across-splits"] if split == "random" else [])])


def _require_both_classes(cohort: Cohort, splits: Splits) -> None:
    """Refuse splits to learn from or calibrate on that lack a class."""
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


def _require_enough_calibration(cohort: Cohort, splits: Splits, policy: str) -> None:
    """Refuse, before training, a threshold policy whose confidence the calibration split is too small to reach."""
    ids = splits.table.loc[splits.table["split"] == "calibration", "id"]
    labels = cohort.table.set_index("id")["label"].loc[ids]
    positives = int(labels.sum())
    require_enough(policy, int(labels.notna().sum()) - positives, positives, where=f"{cohort.name}, calibration split")
