"""`tumortrace check`: audit a data set."""

from __future__ import annotations

from dataclasses import asdict
from typing import Literal

from tumortrace.cli.app import NO_OPTIONS, DataOptions, Out, Seed, app


@app.command
def check(
    data: str,
    *,
    out: Out = None,
    split: Literal["group", "random"] = "group",
    seed: Seed = 0,
    strict: bool = False,
    options: DataOptions = NO_OPTIONS,
) -> int:
    """Say what is wrong with a data set, file by file; exit code 1 when there are errors.

    Args:
        data: Any known layout.
        out: Folder for audit.json, audit.html and quarantine.csv; default `check-<name>`.
        split: The splits to look at: by slide or patient, or at random.
        seed: Seed of the splits.
        strict: Warnings fail too, for continuous integration.
    """
    from tumortrace.cli.check import check

    return check(data, out=out, split=split, seed=seed, strict=strict, **asdict(options))
