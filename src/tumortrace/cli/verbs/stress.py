"""`tumortrace stress`: a trained model under what happens in laboratories."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from tumortrace.cli.app import NO_OPTIONS, DataOptions, Out, Seed, app


@app.command
def stress(
    run: Path,
    data: str,
    *,
    images: int = 500,
    corruption: Annotated[list[str] | None, Parameter(negative="")] = None,
    out: Out = None,
    seed: Seed = 0,
    device: str = "auto",
    options: DataOptions = NO_OPTIONS,
) -> None:
    """Measure a trained model on unseen images after stain, scanner, focus, JPEG, folds and more, at five strengths.

    The same command again goes on after an interruption.

    Args:
        run: Run folder or bundle.
        data: Any known layout with labels.
        images: How many images, drawn at random from those that the run has not used.
        corruption: Only this one, as in `stain-hue`; may be given several times.
        out: Folder to write; default `stress` in the run folder.
        seed: Of the choice of images and of what is drawn for each.
        device: `auto`, `cpu`, `cuda`, `cuda:1` or `mps`.
    """
    from tumortrace.inference.stress import stress

    print(
        stress(
            run,
            data,
            images=images,
            corruptions=corruption or (),
            out=out,
            seed=seed,
            device=device,
            **asdict(options),
        )
    )
