"""What a run writes down about itself: its data, its command, its device, how it ended."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from tumortrace.cohorts.cohort import Cohort
from tumortrace.cohorts.layouts import READING, Reading
from tumortrace.cohorts.splits import Splits
from tumortrace.errors import RunError, TumorTraceError
from tumortrace.records.progress import say
from tumortrace.records.provenance import machine
from tumortrace.records.run import Run, now


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


def data_arguments(data: str | Path | Cohort, allow: Sequence[str], reading: Reading) -> dict[str, Any]:
    """Arguments of a run that name its data: where they lie, what is allowed of them, every option of `open_cohort`.

    `data` is None for an opened cohort, which whoever resumes has to give again.

    Example:
        >>> data_arguments("slides", ["blank"], {"resolution": 0.5})["resolution"]
        0.5
    """
    where = None if isinstance(data, Cohort) else str(data)
    return {"data": where, "allow": list(allow), **dict.fromkeys(READING), **reading}


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
