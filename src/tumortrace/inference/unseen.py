"""What every verb on a trained model does around its own work: open data, leave out images, predict, end."""

from __future__ import annotations

import shlex
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Unpack

import numpy as np
import pandas as pd

from tumortrace.cohorts.cohort import Cohort, ReadingOptions
from tumortrace.cohorts.labels import merged_name, same_class
from tumortrace.cohorts.layouts import open_cohort
from tumortrace.cohorts.seen import read_seen
from tumortrace.cohorts.store import PatchStore
from tumortrace.errors import CohortError, plain, shown
from tumortrace.evaluation.classes import CLASS
from tumortrace.inference.patches import Patches, open_patches
from tumortrace.models.bundle import Assessment, Model
from tumortrace.models.description import ModelInfo
from tumortrace.records.progress import say
from tumortrace.records.provenance import RESEARCH_USE, versions
from tumortrace.records.run import Data, Run, RunRecord, now


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
            in_spite=list(self.patches.in_spite),
            unreadable=len(self.store.failed),
        )


def open_data(model: Model, data: str | Path | Cohort, **reading: Unpack[ReadingOptions]) -> Cohort:
    """Data whose images were prepared as the model's were, with classes spelled as the model spells them.

    Where only which classes are positive is not said, and all are classes of the model, they are what they are to it;
    classes that its run merged are merged.

    Raises:
        ModelError: They were prepared otherwise.
        TumorTraceError: The data do not open.
    """
    try:
        cohort = open_cohort(data, **reading)
        as_it_is = isinstance(data, Cohort) or _as_to(model, cohort)
        known = None if as_it_is else _known_to(model, cohort.class_names, reading)
    except CohortError as refusal:
        known = _known_to(model, refusal.classes, reading)
        if known is None:
            raise
    if known is not None:
        cohort = open_cohort(data, **known)
        merges = "".join(f" --merge {shlex.quote(plain(merge))}" for merge in known["merge"])
        positive = f"--positive {shlex.quote(plain(known['positive']))}"
        cohort = replace(cohort, notes=(*cohort.notes, f"classes are read as the model's: {positive}{merges}"))
    model.require_preparation(cohort.preparation, cohort.name)
    return _spelled_alike(cohort, list(_positives(model.info)))


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
    class_notes = _compare_classes(cohort, model.info)
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
        line = f"{gone:,} of {len(used):,} {cohort.unit}s were left out: the run has used them"
        return fresh, "test", [line] if gone else []
    validated = np.flatnonzero([split == "validation" for split in used])
    if not len(validated):
        raise CohortError(
            f"all {len(used):,} labelled {cohort.unit}s were used to train or calibrate this model",
            where=cohort.name,
            remedy=f"evaluate on other {cohort.unit}s; the run's own metrics.json has what was measured on its splits",
        )
    all_used = f"the run has used all {len(used):,} {cohort.unit}s"
    line = f"{all_used}; the {len(validated):,} that only chose its epoch are measured"
    return validated, "validation", [line]


def _known_to(model: Model, classes: Sequence[str], reading: ReadingOptions) -> ReadingOptions | None:
    """How data of these classes are read as the model knows them; None where it does not know them all."""
    if not classes or reading.get("positive"):
        return None
    positives = _positives(model.info)
    given, record = reading.get("merge") or (), model.run_folder
    ways: list[tuple[Sequence[str], list[str]]] = [(given, list(classes))]
    if not given and RunRecord.exists(record) and (merged := RunRecord.read(record).arguments.merge):
        ways.append((merged, [merged_name(name, merged) for name in classes]))
    for merge, names in ways:
        known = [same_class(name, list(positives)) for name in names]
        chosen = sorted({name for name in known if name is not None and positives[name]})
        if None not in known and chosen:
            return {**reading, "positive": ",".join(chosen), "merge": merge}
    return None


def _as_to(model: Model, cohort: Cohort) -> bool:
    """Whether classes that the data state themselves are known to the model, each on its side."""
    positives = _positives(model.info)
    known = {name: same_class(name, list(positives)) for name in cohort.class_names}
    return all(to is not None and positives[to] == (name in cohort.positive_names) for name, to in known.items())


def _positives(info: ModelInfo) -> dict[str, bool]:
    """Of each class that a model tells from others, whether it is positive."""
    if info.several is None:
        return dict(zip(info.classes, (False, True), strict=True))
    return dict(zip(info.several.names, info.several.sides, strict=True))


def _spelled_alike(cohort: Cohort, classes: Sequence[str]) -> Cohort:
    """A cohort of more than two classes, with those names that only case, blanks, hyphens and underscores part."""
    names = {name: same_class(name, classes) or name for name in cohort.class_names}
    if all(name == new for name, new in names.items()):
        return cohort
    return replace(
        cohort,
        table=cohort.table.assign(class_name=cohort.table["class_name"].map(names)),
        class_names=tuple(names.values()),
        positive_names=tuple(names[name] for name in cohort.positive_names),
    )


def _compare_classes(cohort: Cohort, info: ModelInfo) -> list[str]:
    """What is to be said of the data's classes beside the model's.

    Raises:
        CohortError: A class is positive here and not to the model, or the other way round, or the model parts more
            than two and does not know it.
    """
    positives = _positives(info)
    names = cohort.class_names or cohort.classes
    here = {name: name in (cohort.positive_names or cohort.classes[1:]) for name in names}
    there = {name: known for name in names if (known := same_class(name, list(positives)))}
    if turned := [name for name in there if positives[there[name]] != here[name]]:
        to_model = [name for name in there if positives[there[name]]]
        side = "positive" if here[turned[0]] else "negative"
        raise CohortError(
            f"class {shown(turned[0])} is {side} here and not to the model",
            where=cohort.name,
            expected=f"{shown(info.positive_class)} as positive, which the model predicts",
            remedy=f"add --positive {shlex.quote(','.join(to_model))}" if to_model else "leave --positive out",
        )
    if info.several and cohort.class_names and (strange := [name for name in names if name not in there]):
        raise CohortError(
            f"classes that the model does not know: {', '.join(map(plain, strange[:5]))}",
            where=cohort.name,
            expected=f"some of {', '.join(map(plain, positives))}",
            remedy="--merge KNOWN=a,b gives them names that it knows; of two classes, only positive or not counts",
        )
    if (cohort.class_names and info.several) or tuple(cohort.classes) == tuple(info.classes):
        return []
    return [
        f"class names differ: {shown(cohort.positive_class)} here is taken for the model's {shown(info.positive_class)}"
    ]


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
    from tumortrace.reports.report import renew_report  # with all that draws, which `predict` has no need of

    renew_report(model.run_folder, folder)
    return folder
