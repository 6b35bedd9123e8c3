"""The verb `evaluate`: a trained model on data that it has not seen."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from itertools import count
from pathlib import Path
from typing import Unpack

import numpy as np

from tumortrace.cohorts.cohort import Cohort, ReadingOptions
from tumortrace.cohorts.layouts import open_cohort
from tumortrace.cohorts.seen import read_seen
from tumortrace.cohorts.store import PatchStore, open_store
from tumortrace.errors import CohortError
from tumortrace.evaluation.abstention import outside_line
from tumortrace.evaluation.split_record import subgroup_levels
from tumortrace.inference.evaluation_folder import write_evaluation
from tumortrace.inference.predict import predict_rows
from tumortrace.models.bundle import Model, find_bundle, load_model
from tumortrace.records.command import command_line
from tumortrace.records.output import require_own_folder
from tumortrace.reports.examples import write_examples
from tumortrace.reports.report import renew_report


def evaluate(
    run: str | Path,
    data: str | Path | Cohort,
    *,
    out: str | Path | None = None,
    device: str = "auto",
    subgroups: Sequence[str] = (),
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
        "command": command_line(
            "evaluate", run, None if isinstance(data, Cohort) else data, subgroup=columns, **reading
        ),
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


# The images of a cohort that a run has not used: what it may be measured on.


@dataclass(frozen=True)
class Unseen:
    """Labelled images to measure a model on.

    Attributes:
        cohort: All labelled images of the data.
        store: They decoded, at the model's `patch_size`.
        rows: Those to measure, int64: rows of the cohort's table and of the store.
        split: What they are to the model: "test", or "validation" where it has used all and these only chose its epoch.
        notes: What has to be said beside a result.
    """

    cohort: Cohort
    store: PatchStore
    rows: np.ndarray
    split: str
    notes: list[str]


def open_unseen(model: Model, bundle: Path, data: str | Path | Cohort, **options: str | float | None) -> Unseen:
    """Open data, and leave out the images that the model's run has used: they are recognised by their pixels.

    Args:
        model: The model.
        bundle: Its folder; the run's `seen.csv` is looked for beside it.
        data: Any known layout with labels, or an opened cohort.
        options: How to read the data, as for `open_cohort`.

    Raises:
        CohortError: No image carries a label, all labelled images were trained or calibrated on, or the class names
            are the model's the other way round.
        ModelError: The images were not prepared as the model's were.
    """
    cohort = open_cohort(data, **options)  # type: ignore[arg-type]
    model.require_preparation(cohort.preparation, cohort.name)
    class_notes = _check_classes(cohort, model.info.classes)
    cohort = cohort.labelled
    if not len(cohort):
        raise CohortError("no image carries a label", where=data, remedy="use `predict` for unlabelled images")
    notes = [*cohort.notes, *class_notes]
    store = open_store(cohort, size=model.info.patch_size)
    seen = read_seen(bundle.parent / "seen.csv")
    if not seen:
        notes.append("whether the model has seen these images is not known: the run's seen.csv is not there")
    rows, split, note = _usable(cohort, [seen.get(digest) for digest in store.digests])
    return Unseen(cohort, store, rows, split, [*notes, *store.notes, *note])


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
