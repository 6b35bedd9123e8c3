"""The verb `evaluate`: a trained model on data that it has not seen."""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import partial
from itertools import count
from pathlib import Path
from typing import Unpack

from tumortrace.cohorts.cohort import Cohort
from tumortrace.cohorts.layouts import Reading
from tumortrace.evaluation.by_group import subgroup_levels
from tumortrace.evaluation.trust_records import outside_line
from tumortrace.inference.evaluation_folder import command, write_evaluation
from tumortrace.inference.predict import predict_rows
from tumortrace.inference.unseen import open_unseen
from tumortrace.models.bundle import find_bundle, load_model
from tumortrace.reports.examples import write_examples
from tumortrace.reports.report import renew_report
from tumortrace.runs.output import require_own_folder


def evaluate(
    run: str | Path,
    data: str | Path | Cohort,
    *,
    out: str | Path | None = None,
    device: str = "auto",
    subgroups: Sequence[str] = (),
    **reading: Unpack[Reading],
) -> Path:
    """Measure a trained model on labelled data, with 95 % intervals, at the threshold that it brings.

    Images that the run has used are recognised by their pixels and left out; the record says how many. Where nothing
    but such images is there, those that only chose the epoch are measured and called validation. Nothing is fitted.

    Args:
        run: Run folder or bundle.
        data: Any known layout with labels, or an opened cohort.
        out: Folder to write; default `evaluations/<name of the data>` in the run folder, with a number where other data
            of this name have been evaluated.
        device: "auto", "cpu", "cuda", "cuda:1" or "mps".
        subgroups: Columns of the user's table, on whose levels everything is measured apart.
        **reading: How the data are read: options of `open_cohort`.

    Returns:
        The folder, with `predictions.csv`, `metrics.json`, `evaluation.json`, `examples/`, `figures/`, `report.html`.
        Where it lies in the run's, the run's own report and model card are told anew.

    Raises:
        CohortError: All labelled images were trained or calibrated on, or the class names differ.
        PredictionsError: A subgroup is no column of the data, or has too many levels.
        RunError: `out` is the folder of a run.
    """
    model = load_model(run, device=device)
    bundle = find_bundle(run)
    if out is not None:
        require_own_folder(Path(out))
    unseen = open_unseen(model, bundle, data, **reading)
    cohort, store, rows, notes = unseen.cohort, unseen.store, unseen.rows, unseen.notes
    columns = [name if name in cohort.table else name.lower() for name in subgroups]
    for name in columns:
        subgroup_levels(cohort.table, name, where=cohort.name)
    folder = Path(out) if out is not None else _own_folder(bundle.parent / "evaluations", cohort)
    require_own_folder(folder)
    table = predict_rows(model, cohort, store, rows)
    table.insert(1, "group", cohort.table["group"].iloc[rows].to_numpy())
    table.insert(2, "split", unseen.split)
    for name in columns:
        table[name] = cohort.table[name].iloc[rows].to_numpy()
    info = model.info
    if "in_distribution" in table:
        notes = [*notes, outside_line(table["in_distribution"], table["group"])]
    about = {
        "command": command(run, "COHORT" if isinstance(data, Cohort) else data, subgroups=columns, **reading),
        "model": info.model_dump(mode="json"),
        "data": {
            "name": cohort.name,
            "layout": cohort.layout,
            "fingerprint": cohort.fingerprint,
            "images": len(table),
            "groups": int(table["group"].nunique()) if table["group"].notna().all() else None,
            "resolution": cohort.resolution,
        },
        "classes": list(info.classes),
        "positive_class": info.positive_class,
        "notes": notes,
    }
    pictures = partial(write_examples, folder, table, store.images, rows, info.classes)
    write_evaluation(folder, table, info.threshold, about, subgroups=columns, pictures=pictures)
    renew_report(bundle.parent, folder)
    return folder


def _own_folder(home: Path, cohort: Cohort) -> Path:
    """`<name of the data>` in `home`, with a number where that holds an evaluation of other data of the same name."""
    for number in count(1):
        folder = home / (cohort.name if number == 1 else f"{cohort.name}-{number}")
        file = folder / "evaluation.json"
        if not file.is_file() or _fingerprint(file) == cohort.fingerprint:
            return folder
    raise AssertionError  # never: count does not end


def _fingerprint(file: Path) -> str | None:
    try:
        return str(json.loads(file.read_bytes())["data"]["fingerprint"])
    except (OSError, ValueError, KeyError, TypeError):
        return None
