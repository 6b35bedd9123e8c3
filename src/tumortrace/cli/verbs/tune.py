"""`tumortrace tune`: search for the best recipe."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter, validators

from tumortrace.cli.app import NO_OPTIONS, DataOptions, Seed, app, require_resume_alone

Count = Annotated[int, Parameter(validator=validators.Number(gte=1))]


@app.command
def tune(
    data: str | None = None,
    *,
    space: str = "augmentation-optimiser",
    trials: Count | None = None,
    epochs_max: Count | None = None,
    objective: str | None = None,
    changes: Annotated[list[str] | None, Parameter(name="--set", negative="")] = None,
    resume: Path | None = None,
    workers: Count = 1,
    out: Annotated[Path, Parameter(name=["--out", "-o"])] = Path("runs"),
    seed: Seed = 0,
    split: Literal["group", "random"] = "group",
    allow: Annotated[list[str] | None, Parameter(negative="")] = None,
    device: str = "auto",
    precision: Literal["auto", "32", "bf16"] = "auto",
    options: DataOptions = NO_OPTIONS,
) -> int:
    """Search for the best recipe; write every trial, the best recipe and a report into a folder.

    Args:
        data: Any known layout, or `synthetic:patches`, `synthetic:mri`.
        space: A shipped space's name (`system-d`, `augmentation-optimiser`), or the path of a YAML file.
        trials: Instead of the space's number of trials.
        epochs_max: Instead of the space's most epochs of one trial.
        objective: Instead of the space's objective: `loss` or a metric's name, as in `f1`.
        changes: A change to the space's recipe, as in `preprocessing.size=64`; may be given several times.
        resume: Folder of a study to go on with, or to join; several processes may do so at once.
        workers: Processes that search at the same time.
        out: Folder in which the study's folder is made.
        seed: Seed of splits and trials.
        split: Keep slides or patients together (`group`), or do not, and say so (`random`).
        allow: A finding of `check` to search in spite of, on record; may be given several times.
        device: `auto`, `cpu`, `cuda`, `cuda:1` or `mps`.
        precision: `auto` takes bfloat16 where the hardware has it.
    """
    given = dict(locals())
    from tumortrace.errors import RunError

    if resume is not None:
        require_resume_alone(tune, given, beside=["workers"])
    elif data is None:
        raise RunError("neither data nor --resume", expected="one of the two")
    from tumortrace.training.tune import resume_tuning
    from tumortrace.training.tune import tune as search

    if resume is not None:
        print(resume_tuning(resume, workers=workers))
        return 0
    assert data is not None
    folder = search(
        data,
        space=space,
        changes=changes or (),
        trials=trials,
        epochs_max=epochs_max,
        objective=objective,
        out=out,
        seed=seed,
        split=split,
        allow=allow or (),
        workers=workers,
        device=device,
        precision=precision,
        **asdict(options),
    )
    print(folder)
    return 0
