"""`tumortrace compare`: runs side by side, with intervals and paired tests."""

from __future__ import annotations

from pathlib import Path

from tumortrace.cli.app import Out, app


@app.command
def compare(runs: list[Path], /, *, out: Out = None) -> None:
    """Compare runs on the same test images: paired intervals, DeLong's and McNemar's test, corrected for their number.

    Args:
        runs: Run folders, folders of evaluations or of cross-validations.
        out: Folder to write; default `comparison`.
    """
    from tumortrace.inference.compare import compare

    print(compare(runs, out=out))
