"""The folder of an evaluation: predictions, metrics, what was evaluated, figures and a report."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from tumortrace.evaluation.abstention import trust_records
from tumortrace.evaluation.split_record import headline, split_record
from tumortrace.records.files import write_csv, write_json
from tumortrace.records.progress import say, track
from tumortrace.records.provenance import RESEARCH_USE, machine, versions
from tumortrace.records.run import now
from tumortrace.reports.report import write_report

#: Columns of `predictions.csv` that come first, in this order.
ORDER = ("id", "group", "split", "label", "probability", "prediction", "decision")


def write_evaluation(
    folder: Path,
    table: pd.DataFrame,
    threshold: float,
    about: dict[str, Any],
    *,
    subgroups: Sequence[str] = (),
    pictures: Callable[[], object] | None = None,
) -> Path:
    """Measure a predictions table split by split, and write the folder.

    Args:
        folder: Where; see `tumortrace.records.output.require_own_folder`.
        table: Columns `id, group, split, label, probability, prediction`, those of `subgroups`, and others to keep.
        threshold: An image is called positive where its probability is at or above it.
        about: What `evaluation.json` says beside the usual: `model`, `data`, `classes`, `notes` and more.
        subgroups: Columns on whose levels everything is measured apart.
        pictures: Writes pictures of the images that the report shows.

    Returns:
        The folder.
    """
    parts = {str(name): part for name, part in table.groupby("split", sort=False)}
    metrics = {
        name: split_record(part, threshold, subgroups=subgroups)
        for name, part in track(parts.items(), "intervals", len(parts))
    }
    folder.mkdir(parents=True, exist_ok=True)
    first = [column for column in ORDER if column in table]
    write_csv(folder / "predictions.csv", table[[*first, *(name for name in table if name not in first)]])
    write_json(folder / "metrics.json", metrics)
    for file, content in trust_records(table, {"threshold": threshold, **about.get("model", {})}).items():
        write_json(folder / file, content)
    usual = {"versions": versions(), "machine": machine(), "finished": now(), "research_use": RESEARCH_USE}
    write_json(folder / "evaluation.json", {"verb": "evaluate"} | about | {"subgroups": list(subgroups)} | usual)
    if pictures is not None:
        pictures()
    report = write_report(folder)
    for line in about["notes"]:
        say(line if line.startswith("warning: ") else f"note: {line}")
    for name, record in metrics.items():
        say(f"evaluate: {name}: {headline(record)}")
    say(f"report: {report}. {RESEARCH_USE}")
    return folder
