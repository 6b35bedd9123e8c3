"""`tumortrace check`: audit a data set."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
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
    probe: bool = False,
    run: Path | None = None,
    options: DataOptions = NO_OPTIONS,
) -> int:
    """Say what is wrong with a data set, file by file; exit code 1 when there are errors.

    Args:
        data: Any known layout.
        out: Folder for audit.json, audit.html and quarantine.csv; default `check-<name>`.
        split: The splits to look at: by slide or patient, or at random.
        seed: Seed of the splits.
        probe: Train cheap classifiers that ought to fail: on shuffled labels, on files' names and sizes, on the outer
            ring of the images; and tell what they reach.
        run: Folder of a cross-validation of these data: rank the labels that it contradicts, into second_look.csv.
        strict: Warnings fail too, for continuous integration.
    """
    from tumortrace.cli.check import check

    return check(data, out=out, split=split, seed=seed, strict=strict, probe=probe, run=run, **asdict(options))
