"""`tumortrace prepare`: images cropped, normalised and enlarged once, on disk."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any, Literal

from cyclopts import Parameter, validators

from tumortrace.cli.app import NO_OPTIONS, DataOptions, Seed, app


@app.command
def prepare(
    data: str,
    out: Path,
    *,
    recipe: str | None = None,
    crop: int | None = None,
    stain: Literal["none", "macenko", "vahadane", "reinhard"] | None = None,
    equalisation: Literal["none", "histogram", "clahe"] | None = None,
    super_resolution: str | None = None,
    scale: int | None = None,
    size: int | None = None,
    filter: Literal["nearest", "bilinear", "bicubic", "lanczos"] | None = None,
    before_after: Annotated[int, Parameter(validator=validators.Number(gte=0))] = 4,
    seed: Seed = 0,
    device: str = "auto",
    options: DataOptions = NO_OPTIONS,
) -> None:
    """Crop, normalise the stain, equalise, super-resolve and resize images once; the result is a data set again.

    A call that was interrupted is taken up where it stopped when it is made again.

    Args:
        data: Any known layout, or `synthetic:patches`, `synthetic:mri`.
        out: Folder to write.
        recipe: Take the steps from a recipe's preprocessing instead of the options below.
        crop: Side of the centre square that is kept, in pixels.
        stain: Stain normalisation to a fixed reference.
        equalisation: Equalisation of lightness.
        super_resolution: `lanczos`, `learn` (a generator, on the training images), or the file of a generator.
        scale: How many times super-resolution enlarges; 4 unless given.
        size: Side to which the result is resized, in pixels.
        filter: Interpolation of that resize; bilinear unless given.
        before_after: Images in the picture before_after.png.
        seed: Seed of a learnt generator, and of the splits it needs where the data have none.
        device: Where a generator computes: `auto`, `cpu`, `cuda`, `cuda:1` or `mps`.
    """
    from tumortrace.preparation.prepare import prepare

    given = {"crop": crop, "stain": stain, "equalisation": equalisation, "size": size, "filter": filter}
    steps: dict[str, Any] = {name: value for name, value in given.items() if value is not None}
    learn = super_resolution == "learn"
    if super_resolution is not None:
        weights = None if super_resolution in ("lanczos", "learn") else super_resolution
        steps["super_resolution"] = {"scale": 4 if scale is None else scale, "weights": weights}
    preprocessing = _preprocessing(recipe, steps, scale is not None and super_resolution is None)
    prepare(
        data,
        out,
        preprocessing,
        learn=learn,
        before_after=before_after,
        seed=seed,
        device=device,
        **asdict(options),
    )
    print(out)


def _preprocessing(recipe: str | None, steps: dict[str, Any], scale_alone: bool) -> Any:
    from pydantic import ValidationError

    from tumortrace.errors import RecipeError
    from tumortrace.images.preprocessing import Preprocessing
    from tumortrace.training.recipe import load_recipe

    if scale_alone:
        raise RecipeError("--scale without --super-resolution", expected="both", remedy="name lanczos, learn or a file")
    if recipe is not None:
        if steps:
            found = "--recipe and " + ", ".join("--" + name.replace("_", "-") for name in steps)
            raise RecipeError(found, expected="one or the other", remedy="leave out --recipe, or the steps")
        return load_recipe(recipe).preprocessing
    if not steps:
        raise RecipeError("no step to take", expected="--recipe NAME, or a step such as --stain macenko")
    try:
        return Preprocessing.model_validate(steps)
    except ValidationError as error:
        first = error.errors()[0]
        where = "--" + "-".join(str(part) for part in first["loc"]).replace("_", "-")
        raise RecipeError(f"{first['msg']} (found {first['input']!r})", where=where) from error
