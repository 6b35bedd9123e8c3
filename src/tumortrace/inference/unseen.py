"""What every verb on a trained model does around its own work: open data, leave out images, predict, end."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Unpack

import numpy as np
import pandas as pd

from tumortrace.cohorts.cohort import Cohort, ReadingOptions
from tumortrace.cohorts.layouts import open_cohort
from tumortrace.cohorts.seen import read_seen
from tumortrace.cohorts.store import PatchStore
from tumortrace.errors import CohortError
from tumortrace.evaluation.classes import CLASS
from tumortrace.inference.patches import Patches, open_patches
from tumortrace.models.bundle import Assessment, Model
from tumortrace.records.progress import say
from tumortrace.records.provenance import RESEARCH_USE, versions
from tumortrace.records.run import Data, Run, now
from tumortrace.reports.report import renew_report


@dataclass(frozen=True)
class Unseen:
    """Labelled images to measure a model on.

    Attributes:
        cohort: All labelled images of the data.
        patches: They decoded, at the model's `patch_size`.
        rows: Those to measure, int64: rows of the cohort's table and of the store.
        split: What they are to the model: "test", or "validation" where it has used all and these only chose its epoch.
        notes: What has to be said beside a result.
    """

    cohort: Cohort
    patches: Patches
    rows: np.ndarray
    split: str
    notes: list[str]

    @property
    def store(self) -> PatchStore:
        """The decoded images."""
        return self.patches.store

    @property
    def table(self) -> pd.DataFrame:
        """The rows of the cohort's table to measure."""
        return self.cohort.table.iloc[self.rows]

    @property
    def images(self) -> np.ndarray:
        """Their patches, uint8, shape (N, H, W, 3)."""
        return np.asarray(self.store.images[self.rows])

    @property
    def data(self) -> Data:
        """What a record says of them."""
        cohort, group = self.cohort, self.table["group"]
        return Data(
            name=cohort.name,
            layout=cohort.layout,
            fingerprint=cohort.fingerprint,
            split=self.split,
            images=len(self.rows),
            groups=int(group.nunique()) if group.notna().all() else None,
            resolution=self.patches.resolution,
            resampled=self.patches.resampled,
            unreadable=len(self.store.failed),
        )


def open_data(model: Model, data: str | Path | Cohort, **reading: Unpack[ReadingOptions]) -> Cohort:
    """Data whose images were prepared as the model's were.

    Raises:
        ModelError: They were prepared otherwise.
        TumorTraceError: The data do not open.
    """
    cohort = open_cohort(data, **reading)
    model.require_preparation(cohort.preparation, cohort.name)
    return cohort


def open_unseen(
    model: Model,
    data: str | Path | Cohort,
    *,
    resample: bool = False,
    allow: Collection[str] = (),
    **reading: Unpack[ReadingOptions],
) -> Unseen:
    """Labelled data without the images that the model's run has used: they are recognised by their pixels.

    Args:
        model: The model; its run's table of seen images is looked for beside the bundle.
        data: Any known layout with labels, or an opened cohort.
        resample: As for `open_patches`.
        allow: As for `open_patches`.
        **reading: How the data are read: options of `open_cohort`.

    Raises:
        DataError: As `open_patches` does.
        CohortError: No image carries a label, all labelled images were trained or calibrated on, or the class names
            are the model's the other way round.
        ModelError: The images were not prepared as the model's were.
    """
    cohort = open_data(model, data, **reading)
    class_notes = _compare_classes(cohort, model.info.classes)
    cohort = cohort.labelled
    if not len(cohort):
        raise CohortError("no image carries a label", where=data, remedy="use `predict` for unlabelled images")
    notes = [*cohort.notes, *class_notes]
    patches = open_patches(model, cohort, resample=resample, allow=allow)
    seen = read_seen(Run(model.run_folder).seen_file)
    if not seen:
        notes.append("whether the model has seen these images is not known: the run's seen.csv is not there")
    sound = patches.store.sound
    used = [seen.get(patches.store.digests[row]) for row in sound]
    rows, split, note = _usable(cohort, used)
    return Unseen(patches.cohort, patches, sound[rows], split, [*notes, *patches.notes, *note])


def _usable(cohort: Cohort, used: list[str | None]) -> tuple[np.ndarray, str, list[str]]:
    """Rows to measure, the name of the split that they are, and what to say; `used` is the run's split per image."""
    fresh = np.flatnonzero([split is None for split in used])
    gone = len(used) - len(fresh)
    if len(fresh):
        line = f"{gone:,} of {len(used):,} images were left out: the run has used them"
        return fresh, "test", [line] if gone else []
    validated = np.flatnonzero([split == "validation" for split in used])
    if not len(validated):
        raise CohortError(
            f"all {len(used):,} labelled images were used to train or calibrate this model",
            where=cohort.name,
            remedy="evaluate on other images; the run's own metrics.json has what was measured on its splits",
        )
    line = f"the run has used all {len(used):,} images; the {len(validated):,} that only chose its epoch are measured"
    return validated, "validation", [line]


def _compare_classes(cohort: Cohort, classes: tuple[str, str]) -> list[str]:
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


def predictions_table(chosen: pd.DataFrame, parts: Sequence[Assessment]) -> pd.DataFrame:
    """A predictions table.

    Args:
        chosen: Rows of a cohort's table.
        parts: What a model says of their images, in this order.

    Returns:
        Columns `id, group, label, logit, probability, prediction, decision`, and where the bundle scores it
        `ood_score` (above 1 is unlike the training images) and `in_distribution`; of more than two classes `class`,
        where it is known, and `SeveralClasses.columns`.
    """
    columns = {name: np.concatenate([part.columns()[name] for part in parts]) for name in parts[0].columns()}
    known = {"id": chosen["id"].to_numpy(), "group": chosen["group"].to_numpy(), "label": chosen["label"].array}
    if parts[0].by_class is not None and "class_name" in chosen:
        known[CLASS] = chosen["class_name"].to_numpy()
    return pd.DataFrame(known | columns)


def provenance() -> dict[str, object]:
    """What every record says of how it came about."""
    return {"versions": versions(), "finished": now(), "research_use": RESEARCH_USE}


def end(model: Model, folder: Path, line: str, notes: Sequence[str]) -> Path:
    """Say what came out, and tell the report of the model's run anew where the folder lies in it."""
    for note in notes:
        say(note if note.startswith("warning: ") else f"note: {note}")
    say(f"{line}. {RESEARCH_USE}")
    renew_report(model.run_folder, folder)
    return folder
