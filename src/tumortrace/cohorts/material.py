"""Labelled images made ready for training: opened, decoded, looked at, divided and audited once for all of it."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import replace
from functools import cached_property, partial
from pathlib import Path
from typing import TypeAlias, Unpack

from tumortrace.cohorts.audit import check, refuse
from tumortrace.cohorts.bags import open_bags
from tumortrace.cohorts.cohort import Cohort, ReadingOptions
from tumortrace.cohorts.copies import exact_copies
from tumortrace.cohorts.findings import count
from tumortrace.cohorts.layouts import open_cohort, refuse_within
from tumortrace.cohorts.resolution import common, resolutions
from tumortrace.cohorts.splits import LEAK, Splits, assign_splits, require_labels
from tumortrace.cohorts.store import PatchStore, open_store, prepared_store
from tumortrace.cohorts.telling import judge
from tumortrace.errors import RecipeError, SplitError
from tumortrace.evaluation.thresholds import require_enough
from tumortrace.images.preprocessing import Preprocessing
from tumortrace.records.run import Admission, Told
from tumortrace.records.user_tables import read_text


class Material:
    """Labelled images, and what is found out of them once, when it is first asked for.

    Args:
        cohort: Labelled images, without those that a recipe leaves out.
        allow: Findings of `check` to pass over.
    """

    def __init__(self, cohort: Cohort, allow: Collection[str] = ()) -> None:
        self.cohort = cohort
        self.allow = allow

    @cached_property
    def store(self) -> PatchStore:
        """The images, decoded; of slides, their features."""
        return open_bags(self.cohort) if self.cohort.has_bags else open_store(self.cohort)

    @property
    def resolution(self) -> float | None:
        """Um per px of the images: as the data say, or else as all files do."""
        return self.cohort.resolution or common(resolutions(self.cohort, self.store.looks))

    @cached_property
    def copies(self) -> Mapping[str, str]:
        """Picture by id of the images that have copies, which must stay together."""
        return exact_copies(self.cohort.table["id"], self.store.looks)

    def prepared(self, preprocessing: Preprocessing) -> PatchStore:
        """The images after `Preprocessing.prepare`, done once and kept where that is more than a crop."""
        if not preprocessing.prepares:
            return self.store
        return prepared_store(self.store, preprocessing.preparation_key, preprocessing.prepare, "preparing")

    def divide(self, split: str, seed: int, fractions: Mapping[str, float] | None) -> Splits:
        """Splits of the images, copies kept together.

        Args:
            split: "group" keeps slides or patients together, "random" does not.
            seed: Of the division.
            fractions: As for `assign_splits`.

        Raises:
            DataError: They cannot be divided; where the table alone shows that, no image is decoded.
        """
        by_group = by_groups(split)
        divide = partial(
            assign_splits, self.cohort, fractions=fractions, seed=seed, by_group=by_group, leaks=LEAK in self.allow
        )
        divide()
        return divide(copies=self.copies)

    def require_enough(self, splits: Splits, policies: Collection[str]) -> None:
        """Refuse splits that lack a class, or a calibration split too small for what a threshold policy promises.

        Raises:
            SplitError: They are such.
        """
        labels = splits.table["id"].map(self.cohort.table.set_index("id")["label"])
        for name in ("train", "validation", "calibration"):
            part = labels[splits.table["split"] == name]
            if part.nunique() < 2:
                of = "".join(f", all of class {self.cohort.classes[int(label)]!r}" for label in part.dropna().unique())
                raise SplitError(
                    f"split {name!r} holds {count(len(part), self.cohort.unit)}{of}",
                    where=self.cohort.name,
                    expected=f"{self.cohort.unit}s of both classes in train, validation and calibration",
                    remedy=self._way_to_both_classes(),
                )
        calibration = labels[splits.table["split"] == "calibration"].dropna()
        positives = int(calibration.sum())
        for policy in policies:
            where = f"{self.cohort.name}, calibration split"
            require_enough(policy, len(calibration) - positives, positives, where=where)

    def _way_to_both_classes(self) -> str:
        if self.cohort.table["split"].isna().all():
            return f"add labelled {self.cohort.unit}s or groups"
        where = "folders" if self.cohort.layout in ("class-folders", "kaggle") else "column"
        images = f"{self.cohort.unit}s of both classes"
        return f"put {images} into it, or do without the split {where}, so that TumorTrace divides"

    def audit(self, splits: Splits, *, split: str, allow: Collection[str]) -> Admission:
        """What `check` finds in the images as they are divided, and what of it was allowed.

        Args:
            splits: Their splits.
            split: "random" allows its own leakage.
            allow: Findings to pass over.

        Raises:
            DataError: An error is found that is not allowed.
        """
        audit = check(self.cohort, splits=splits, quick=True, looks=self.store.looks)
        allowed = refuse(audit, [*allow, *([LEAK] if split == "random" else [])])
        told = [Told(name=f.name, verdict=f.verdict, count=f.count, message=f.message) for f in audit.findings]
        lines = [f.line for f in judge(self.cohort, self.store.looks, self.store.size) if f.name not in allowed]
        if self.cohort.resolution is None and self.resolution is not None:
            lines.append(f"the images have {self.resolution:.3g} um per pixel, as their table or files state")
        return Admission(findings=told, allowed=list(allowed), notes=[*self.store.notes, *lines])


Divide: TypeAlias = Callable[[Material], Splits]


def admit(
    data: str | Path | Cohort,
    divide: Divide,
    *,
    out: Path,
    leave_out: str | None,
    split: str,
    allow: Collection[str],
    policies: Collection[str],
    **reading: Unpack[ReadingOptions],
) -> tuple[Material, Splits, Admission]:
    """Open data for training, divide them, and refuse what would make results wrong.

    Args:
        data: Any known layout, or an opened cohort.
        divide: How to divide the images.
        out: Where results will be written.
        leave_out: CSV with a column `id` of images not to use, or None.
        split: "group" or "random".
        allow: Findings of `check` to pass over.
        policies: Threshold policies, whose confidence the calibration split must be large enough for.
        **reading: Options of `open_cohort`.

    Returns:
        The images, their splits, and what the audit found.

    Raises:
        TumorTraceError: The data cannot be opened or divided, or `check` finds an error that is not allowed.
    """
    by_groups(split)  # a wrong word is refused first
    cohort = without(require_labels(open_cohort(data, **reading)).labelled, leave_out)
    refuse_within(out, cohort)
    material = Material(cohort, allow)
    splits = divide(material)
    material.require_enough(splits, policies)
    return material, splits, material.audit(splits, split=split, allow=allow)


def by_groups(split: str) -> bool:
    """Whether `--split` keeps slides or patients together.

    Raises:
        SplitError: It is neither "group" nor "random".
    """
    if split not in ("group", "random"):
        raise SplitError(f"--split {split!r}", expected="group or random", remedy="use one of these")
    return split == "group"


def without(cohort: Cohort, leave_out: str | None) -> Cohort:
    """The cohort without the images whose ids a CSV file lists; a note says how many.

    Raises:
        RecipeError: The list cannot be read.
    """
    if leave_out is None:
        return cohort
    expected, remedy = "a CSV file with a column id", "mend leave_out in the recipe"
    try:
        listed, _ = read_text(Path(leave_out), RecipeError)
    except OSError as error:
        found = f"not readable as a list of ids ({error.strerror})"
        raise RecipeError(found, where=leave_out, expected=expected, remedy=remedy) from None
    if "id" not in listed:
        raise RecipeError(f"columns {', '.join(map(str, listed))}", where=leave_out, expected=expected, remedy=remedy)
    kept = cohort.where(~cohort.table["id"].isin(listed["id"]))
    note = f"{len(cohort) - len(kept):,} of {len(cohort):,} images are left out, as {Path(leave_out).name} says"
    return replace(kept, notes=(*kept.notes, note), source=cohort.source)
