"""The verb `evaluate`: a trained model on data that it has not seen."""

from __future__ import annotations

from pathlib import Path

from tumortrace.cohorts.cohort import Cohort
from tumortrace.evaluation.headline import headline
from tumortrace.evaluation.intervals import evaluate_table
from tumortrace.inference.predict import predict_rows
from tumortrace.inference.unseen import open_unseen
from tumortrace.models.bundle import find_bundle, load_model
from tumortrace.reports.report import write_report
from tumortrace.runs.files import write_csv, write_json
from tumortrace.runs.progress import say
from tumortrace.runs.provenance import RESEARCH_USE, versions
from tumortrace.runs.run import now


def evaluate(
    run: str | Path,
    data: str | Path | Cohort,
    *,
    out: str | Path | None = None,
    device: str = "auto",
    positive: str | None = None,
    group_column: str | None = None,
    group_from_name: str | None = None,
    label_from_name: str | None = None,
    resolution: float | None = None,
) -> Path:
    """Measure a trained model on labelled data, with 95 % intervals, at the threshold that it brings.

    Images that the run has used are recognised by their pixels and left out; the record says how many. Where nothing
    but such images is there, those that only chose the epoch are measured and called validation. Nothing is fitted.

    Args:
        run: Run folder or bundle.
        data: Any known layout with labels, or an opened cohort.
        out: Folder to write; default `evaluations/<name of the data>` in the run folder.
        device: "auto", "cpu", "cuda", "cuda:1" or "mps".
        positive: As for `train`.
        group_column: As for `train`.
        group_from_name: As for `train`.
        label_from_name: As for `train`.
        resolution: As for `train`.

    Returns:
        The folder, with `predictions.csv`, `metrics.json`, `evaluation.json`, `figures/` and `report.html`.

    Raises:
        CohortError: All labelled images were trained or calibrated on, or the class names differ.
    """
    model = load_model(run, device=device)
    bundle = find_bundle(run)
    unseen = open_unseen(
        model,
        bundle,
        data,
        positive=positive,
        group_column=group_column,
        group_from_name=group_from_name,
        label_from_name=label_from_name,
        resolution=resolution,
    )
    cohort, store, rows, split, notes = unseen.cohort, unseen.store, unseen.rows, unseen.split, unseen.notes
    table = predict_rows(model, cohort, store, rows)
    table.insert(1, "group", cohort.table["group"].iloc[rows].to_numpy())
    table.insert(2, "split", split)
    folder = Path(out) if out is not None else bundle.parent / "evaluations" / cohort.name
    folder.mkdir(parents=True, exist_ok=True)
    metrics = evaluate_table(table, model.info.threshold)
    write_csv(folder / "predictions.csv", table)
    write_json(folder / "metrics.json", {split: metrics})
    write_json(
        folder / "evaluation.json",
        {
            "verb": "evaluate",
            "model": {"name": model.info.name, "weights_sha256": model.info.weights_sha256},
            "data": {
                "name": cohort.name,
                "layout": cohort.layout,
                "fingerprint": cohort.fingerprint,
                "images": len(table),
            },
            "classes": list(model.info.classes),
            "notes": notes,
            "versions": versions(),
            "finished": now(),
            "research_use": RESEARCH_USE,
        },
    )
    report = write_report(folder)
    for line in notes:
        say(f"note: {line}")
    say(f"evaluate: {headline(metrics)}; {report}")
    return folder
