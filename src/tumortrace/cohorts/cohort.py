"""The cohort: what every data layout opens into."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from functools import cached_property
from typing import Any, TypedDict

import pandas as pd

from tumortrace.cohorts.labels import names_of, same_class
from tumortrace.errors import CohortError, shortened
from tumortrace.images.reference import ImageRef
from tumortrace.records.stores import url_of

SPLITS = ("train", "validation", "calibration", "test")
COLUMNS = ("id", "path", "label", "group", "split")
BAGS = "slide-features"
"""The layout whose rows are slides with features of their tiles, and no images."""
TAUGHT = "body_learnt_from_it"
"""Column of such slides: whether the body of the features has learnt from patches of the slide or its patient."""


class ReadingOptions(TypedDict, total=False):
    """The fields of `Reading` as keywords, which every function that takes data takes too."""

    positive: str | None
    group_column: str | None
    group_from_name: str | None
    label_from_name: str | None
    resolution: float | None
    bits: int | None
    merge: Sequence[str]
    class_order: str | None
    label_column: str | None
    image_column: str | None


@dataclass(frozen=True)
class Reading:
    """How data are to be read: what the user says of them beyond where they are.

    Attributes:
        positive: Name of the positive class, where its spelling does not tell; of more than two classes all that count
            as tumour, such as `invasive,insitu`.
        group_column: Column of the user's table that names the slide or patient.
        group_from_name: Regular expression that finds the slide or patient in each file's name (without extension), or
            else in its path from the data on (`^[^/]+/([^/]+)/` is the second folder): its one capturing group, or all
            that it matches.
        label_from_name: The same for the class; it replaces labels found otherwise.
        label_column: Column of the user's table that holds the classes, where it is not called label.
        image_column: Column of the user's table that says where images are, where its name does not tell.
        resolution: Micrometres per pixel, where the data do not say; it replaces what they say.
        bits: Bits that the numbers of deep images hold where the files do not say, such as 12 for 12 bits stored in 16.
        merge: Classes to take for one, such as `normal=benign,normal`.
        class_order: More than two classes in an order that means something, such as `normal,grade3,grade4,grade5`.

    Raises:
        CohortError: The resolution or the bits are out of range.
    """

    positive: str | None = None
    group_column: str | None = None
    group_from_name: str | None = None
    label_from_name: str | None = None
    resolution: float | None = None
    bits: int | None = None
    merge: Sequence[str] = field(default=(), kw_only=True)  # a list, as the command line takes it
    class_order: str | None = field(default=None, kw_only=True)
    label_column: str | None = field(default=None, kw_only=True)
    image_column: str | None = field(default=None, kw_only=True)

    def __post_init__(self) -> None:
        object.__setattr__(self, "merge", tuple(self.merge or ()))  # lists from records and callers compare alike
        if self.bits is not None and not 9 <= self.bits <= 16:
            expected = "9 to 16, such as 12; images of 8 bits need none"
            raise CohortError(f"--bits {self.bits}", expected=expected)
        if self.resolution is not None and not 0 < self.resolution < 1000:
            found = f"--resolution {self.resolution}"
            raise CohortError(found, expected="micrometres per pixel, such as 0.5 or 0.97")


READING = tuple(option.name for option in fields(Reading))
"""Names of the options, under which runs record them."""


@dataclass(frozen=True)
class Source:
    """Where a cohort came from: all that `open_cohort` needs to open it again.

    Attributes:
        path: The data as the user named them.
        reading: How they were read.

    Example:
        >>> source = Source("slides", Reading(resolution=0.5))
        >>> source.arguments()["data"], Source.recorded(source.arguments()) == source
        ('slides', True)
    """

    path: str
    reading: Reading = Reading()

    def arguments(self) -> dict[str, str | float | list[str] | None]:
        """`data` and every option, as a run records them among its arguments."""
        return {"data": self.path, **asdict(self.reading), "merge": list(self.reading.merge)}

    @classmethod
    def recorded(cls, arguments: Mapping[str, Any]) -> Source | None:
        """The source that a run's arguments name; None where it was given a cohort that nothing was opened for."""
        path = arguments.get("data")
        return (
            None
            if path is None
            else cls(path, Reading(**{name: arguments[name] for name in READING if name in arguments}))
        )


