"""`tumortrace demo`: everything on generated tissue."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from tumortrace.cli.app import Seed, app


@app.command
def demo(
    *,
    out: Annotated[Path, Parameter(name=["--out", "-o"])] = Path("tumortrace-demo"),
    seed: Seed = 0,
    quick: bool = False,
) -> None:
    """Go through everything on tissue that is generated here, in a few minutes.

    Args:
        out: Folder for the data and the run.
        seed: Seed of tissue, splits and training.
        quick: Fewer images and epochs: under a minute, and a weaker model.
    """
    from tumortrace.cli.demo import demo

    demo(out, seed=seed, quick=quick)
