"""`tumortrace report`: the report of a run, told anew."""

from __future__ import annotations

from pathlib import Path

from tumortrace.cli.app import app


@app.command
def report(folder: Path, /) -> None:
    """Write the report of a run or an evaluation anew, with what has come since: evaluations, stress, scans and more.

    A run's model card is written anew, too. Nothing is computed but figures.

    Args:
        folder: Run folder, or folder of an evaluation.
    """
    from tumortrace.reports.report import report

    print(report(folder))
