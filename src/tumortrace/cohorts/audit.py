"""The audit: every file of a cohort opened, and what is wrong with the data set told."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from tumortrace.cohorts.bags import open_bags
from tumortrace.cohorts.cohort import SPLITS, Cohort
from tumortrace.cohorts.copies import components, exact_copies, near_copies
from tumortrace.cohorts.findings import VERDICTS, Evidence, Finding, find_all
from tumortrace.cohorts.layouts import Opened, open_leniently
from tumortrace.cohorts.looks import NEARLY_BLANK, Look, Looks, as_table
from tumortrace.cohorts.resolution import resolutions
from tumortrace.cohorts.splits import LEAK, Splits
from tumortrace.errors import DataError
from tumortrace.images.reference import ImageRef
from tumortrace.records.data import AuditRecord
from tumortrace.records.progress import say


@dataclass(frozen=True)
class Audit:
    """What is wrong with a data set, and which images to leave out.

    Attributes:
        cohort_name: The cohort's name.
        data: Absolute path of the data, or how they are named otherwise; blank of an open cohort that came from none.
        fingerprint: Of the cohort.
        images: How many images there are.
        classes: Labelled images per class name.
        groups: How many slides or patients are known.
        splits: Images per split and class.
        findings: Errors first, then warnings, then notes; none where nothing is to be said against the data.
        notes: What was assumed on opening, and what is known about leakage.
        quarantine: Columns `id`, `path`, `finding`, `reason`: images that should be left out, once each, for the
            worst that stands against them.
        unit: What is counted as an image: `image`, or `slide` where rows are features of slides.
    """

    cohort_name: str
    images: int
    classes: dict[str, int]
    groups: int
    splits: dict[str, dict[str, int]]
    findings: tuple[Finding, ...]
    notes: tuple[str, ...]
    quarantine: pd.DataFrame
    data: str = ""
    fingerprint: str = ""
    unit: str = "image"

    @property
    def errors(self) -> tuple[Finding, ...]:
        """The findings that would make results wrong."""
        return tuple(finding for finding in self.findings if finding.verdict == "error")

    @property
    def warnings(self) -> tuple[Finding, ...]:
        """The findings that may mislead."""
        return tuple(finding for finding in self.findings if finding.verdict == "warning")

    def extended(self, findings: tuple[Finding, ...]) -> Audit:
        """The audit with further findings, errors first."""
        together = sorted((*self.findings, *findings), key=lambda finding: VERDICTS.index(finding.verdict))
        return replace(self, findings=tuple(together))

    def to_record(self) -> AuditRecord:
        """The audit as `audit.json` holds it."""
        return AuditRecord(
            cohort=self.cohort_name,
            data=self.data,
            fingerprint=self.fingerprint,
            images=self.images,
            unit=self.unit,
            classes=self.classes,
            groups=self.groups,
            splits=self.splits,
            findings=[finding.to_record() for finding in self.findings],
            notes=list(self.notes),
            quarantined=len(self.quarantine),
        )


def check(
    data: str | os.PathLike[str] | Cohort | Opened,
    *,
    splits: Splits | Callable[[dict[str, str]], Splits | None] | None = None,
    quick: bool = False,
    looks: pd.DataFrame | None = None,
    workers: int | None = None,
) -> Audit:
    """What is wrong with a data set, after a look at every picture of it.

    What was seen of a picture before, here or while it was decoded for a training, is taken from the cache as long as
    its file has the same size and time of change.

    Looked for are: files that are missing, unlabelled, cut off, unreadable or misnamed; odd sizes, kinds of pixels,
    EXIF orientations, masks; blank pictures, pictures out of focus, ink; ids and groups that repeat or differ in
    case only; labels that are missing, not binary or spelled in several ways, absent and rare classes; exact and
    near copies, turned and mirrored ones too, with both labels, across splits, across groups and within; groups in
    several splits; group, scanner, size, format or kind of pixels that tells the label.

    Args:
        data: A cohort, or a path of any known layout; of a path, also the rows and files are judged that do not
            become part of the cohort.
        splits: The splits to be used, or what makes them of the `exact_copies` that are found; default those that the
            data bring, if any.
        quick: Look at tables and at whether files are there, and open none.
        looks: For a quick audit: what decoding showed of the images, in the order of the cohort (as a patch store has
            them); near copies are not looked for.
        workers: How many decode at once; default one per core.

    Returns:
        The findings and the images to leave out.

    Raises:
        CohortError: `data` is a path that does not open as a cohort.

    Example:
        >>> import tempfile; from PIL import Image
        >>> file = tempfile.mkdtemp() + "/a.png"
        >>> Image.new("RGB", (8, 8), "white").save(file)
        >>> table = pd.DataFrame({"id": ["a"], "path": [file], "label": [1], "group": ["A"], "split": [None]})
        >>> [(finding.verdict, finding.name) for finding in check(Cohort("mine", "table", table)).findings]
        [('error', 'class-absent'), ('warning', 'blank')]
    """
    opened = data if isinstance(data, Opened) else open_leniently(data)
    cohort = opened.cohort
    table = cohort.table
    seen, small = _quickly(table, looks) if quick else _thoroughly(cohort, workers)
    if callable(splits):
        splits = splits(exact_copies(table["id"], seen))
    seen = seen.assign(resolution=resolutions(cohort, seen))
    table = table.drop(columns=[column for column in table if column in Look._fields]).join(seen)
    table["own_split"] = table["split"]
    if splits is not None:
        assigned = splits.table.drop_duplicates("id").set_index("id")["split"]
        table["split"] = table["id"].map(assigned).astype("string").fillna(table["own_split"])
    if len(small):
        table = table.join(_near(table, small))
    findings = find_all(Evidence(table, cohort, opened.listing.rows, opened.listing.strays, opened.refusal))
    notes = cohort.notes if splits is None else (*cohort.notes, f"leakage is {splits.leakage}", *splits.notes)
    return Audit(
        cohort.name,
        len(cohort),
        _counts(table, cohort.classes),
        int(table["group"].nunique()),
        {
            name: _counts(table[table["split"] == name], cohort.classes)
            for name in SPLITS
            if (table["split"] == name).any()
        },
        findings,
        notes,
        _quarantine(table, findings),
        data=cohort.origin,
        fingerprint=cohort.fingerprint,
        unit=cohort.unit,
    )


def refuse(audit: Audit, allow: Collection[str] = ()) -> tuple[str, ...]:
    """Nothing, if every error of the audit is allowed; the names of those that were needed, for the record.

    Args:
        audit: The audit.
        allow: Names of findings that the user overrides.

    Raises:
        DataError: Naming the errors that are not.

    Example:
        >>> refuse(Audit("mine", 0, {}, 0, {}, (), (), pd.DataFrame()))
        ()
    """
    found = {finding.name for finding in audit.findings}
    for name in sorted({*allow} - found - {LEAK}):  # which a random split allows by itself
        say(f"note: --allow {name} changes nothing: check finds nothing of this name here")
    standing = [finding for finding in audit.errors if finding.name not in allow]
    if standing:
        told = "; ".join(f"{finding.name}: {finding.message}" for finding in standing)
        asked = [finding.remedy for finding in standing if "--" in finding.remedy]
        flags = " ".join(f"--allow {finding.name}" for finding in standing)
        remedy = "; ".join([*asked, f"run `tumortrace check` and repair them, or override knowingly with {flags}"])
        raise DataError(told, where=audit.cohort_name, expected="data without errors", remedy=remedy)
    return tuple(finding.name for finding in audit.errors)


def _quickly(table: pd.DataFrame, looks: pd.DataFrame | None) -> tuple[pd.DataFrame, np.ndarray]:
    """What is seen without opening a file: whether it is there, and of decoded images their digest and spread."""
    if looks is not None:
        return looks.reset_index(drop=True), np.zeros(0)
    files = [ImageRef.parse(path).file for path in table["path"]]
    there = {file: os.path.exists(file) for file in set(files)}
    return as_table([Look(problem=None if there[file] else "missing") for file in files]), np.zeros(0)


def _thoroughly(cohort: Cohort, workers: int | None) -> tuple[pd.DataFrame, np.ndarray]:
    if cohort.has_bags:
        return open_bags(cohort, keep_failed=True).looks, np.zeros(0)
    looks = Looks(cohort, workers=workers)
    return looks.table, looks.small


def _near(table: pd.DataFrame, small: np.ndarray) -> pd.DataFrame:
    """Columns `near` (number of the set of near-copies, missing for most) and `turned`; exact copies count as one."""
    sound = table["digest"].notna() & (table["spread"] >= NEARLY_BLANK) & ~table["two_valued"].fillna(True)
    rows = np.flatnonzero((sound & ~table["digest"].duplicated()).to_numpy())
    sides = table[["height", "width"]].min(axis=1).fillna(0).to_numpy(int)[rows]
    pairs = near_copies(small[rows], sides)
    sets = components(pairs, len(rows))
    turned = np.zeros(len(rows), bool)
    turned[pairs.first[pairs.turned]] = turned[pairs.second[pairs.turned]] = True
    known = pd.DataFrame({"near": sets, "turned": turned}, index=table["digest"].iloc[rows])[sets >= 0]
    near = table["digest"].where(sound).map(known["near"]).astype("Int64")
    return pd.DataFrame({"near": near, "turned": table["digest"].map(known["turned"]).fillna(False).astype(bool)})


def _counts(table: pd.DataFrame, classes: tuple[str, str]) -> dict[str, int]:
    return {name: int((table["label"] == label).sum()) for label, name in enumerate(classes)}


def _quarantine(table: pd.DataFrame, findings: tuple[Finding, ...]) -> pd.DataFrame:
    rows = [(row, finding.name, reason) for finding in findings for row, reason in finding.leave_out.items()]
    found = pd.DataFrame(rows, columns=["row", "finding", "reason"]).drop_duplicates("row").sort_values("row")
    return (
        table.loc[found["row"], ["id", "path"]]
        .reset_index(drop=True)
        .join(found[["finding", "reason"]].reset_index(drop=True))
    )
