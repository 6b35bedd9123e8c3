"""`tumortrace train`: train a classifier."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter, validators

from tumortrace.cli.app import NO_OPTIONS, DataOptions, Seed, app, require_resume_alone


@app.command
def train(
    data: str | None = None,
    *,
    recipe: str = "tumortrace",
    changes: Annotated[list[str] | None, Parameter(name="--set", negative="")] = None,
    epochs: int | None = None,
    weights: str | None = None,
    members: int = 1,
    fractions: str | None = None,
    repeats: Annotated[int, Parameter(validator=validators.Number(gte=1))] = 3,
    distil: Path | None = None,
    resume: Path | None = None,
    out: Annotated[Path, Parameter(name=["--out", "-o"])] = Path("runs"),
    seed: Seed = 0,
    split_seed: Annotated[int | None, Parameter(validator=validators.Number(gte=0))] = None,
    split: Literal["group", "random"] = "group",
    allow: Annotated[list[str] | None, Parameter(negative="")] = None,
    device: str = "auto",
    precision: Literal["auto", "32", "bf16"] = "auto",
    options: DataOptions = NO_OPTIONS,
) -> int:
    """Train, calibrate and evaluate a classifier; write everything about it into a run folder.

    Args:
        data: Any known layout, or `synthetic:patches`, `synthetic:mri`.
        recipe: A shipped recipe's name, or the path of a YAML file.
        changes: A change to the recipe, as in `optimiser.lr=0.01`; may be given several times.
        epochs: Instead of the recipe's number of epochs.
        weights: Instead of the recipe's: `random`, `imagenet`, or a file of weights of the body.
        members: Train so many, from different weights on the same splits, and join them in an ensemble.
        fractions: A learning curve instead: shares of the training split to train on, as in `1%,10%,100%`.
        repeats: How often, where `--fractions` is given.
        distil: Run or bundle of a teacher, whose probabilities are learnt beside the labels.
        resume: Run folder to continue instead of starting a new one, also one that `--members` or `--fractions` made;
            takes everything from its record.
        out: Folder in which the run folder is made.
        seed: Seed of splits, weights, order and augmentation.
        split_seed: Seed of the splits alone; default the seed.
        split: Keep slides or patients together (`group`), or do not, and say so (`random`).
        allow: A finding of `check` to train in spite of, on record; may be given several times.
        device: `auto`, `cpu`, `cuda`, `cuda:1` or `mps`.
        precision: `auto` takes bfloat16 where the hardware has it.
    """
    given = dict(locals())
    from tumortrace.errors import RunError

    if resume is not None:
        require_resume_alone(train, given)
    elif data is None:
        raise RunError("neither data nor --resume", expected="one of the two")
    if fractions is not None and (members != 1 or distil is not None):
        raise RunError("--fractions with --members or --distil", expected="one of them", remedy="leave the others out")
    from tumortrace.records.run import Run
    from tumortrace.training import ensemble
    from tumortrace.training.ensemble import resume_ensemble, train_members
    from tumortrace.training.learning_curve import VERB, learning_curve, parse_fractions, resume_learning_curve
    from tumortrace.training.train import resume as resume_run
    from tumortrace.training.train import train as fit

    if resume is not None:
        others = {VERB: resume_learning_curve, ensemble.VERB: resume_ensemble}
        print(others.get(Run(resume).read().get("verb", ""), resume_run)(resume))
        return 0
    assert data is not None
    arguments = {
        "recipe": recipe,
        "changes": changes or (),
        "epochs": epochs,
        "weights": weights,
        "distil": distil,
        "out": out,
        "seed": seed,
        "split_seed": split_seed,
        "split": split,
        "allow": allow or (),
        "device": device,
        "precision": precision,
        **asdict(options),
    }
    if fractions is not None:
        del arguments["distil"]
        print(learning_curve(data, parse_fractions(fractions), repeats=repeats, **arguments))
        return 0
    print(fit(data, **arguments) if members == 1 else train_members(data, members, **arguments))
    return 0
