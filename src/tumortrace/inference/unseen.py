"""The images of a cohort that a run has not used: what it may be measured on."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tumortrace.cohorts.cohort import Cohort
from tumortrace.cohorts.layouts import open_cohort
from tumortrace.cohorts.seen import digests, read_seen
from tumortrace.cohorts.store import PatchStore, open_store
from tumortrace.errors import CohortError
from tumortrace.models.bundle import Model


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
    rows, split, note = _usable(cohort, [seen.get(digest) for digest in digests(store.images, np.arange(len(cohort)))])
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
