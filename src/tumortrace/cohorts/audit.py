"""The audit: every file of a cohort opened, and what is wrong with the data set told."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pandas as pd

from tumortrace.cohorts.cohort import Cohort
from tumortrace.cohorts.findings import NEARLY_BLANK, Finding, conflicting_copies, find_all, spilled_copies
from tumortrace.cohorts.images import read_image
from tumortrace.cohorts.splits import Splits
from tumortrace.errors import ImageError
from tumortrace.runs.progress import track

_BATCH = 64  # images per task of a thread


@dataclass(frozen=True)
class Audit:
    """What is wrong with a data set, and which images to leave out.

    Attributes:
        cohort_name: The cohort's name.
        images: How many images there are.
        classes: Labelled images per class name.
        findings: Errors first, then warnings, then notes.
        quarantine: Columns `id`, `path`, `finding`: images that should be left out, once each.
    """

    cohort_name: str
    images: int
    classes: dict[str, int]
    findings: tuple[Finding, ...]
    quarantine: pd.DataFrame

    @property
    def errors(self) -> tuple[Finding, ...]:
        """The findings that would make results wrong."""
        return tuple(finding for finding in self.findings if finding.verdict == "error")

    def to_json(self) -> dict[str, Any]:
        """The audit as plain dictionaries, lists, strings and numbers, as `audit.json` holds it."""
        return {
            "cohort": self.cohort_name,
            "images": self.images,
            "classes": self.classes,
            "findings": [asdict(finding) | {"examples": list(finding.examples)} for finding in self.findings],
        }


def check(cohort: Cohort, *, splits: Splits | None = None, workers: int | None = None) -> Audit:
    """What is wrong with a data set, after opening every file of it.

    Looked for are: files that cannot be decoded; sizes other than the usual one; blank and nearly blank images; grey
    images among coloured ones; missing labels, an absent class, class balance; ids that come twice; exact copies
    (the same decoded pixels) within a split, with both labels, across splits and across groups; groups that are not
    known or stand in several splits, or are each of one class; size, file type or lack of colour that alone tells the
    label. Blank images, which are alike everywhere, are no leak. Near-copies (shifted, recompressed) are not looked
    for.

    Args:
        cohort: The images.
        splits: The splits to be used; default those that the data bring, if any.
        workers: Threads that decode; default one per core.

    Returns:
        The findings and the images to leave out: undecodable ones, copies with both labels, and those copies across
        splits that stand nearer to training.

    Example:
        >>> import tempfile; from PIL import Image
        >>> file = tempfile.mkdtemp() + "/a.png"
        >>> Image.new("RGB", (8, 8), "white").save(file)
        >>> table = pd.DataFrame({"id": ["a"], "path": [file], "label": [1], "group": ["A"], "split": [None]})
        >>> [(finding.verdict, finding.name) for finding in check(Cohort("mine", "table", table)).findings]
        [('error', 'class-absent'), ('warning', 'blank')]
    """
    seen = cohort.table.join(_look_at_all(cohort.table["path"].tolist(), workers or os.cpu_count() or 1))
    seen["own_split"] = seen["split"]
    findings: list[Finding] = []
    if splits is not None:
        assigned = splits.table.drop_duplicates("id").set_index("id")["split"]
        seen["split"] = seen["id"].map(assigned).astype("string").fillna(seen["own_split"])
        findings = [Finding("split", "note", 1, note) for note in (splits.leakage, *splits.notes)]
    labels = seen["label"]
    classes = {name: int((labels == label).sum()) for label, name in enumerate(cohort.classes)}
    found = (*find_all(seen, cohort), *findings)
    return Audit(cohort.name, len(cohort), classes, found, _quarantine(seen))


def _quarantine(seen: pd.DataFrame) -> pd.DataFrame:
    sound = seen[seen["problem"].isna()]
    reasons = {
        "unreadable": seen[seen["problem"].notna()],
        "copies-conflict": conflicting_copies(sound),
        "copies-across-splits": spilled_copies(sound[sound["spread"] >= NEARLY_BLANK]),
    }
    rows = pd.concat([table.assign(finding=name) for name, table in reasons.items()])
    return rows.loc[~rows.index.duplicated(), ["id", "path", "finding"]].reset_index(drop=True)


def _look_at_all(paths: list[str], workers: int) -> pd.DataFrame:
    """What decoding shows of each image, one row per path."""
    batches = [paths[start : start + _BATCH] for start in range(0, len(paths), _BATCH)]
    with ThreadPoolExecutor(workers) as pool:
        looked = [row for batch in track(pool.map(_look, batches), "opening files", len(batches)) for row in batch]
    columns = {"problem": "string", "height": "Int64", "width": "Int64", "digest": "string"}
    table = pd.DataFrame(looked, columns=[*columns, "spread", "colour"])
    return table.astype({**columns, "spread": float, "colour": float})


def _look(paths: Sequence[str]) -> list[tuple[object, ...]]:
    return [_look_once(path) for path in paths]


def _look_once(path: str) -> tuple[object, ...]:
    """Problem, height, width, digest of shape and pixels, spread and colour; the last two from a thinned grid."""
    try:
        image = read_image(path)
    except ImageError as error:
        return error.found, None, None, None, np.nan, np.nan
    height, width = image.shape[:2]
    digest = hashlib.blake2b(image.tobytes(), digest_size=16, person=f"{height}x{width}".encode()[:16]).hexdigest()
    thinned = image[:: max(1, height // 32), :: max(1, width // 32)].reshape(-1, 3)
    channels = np.ascontiguousarray(thinned.T, dtype=np.float32)
    colour = (channels.max(axis=0) - channels.min(axis=0)).mean()
    return None, height, width, digest, float(channels.std(axis=1).max()), float(colour)
