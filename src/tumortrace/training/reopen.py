"""A run that goes on: whether anything is left to do, and its data, which must be those that it began with."""

from __future__ import annotations

from typing import Any

from tumortrace.cohorts.cohort import Cohort
from tumortrace.cohorts.layouts import READING, open_cohort
from tumortrace.errors import RunError
from tumortrace.records.progress import say
from tumortrace.records.run import Run
from tumortrace.reports.report import REPORT
from tumortrace.training.leave_out import without
from tumortrace.training.recipe import Recipe


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
        if arguments["data"] is None:
            raise RunError("it was given an opened cohort", where=run.folder, remedy=f"call {call}")
        data = open_cohort(arguments["data"], **{name: arguments[name] for name in READING})
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
