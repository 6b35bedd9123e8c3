"""`tumortrace crossval`: k fresh models, mean and spread."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter, validators

from tumortrace.cli.app import NO_OPTIONS, DataOptions, Seed, app, require_resume_alone


@app.command
def crossval(
    data: str | None = None,
    *,
    recipe: Annotated[list[str] | None, Parameter(negative="")] = None,
    folds: Annotated[int, Parameter(validator=validators.Number(gte=2))] = 5,
    repeats: Annotated[int, Parameter(validator=validators.Number(gte=1))] = 1,
    changes: Annotated[list[str] | None, Parameter(name="--set", negative="")] = None,
    epochs: int | None = None,
    resume: Path | None = None,
    out: Annotated[Path, Parameter(name=["--out", "-o"])] = Path("runs"),
    seed: Seed = 0,
    split: Literal["group", "random"] = "group",
    keep_test: Annotated[bool, Parameter(negative="")] = False,
    allow: Annotated[list[str] | None, Parameter(negative="")] = None,
    device: str = "auto",
    precision: Literal["auto", "32", "bf16"] = "auto",
    options: DataOptions = NO_OPTIONS,
) -> None:
    """Train a fresh model for each fold and test it there; mean, spread and comparison of recipes.

    Args:
        data: Any known layout, or `synthetic:patches`, `synthetic:mri`. Splits that the data bring are ignored, aloud.
        recipe: A shipped recipe's name, or the path of a YAML file; may be given several times. Default `tumortrace`.
        folds: Number of folds.
        repeats: How often the images are divided into folds anew.
        changes: A change to every recipe, as in `optimiser.lr=0.01`; may be given several times.
        epochs: Instead of the recipes' number of epochs.
        resume: Folder of a cross-validation to go on with; takes everything from its record.
        out: Folder in which the folder of the cross-validation is made.
        seed: Seed of folds, splits, and models.
        split: Keep slides or patients together (`group`), or do not, and say so (`random`).
        keep_test: Leave the test split that the data bring out of the folds.
        allow: A finding of `check` to train in spite of, on record; may be given several times.
        device: `auto`, `cpu`, `cuda`, `cuda:1` or `mps`.
        precision: `auto` takes bfloat16 where the hardware has it.
    """
    given = dict(locals())
    from tumortrace.errors import RunError

    if resume is not None:
        require_resume_alone(crossval, given)
    elif data is None:
        raise RunError("neither data nor --resume", expected="one of the two")
    from tumortrace.training.crossval import crossval as cross_validate
    from tumortrace.training.crossval import resume_crossval

    if resume is not None:
        print(resume_crossval(resume))
        return
    assert data is not None
    folder = cross_validate(
        data,
        recipe=recipe or ["tumortrace"],
        folds=folds,
        repeats=repeats,
        changes=changes or (),
        epochs=epochs,
        out=out,
        seed=seed,
        split=split,
        keep_test=keep_test,
        allow=allow or (),
        device=device,
        precision=precision,
        **asdict(options),
    )
    print(folder)
