"""`tumortrace predict`: predictions or a Kaggle submission."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from tumortrace.cli.app import NO_OPTIONS, DataOptions, app


@app.command
def predict(
    run: Path,
    data: str,
    *,
    out: Annotated[Path, Parameter(name=["--out", "-o"])] = Path("predictions.csv"),
    submission: bool = False,
    labels: bool = False,
    device: str = "auto",
    options: DataOptions = NO_OPTIONS,
) -> None:
    """Predict every image of a cohort, or fill in a Kaggle submission.

    Args:
        run: Run folder or bundle.
        data: Any known layout, a folder of images or a single image.
        out: CSV to write.
        submission: Exactly the ids of `sample_submission.csv`, in its order, with columns id and label.
        labels: In a submission, 0 or 1 instead of probabilities.
        device: `auto`, `cpu`, `cuda`, `cuda:1` or `mps`.
    """
    from tumortrace.inference.predict import predict

    predict(run, data, out=out, submission=submission, labels=labels, device=device, **asdict(options))
