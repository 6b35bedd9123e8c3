"""The verb `evaluate`: a trained model on data that it has not seen."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from itertools import count
from pathlib import Path
from typing import Unpack

import pandas as pd

from tumortrace.cohorts.cohort import Cohort, ReadingOptions
from tumortrace.errors import RunError
from tumortrace.evaluation.abstention import outside_line, trust_records
from tumortrace.evaluation.split_record import headline, split_record, subgroup_levels
from tumortrace.inference.unseen import open_unseen, predictions_table, provenance
from tumortrace.models.bundle import load_model
from tumortrace.records.command import command_line
from tumortrace.records.evaluation import EvaluationRecord
from tumortrace.records.metrics import Drift, DriftRecord, Metrics
from tumortrace.records.output import require_own_folder
from tumortrace.records.progress import say, track
from tumortrace.records.provenance import RESEARCH_USE, machine
from tumortrace.records.tables import PREDICTIONS
from tumortrace.reports.examples import write_examples
from tumortrace.reports.report import renew_report, write_report


def evaluate(
    run: str | Path,
    data: str | Path | Cohort,
    *,
    out: str | Path | None = None,
    device: str = "auto",
    subgroups: Sequence[str] = (),
    resample: bool = False,
    allow: Sequence[str] = (),
    **reading: Unpack[ReadingOptions],
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
        resample: Resample images whose um per pixel are known to those of the model's patches, around their centres.
        allow: Name of a finding of `check`, or `resolution-mismatch`, to go on in spite of.
        **reading: How the data are read: options of `open_cohort`.

    Returns:
        The folder, with `predictions.csv`, `metrics.json`, `evaluation.json`, `examples/`, `figures/`, `report.html`.
        Where it lies in the run's, the run's own report and model card are told anew.

    Raises:
        CohortError: All labelled images were trained or calibrated on, or the class names differ.
        PredictionsError: A subgroup is no column of the data, or has too many levels.
        RunError: `out` is the folder of a run.
    """
    model = load_model(run, device=device, slides=True)
    if out is not None:
        require_own_folder(Path(out))
    unseen = open_unseen(model, data, resample=resample, allow=allow, **reading)
    cohort, info = unseen.cohort, model.info
    columns = [name if name in cohort.table else name.lower() for name in subgroups]
    for name in columns:
        subgroup_levels(cohort.table, name, where=cohort.name)
    folder = Path(out) if out is not None else _folder_of(cohort, model.run_folder / "evaluations")
    require_own_folder(folder)
    said = model.assess(unseen.store.images, unseen.rows, description="predicting")
    table = predictions_table(unseen.table, [said]).assign(
        split=unseen.split, **{name: unseen.table[name].to_numpy() for name in columns}
    )
    notes = unseen.notes
    if said.in_distribution is not None:
        notes = [*notes, outside_line(table["in_distribution"], table["group"], cohort.unit)]
    drift, line = model.judge_set(said.components, table["group"])
    notes = [*notes, line]
    record = EvaluationRecord(
        command=command_line(
            "evaluate",
            run,
            None if isinstance(data, Cohort) else data,
            subgroup=columns,
            resample=resample,
            allow=list(allow),
            **reading,
        ),
        model=info.model_dump(mode="json"),
        data=unseen.data,
        classes=list(info.classes),
        positive_class=info.positive_class,
        notes=notes,
        subgroups=columns,
    )
    pictures = partial(write_examples, folder, table, unseen.store.pictures, unseen.rows, info.classes)
    write_evaluation(folder, table, info.threshold, record, pictures=pictures, drift=drift)
    renew_report(model.run_folder, folder)
    return folder


def _folder_of(cohort: Cohort, home: Path) -> Path:
    """`<name of the data>` in `home`, with a number where that holds an evaluation of other data of the same name."""
    numbered = (home / (cohort.name if number == 1 else f"{cohort.name}-{number}") for number in count(1))
    return next(folder for folder in numbered if _evaluated(folder) in (None, cohort.fingerprint))


def _evaluated(folder: Path) -> str | None:
    """Fingerprint of the data that a folder holds an evaluation of; None where it holds none."""
    try:
        record = EvaluationRecord.find(folder)
    except RunError:
        return "not known"
    return None if record is None else record.data.fingerprint


def write_evaluation(
    folder: Path,
    table: pd.DataFrame,
    threshold: float,
    record: EvaluationRecord,
    *,
    pictures: Callable[[], object] | None = None,
    drift: Drift | None = None,
) -> Path:
    """Measure a predictions table split by split, and write the folder.

    Args:
        folder: Where; see `tumortrace.records.output.require_own_folder`.
        table: Columns `id, group, split, label, probability, prediction`, those of the record's `subgroups`, on whose
            levels everything is measured apart, and others to keep.
        threshold: An image is called positive where its probability is at or above it.
        record: What is known beforehand: model, data, classes, notes, command.
        pictures: Writes pictures of the images that the report shows.
        drift: How far the images as a whole lie from the training images; None where that is not known.

    Returns:
        The folder.
    """
    parts = {str(name): part for name, part in table.groupby("split", sort=False)}
    several = record.model.get("several")
    ordered = isinstance(several, dict) and several.get("ordered") is True
    metrics = {
        name: split_record(part, threshold, subgroups=record.subgroups, ordered=ordered)
        for name, part in track(parts.items(), "intervals", len(parts))
    }
    folder.mkdir(parents=True, exist_ok=True)
    PREDICTIONS.write(folder, table)
    Metrics(metrics).write(folder)
    for judged in trust_records(table, {"threshold": threshold, **record.model}):
        judged.write(folder)
    DriftRecord.file(folder).unlink(missing_ok=True)
    if drift is not None:
        split = next(iter(parts))
        DriftRecord(split=split, splits={split: drift}).write(folder)
    whole = record.as_json() | {"verb": "evaluate", "machine": machine()} | provenance()
    EvaluationRecord.model_validate(whole).write(folder)
    if pictures is not None:
        pictures()
    report = write_report(folder)
    for line in record.notes:
        say(line if line.startswith("warning: ") else f"note: {line}")
    for name, measured in metrics.items():
        say(f"evaluate: {name}: {headline(measured, record.data.unit)}")
    say(f"report: {report}. {RESEARCH_USE}")
    return folder
