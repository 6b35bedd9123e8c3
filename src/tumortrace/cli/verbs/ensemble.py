"""`tumortrace ensemble`: several runs as one model."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from tumortrace.cli.app import app


@app.command
def ensemble(
    runs: list[Path],
    /,
    *,
    out: Annotated[Path, Parameter(name=["--out", "-o"])] = Path("runs"),
    device: str = "auto",
) -> None:
    """Join runs on the same data and splits into one model that predicts their mean, calibrated as one.

    Args:
        runs: Run folders, at least two.
        out: Folder in which the run folder is made.
        device: `auto`, `cpu`, `cuda`, `cuda:1` or `mps`.
    """
    from tumortrace.training.ensemble import ensemble

    print(ensemble(runs, out=out, device=device))
