"""The verb `evaluate`: a trained model on data that it has not seen."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from tumortrace.cohorts.cohort import Cohort
from tumortrace.cohorts.layouts import open_cohort
from tumortrace.cohorts.seen import digests, read_seen
from tumortrace.cohorts.store import open_store
from tumortrace.errors import CohortError
from tumortrace.evaluation.headline import headline
from tumortrace.evaluation.intervals import evaluate_table
from tumortrace.inference.predict import predict_rows
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
    cohort = open_cohort(
        data,
        positive=positive,
        group_column=group_column,
        group_from_name=group_from_name,
        label_from_name=label_from_name,
        resolution=resolution,
    )
    model.require_preparation(cohort.preparation, cohort.name)
    notes = [*cohort.notes, *_check_classes(cohort, model.info.classes)]
    cohort = cohort.labelled
    if not len(cohort):
        raise CohortError("no image carries a label", where=data, remedy="use `predict` for unlabelled images")
    bundle = find_bundle(run)
    store = open_store(cohort, size=model.info.patch_size)
    seen = read_seen(bundle.parent / "seen.csv")
    if not seen:
        notes.append("whether the model has seen these images is not known: the run's seen.csv is not there")
    rows, split, note = _usable(cohort, [seen.get(digest) for digest in digests(store.images, np.arange(len(cohort)))])
    notes += [*store.notes, *note]
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


def _usable(cohort: Cohort, used: list[str | None]) -> tuple[np.ndarray, str, list[str]]:
    """Rows to measure, the name of the split that they are, and what to say; `used` is the run's split per image."""
    fresh = np.flatnonzero([split is None for split in used])
    if len(fresh) == len(used):
        return fresh, "test", []
    if len(fresh):
        return (
            fresh,
            "test",
            [f"{len(used) - len(fresh):,} of {len(used):,} images were left out: the run has used them"],
        )
    validated = np.flatnonzero([split == "validation" for split in used])
    if not len(validated):
        raise CohortError(
            f"all {len(used):,} labelled images were used to train or calibrate this model",
            where=cohort.name,
            remedy="evaluate on other images; the run's own metrics.json has what was measured on its splits",
        )
    line = f"the run has used all {len(used):,} images; the {len(validated):,} that only chose its epoch are measured"
    return validated, "validation", [line]


def _check_classes(cohort: Cohort, classes: tuple[str, str]) -> list[str]:
    if tuple(cohort.classes) == tuple(classes):
        return []
    if set(cohort.classes) == set(classes):
        raise CohortError(
            f"positive class {cohort.positive_class!r}",
            where=cohort.name,
            expected=f"{classes[1]!r}, which the model predicts",
            remedy=f"add --positive {classes[1]}",
        )
    return [f"class names differ: {cohort.positive_class!r} here is taken for the model's {classes[1]!r}"]
