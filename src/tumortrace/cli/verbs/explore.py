"""`tumortrace explore`: a report to look at before training."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

from cyclopts import Parameter, validators

from tumortrace.cli.app import NO_OPTIONS, DataOptions, Out, Seed, app


@app.command
def explore(
    data: str,
    *,
    recipe: str = "tumortrace",
    sample: Annotated[int, Parameter(validator=validators.Number(gte=1))] = 2000,
    audit: Annotated[bool, Parameter(name="--check")] = True,
    out: Out = None,
    seed: Seed = 0,
    options: DataOptions = NO_OPTIONS,
) -> None:
    """Look at a data set before training on it: one page with figures, and the numbers behind it.

    Args:
        data: Any known layout, or `synthetic:patches`, `synthetic:mri`.
        recipe: Recipe whose augmentation is shown: a shipped recipe's name, or the path of a YAML file.
        sample: Number of images to measure, drawn at random by class; counts are of all images.
        audit: Run `check` as well and show what it finds.
        out: Folder to write; default `explore-<name>`.
        seed: Seed of the sample and of the augmentation.
    """
    from tumortrace.preparation.explore import explore
    from tumortrace.training.recipe import load_recipe

    chosen = load_recipe(recipe)
    folder = explore(
        data,
        out=out,
        sample=sample,
        seed=seed,
        preprocessing=chosen.preprocessing,
        augmentation=chosen.augmentation,
        recipe=chosen.name,
        audit=audit,
        **asdict(options),
    )
    print(folder)
