"""`tumortrace explain`: what the model looked at, and whether to believe it."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from tumortrace.cli.app import NO_OPTIONS, DataOptions, Out, Seed, app


@app.command
def explain(
    run: Path,
    /,
    *images: str,
    method: Annotated[list[str] | None, Parameter(negative="")] = None,
    sheet: Annotated[bool, Parameter(negative="")] = False,
    measure: Annotated[bool, Parameter(negative="")] = False,
    count: int | None = None,
    seed: Seed = 0,
    out: Out = None,
    device: str = "auto",
    options: DataOptions = NO_OPTIONS,
) -> None:
    """Draw what the model looked at in each image; with `--sheet` or `--measure`, in a whole data set.

    Args:
        run: Run folder or bundle.
        images: Images to explain; with `--sheet` or `--measure` one data set that the model has not seen, for
            `--measure` synthetic tissue where none is named.
        method: `grad-cam` (default), `grad-cam++`, `layer-cam`, `integrated-gradients` or `occlusion`; may be repeated.
            `--measure` takes all by default.
        sheet: Draw the most confident right and wrong predictions of each class on contact sheets.
        measure: Measure whether the heat maps can be believed: against masks where the data have some, by deletion
            and insertion, and with random weights.
        count: Images of each kind on a sheet (8), or images to measure (64).
        seed: With `--measure`, of random orders and weights.
        out: Folder to write; default `explanations` in the run folder.
        device: `auto`, `cpu`, `cuda`, `cuda:1` or `mps`.
    """
    from tumortrace.errors import RunError

    if sheet and measure:
        raise RunError("--sheet and --measure together", remedy="call explain twice")
    if not (sheet or measure):
        from tumortrace.inference.explain import explain

        if not images:
            raise RunError("no image to explain", expected="one or more images, or --sheet DATA, or --measure")
        print(explain(run, images, methods=method or ("grad-cam",), out=out, device=device))
        return
    if len(images) != (1 if sheet else min(len(images), 1)):
        raise RunError(f"{len(images)} data sets", expected="one", remedy="name one folder or table of labelled images")
    reading = asdict(options)
    if sheet:
        from tumortrace.inference.explain import draw_sheets

        chosen = method or ["grad-cam"]
        if len(chosen) > 1:
            raise RunError(f"{len(chosen)} methods for a sheet", expected="one", remedy="draw a sheet for each")
        print(draw_sheets(run, images[0], method=chosen[0], count=count, out=out, device=device, **reading))
        return
    from tumortrace.inference.explain import measure as measure_maps

    print(measure_maps(run, *images, methods=method, images=count, seed=seed, out=out, device=device, **reading))
