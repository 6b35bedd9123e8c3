"""`tumortrace evaluate`: measure a trained model on new data."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

from tumortrace.cli.app import NO_OPTIONS, DataOptions, Out, app


@app.command
def evaluate(run: Path, data: str, *, out: Out = None, device: str = "auto", options: DataOptions = NO_OPTIONS) -> None:
    """Measure a trained model on labelled data that it has not seen.

    Args:
        run: Run folder or bundle.
        data: Any known layout with labels.
        out: Folder to write; default `evaluations/<name>` in the run folder.
        device: `auto`, `cpu`, `cuda`, `cuda:1` or `mps`.
    """
    from tumortrace.inference.evaluate import evaluate

    print(evaluate(run, data, out=out, device=device, **asdict(options)))
