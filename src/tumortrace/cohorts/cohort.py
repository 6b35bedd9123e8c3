"""The cohort: what every data layout opens into."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import pandas as pd

SPLITS = ("train", "validation", "calibration", "test")
COLUMNS = ("id", "path", "label", "group", "split")


@dataclass(frozen=True)
class Cohort:
    """Labelled (or unlabelled) images as a table, one row per image.

    Attributes:
        name: Short name for reports, usually the folder's.
        layout: Name of the layout that opened it.
        table: Columns `id` (str, unique unless the audit says otherwise), `path` (str; absolute file, or
            `file.h5::row` for a row of an HDF5 array), `label` (Int64: 1 positive, 0 negative, missing unlabelled),
            `group` (string: slide or patient, missing when not known) and `split` (string: one of `SPLITS`, missing
            when the data do not say); then `x`, `y`, `width`, `height` in pixels where known, and columns of the
            user's own.
        classes: Names of the negative and of the positive class, in this order.
        resolution: Micrometres per pixel, or None when not known.
        notes: What was assumed while opening, to be said aloud.
        preparation: The record of what was done to the images by `tumortrace prepare`, or None.

    Example:
        >>> table = pd.DataFrame({"id": ["a"], "path": ["a.png"], "label": [1], "group": [None], "split": [None]})
        >>> cohort = Cohort("mine", "table", table, ("benign", "malignant"))
        >>> cohort.positive_class, cohort.has_groups, len(cohort)
        ('malignant', False, 1)
    """

    name: str
    layout: str
    table: pd.DataFrame
    classes: tuple[str, str] = ("negative", "positive")
    resolution: float | None = None
    notes: tuple[str, ...] = field(default=())
    preparation: dict[str, Any] | None = None

    def __post_init__(self) -> None:
        missing = [column for column in COLUMNS if column not in self.table]
        if missing:
            raise ValueError(f"a cohort's table needs the columns {COLUMNS}; missing: {missing}")
        table = self.table.reset_index(drop=True)
        types = {"id": "string", "path": "string", "label": "Int64", "group": "string", "split": "string"}
        object.__setattr__(self, "table", table.astype(types))

    def __len__(self) -> int:
        return len(self.table)

    @property
    def positive_class(self) -> str:
        """Name of the class that label 1 stands for."""
        return self.classes[1]

    @property
    def has_groups(self) -> bool:
        """Whether the slide or patient of every image is known, so that leakage can be ruled out."""
        return len(self.table) > 0 and bool(self.table["group"].notna().all())

    @property
    def labelled(self) -> Cohort:
        """The rows that carry a label, with a note on how many do not."""
        known = self.table["label"].notna()
        if known.all():
            return self
        without = f"{int((~known).sum()):,} of {len(self):,} images carry no label and are left out"
        return replace(self.where(known), notes=(*self.notes, without))

    def where(self, rows: pd.Series) -> Cohort:
        """The cohort of the rows for which the boolean series `rows` is true."""
        return replace(self, table=self.table[rows.to_numpy()])

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 over ids, labels, groups, splits, class names and each file's name, size and time of change.

        It changes when a file is edited, added or removed and when a label changes; contents are not read.
        """
        digest = hashlib.sha256(repr((self.classes, self.resolution)).encode())
        stats: dict[str, tuple[str, int, int]] = {}
        for path in self.table["path"]:
            file = path.partition("::")[0]
            if file not in stats:
                try:
                    stat = os.stat(file)
                    stats[file] = (os.path.basename(file), stat.st_size, stat.st_mtime_ns)
                except OSError:
                    stats[file] = (os.path.basename(file), -1, -1)
        columns = [self.table[column].astype(object).where(self.table[column].notna(), None) for column in COLUMNS]
        for identity, path, label, group, split in zip(*columns, strict=True):
            file, _, row = path.partition("::")
            digest.update(repr((identity, stats[file], row, label, group, split)).encode())
        return digest.hexdigest()