@dataclass(frozen=True)
class Cohort:
    """Labelled (or unlabelled) images as a table, one row per image.

    Attributes:
        name: Short name for reports, usually the folder's.
        layout: Name of the layout that opened it.
        table: Columns `id` (str, unique unless the audit says otherwise), `path` (str; absolute file, or
            `file.h5::row` for a row of an HDF5 array), `label` (Int64: 1 positive, 0 negative, missing unlabelled),
            `group` (string: slide or patient, missing when not known) and `split` (string: one of `SPLITS`, missing
            when the data do not say); then `x`, `y`, `width`, `height` in pixels where known, `class_name` where there
            are more than two classes, and columns of the user's own.
        classes: Names of the negative and of the positive class, in this order; of several the names joined by `+`.
        resolution: Micrometres per pixel, or None when not known.
        notes: What was assumed while opening, to be said aloud.
        preparation: The record of what was done to the images by `tumortrace prepare`, or None.
        bits: As `Reading` has them.
        source: What it was opened from; None where it was made otherwise, or is a choice of rows.
        class_names: Names of all classes where there are more than two, negative ones first; else empty.
        positive_names: Those of `class_names` that count as positive.
        ordered: Whether the order of `class_names` means something, as that of grades does.

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
    source: Source | None = None
    bits: int | None = None
    class_names: tuple[str, ...] = ()
    positive_names: tuple[str, ...] = ()
    ordered: bool = False

    def __post_init__(self) -> None:
        missing = [column for column in COLUMNS if column not in self.table]
        if missing:
            raise ValueError(f"a cohort's table needs the columns {COLUMNS}; missing: {missing}")
        table = self.table.reset_index(drop=True)
        types = {"id": "string", "path": "string", "label": "Int64", "group": "string", "split": "string"}
        object.__setattr__(self, "table", table.astype(types))
        object.__setattr__(self, "notes", tuple(map(shortened, self.notes)))

    def __len__(self) -> int:
        return len(self.table)

    @property
    def positive_class(self) -> str:
        """Name of the class that label 1 stands for."""
        return self.classes[1]

    def in_order(self, order: str | None, where: object = None) -> Cohort:
        """The cohort with its classes in an order that means something; as it is for None.

        Args:
            order: All of more than two class names, separated by commas.
            where: The data, for messages.

        Raises:
            CohortError: These are other names, or there are two classes.
        """
        if order is None:
            return self
        spelled = [(name, same_class(name, self.class_names)) for name in names_of(order, self.class_names)]
        names = tuple(name or text for text, name in spelled)
        if len(names) < 3 or sorted(names) != sorted(self.class_names):
            raise CohortError(
                f"--class-order {order}",
                where=where,
                expected="each of " + ", ".join(self.class_names) + ", once" if self.class_names else "two classes",
                remedy="leave it out, or name more than two classes in their order",
            )
        return replace(self, class_names=names, ordered=True, source=self.source)

    @property
    def kinds(self) -> pd.Series:
        """Each image's class as a number: its label, of more than two classes its place in `class_names`; Int64."""
        if not self.class_names:
            return self.table["label"]
        places = {name: place for place, name in enumerate(self.class_names)}
        return self.table["class_name"].map(places).astype("Int64")

    @property
    def origin(self) -> str:
        """Where it came from: an absolute path, a URL, a specification of synthetic tissue, or blank without one."""
        named = self.source.path if self.source else ""
        kept = not named or named.startswith("synthetic:") or url_of(named) is not None
        return named if kept else os.path.abspath(os.path.expanduser(named))

    @property
    def has_bags(self) -> bool:
        """Whether its rows are slides with features of their tiles, and no images."""
        return self.layout == BAGS

    @property
    def unit(self) -> str:
        """What a row is, for messages."""
        return "slide" if self.has_bags or self.layout == "slides" else "image"

    @property
    def has_groups(self) -> bool:
        """Whether the slide or patient of every image is known, so that leakage can be ruled out."""
        return len(self.table) > 0 and bool(self.table["group"].notna().all())

    @property
    def labelled(self) -> Cohort:
        """The rows that carry a label, with a note on how many do not; `source` stays, as it is done alike again."""
        known = self.table["label"].notna()
        if known.all():
            return self
        without = f"{int((~known).sum()):,} of {len(self):,} images carry no label and are left out"
        return replace(self.where(known), notes=(*self.notes, without), source=self.source)

    def where(self, rows: pd.Series) -> Cohort:
        """The cohort of the rows for which the boolean series `rows` is true; its `source`, which has more, is None."""
        return replace(self, table=self.table[rows.to_numpy()], source=None)

    @property
    def images(self) -> tuple[ImageRef, ...]:
        """Where each image is, in the order of the table."""
        return tuple(map(ImageRef.parse, self.table["path"]))

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 over ids, labels, groups, splits, classes, their names and each file's name, size and time of change.

        It changes when a file is edited, added or removed and when a label changes; contents are not read.
        """
        told = (self.classes, self.resolution, *([self.bits] if self.bits else []))
        digest = hashlib.sha256(repr(told).encode())
        if self.class_names:
            digest.update(repr((self.class_names, self.positive_names)).encode())
        stats: dict[str, tuple[str, int, int]] = {}
        for file in {image.file for image in self.images}:
            try:
                stat = os.stat(file)
                stats[file] = (os.path.basename(file), stat.st_size, stat.st_mtime_ns)
            except OSError:
                stats[file] = (os.path.basename(file), -1, -1)
        for image, (identity, *rest) in zip(self.images, self.rows(), strict=True):
            digest.update(repr((identity, stats[image.file], image.part, *rest)).encode())
        return digest.hexdigest()

    def rows(self) -> Iterator[tuple[Any, ...]]:
        """`id, label, group, split` of each image, and of more than two classes its own; None where one is missing."""
        names = ("id", "label", "group", "split", *(["class_name"] if self.class_names else []))
        columns = [self.table[column] for column in names]
        yield from zip(*(column.astype(object).where(column.notna(), None) for column in columns), strict=True)
