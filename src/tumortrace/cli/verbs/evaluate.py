"""`tumortrace evaluate`: measure a trained model on new data, or any model by its predictions."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from tumortrace.cli.app import NO_OPTIONS, DataOptions, Out, app


@app.command
def evaluate(
    run: Path | None = None,
    data: str | None = None,
    *,
    predictions: Path | None = None,
    out: Out = None,
    subgroup: Annotated[list[str] | None, Parameter(negative="")] = None,
    threshold: float | None = None,
    probability_of: str | None = None,
    device: str = "auto",
    options: DataOptions = NO_OPTIONS,
) -> None:
    """Measure a trained model on labelled data that it has not seen, or any model by the table of its predictions.

    Args:
        run: Run folder or bundle.
        data: Any known layout with labels.
        predictions: Instead of run and data: CSV or Parquet with `label`, `probability`, and optionally `id`, `group`,
            `split`, `decision`.
        out: Folder to write; default `evaluations/<name>` in the run folder, or `<name>-evaluation` for predictions.
        subgroup: A column on whose values everything is measured apart; may be given several times.
        threshold: For predictions: call an image positive from this probability on; default .5. A run brings its own.
        probability_of: For predictions: the class whose probability they are, where it is not the positive one.
        device: `auto`, `cpu`, `cuda`, `cuda:1` or `mps`.
    """
    from tumortrace.errors import RunError

    subgroups = tuple(subgroup or ())
    if predictions is None:
        if run is None or data is None:
            raise RunError("no run and data", expected="`evaluate RUN DATA` or `evaluate --predictions FILE`")
        if threshold is not None or probability_of is not None:
            option = "--threshold" if threshold is not None else "--probability-of"
            raise RunError(
                f"{option} for a run",
                expected="the run's own: nothing is chosen on the data that are reported",
                remedy="leave it out, or evaluate the run's predictions.csv with --predictions",
            )
        from tumortrace.inference.evaluate import evaluate

        print(evaluate(run, data, out=out, device=device, subgroups=subgroups, **asdict(options)))
        return
    if run is not None or data is not None:
        raise RunError("a run and --predictions", expected="one of the two")
    reading = {name: value for name, value in asdict(options).items() if value is not None and name != "positive"}
    if reading:
        option = "--" + next(iter(reading)).replace("_", "-")
        raise RunError(f"{option} with --predictions", expected="columns label, group and id in the file itself")
    from tumortrace.inference.evaluate_predictions import evaluate_predictions

    print(
        evaluate_predictions(
            predictions,
            out=out,
            threshold=0.5 if threshold is None else threshold,
            positive=options.positive,
            probability_of=probability_of,
            subgroups=subgroups,
        )
    )
