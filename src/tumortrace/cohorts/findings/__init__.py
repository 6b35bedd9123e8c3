"""What can be wrong with a data set: one file per subject, each found by itself.

A finder is a function of the `Evidence` that yields findings; registering it makes it known. What was not looked at
is missing in the evidence and yields nothing, so that the same finders serve the quick audit and the whole one.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Literal

import pandas as pd

from tumortrace.cohorts.cohort import Cohort
from tumortrace.cohorts.looks import showing
from tumortrace.errors import plain, shortened
from tumortrace.records.data import ExampleFound, FindingRecord
from tumortrace.registry import Registry

Verdict = Literal["error", "warning", "note"]
VERDICTS: tuple[Verdict, ...] = ("error", "warning", "note")
EXAMPLES = 8
LEAVE_OUT = "leave out what stands in quarantine.csv"


@dataclass(frozen=True)
class Example:
    """One image, id or group that a finding is about.

    Attributes:
        id: The image's id, or what else is named.
        path: Its file, where it is an image.
        says: What is to be said of it: a reason, or where it stands.
        set: Examples with the same number belong together, as copies do; 0 belongs to none.
    """

    id: str
    path: str = ""
    says: str = ""
    set: int = 0


@dataclass(frozen=True)
class Finding:
    """One thing to know about a data set.

    Attributes:
        name: Short name, the same for every data set.
        verdict: `error` (results would be wrong), `warning` (they may mislead) or `note`.
        count: How many images, ids or groups it concerns.
        message: What was found, as a sentence without full stop.
        remedy: What to do, or nothing.
        examples: The first few.
        leave_out: Reason by row of the cohort's table, for images that should be left out.
    """

    name: str
    verdict: Verdict
    count: int
    message: str
    remedy: str = ""
    examples: tuple[Example, ...] = ()
    leave_out: Mapping[int, str] = field(default_factory=dict, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "message", shortened(self.message))
        object.__setattr__(self, "remedy", shortened(self.remedy))

    @property
    def line(self) -> str:
        """The message with the first three examples."""
        names = ", ".join(plain(example.id) for example in self.examples[:3])
        return f"{self.message} ({names}{', ...' if len(self.examples) > 3 else ''})" if names else self.message

    def to_record(self, examples: bool = True) -> FindingRecord:
        """The finding as `audit.json` holds it; without examples as other records do."""
        record = FindingRecord(
            name=self.name, verdict=self.verdict, count=self.count, message=self.message, remedy=self.remedy
        )
        if not examples:
            return record
        shown = [ExampleFound(**{key: value for key, value in vars(one).items() if value}) for one in self.examples]
        return record.model_copy(update={"examples": shown})


@dataclass(frozen=True)
class Evidence:
    """What was seen of a data set.

    Attributes:
        table: The cohort's table with `split` as it will be used, `own_split` as the data say, `near` (which images
            are nearly alike, by number), `turned` (whether one of these is turned or mirrored) and what
            `tumortrace.cohorts.looks` measures.
        cohort: For class names and the layout.
        listed: Every row of the user's label table: `id`, `text` (the label as written), `file` (missing where there
            is none), indexed by line; empty where the data have no such table.
        unlisted: Images that lie beside the others and that no row and no class folder names.
        refusal: Why `open_cohort` refuses the data, or nothing.
        size: Height and width in pixels to which the images are brought; None for the most frequent size.
    """

    table: pd.DataFrame
    cohort: Cohort
    listed: pd.DataFrame = field(default_factory=lambda: pd.DataFrame({"id": [], "text": [], "file": []}))
    unlisted: tuple[str, ...] = ()
    refusal: str = ""
    size: tuple[int, int] | None = None

    @cached_property
    def sound(self) -> pd.DataFrame:
        """The images that were decoded."""
        return self.table[self.table["digest"].notna()]

    @cached_property
    def vivid(self) -> pd.DataFrame:
        """Those that show something: neither blank nor a mask."""
        return self.table[showing(self.table)]


Finder = Callable[[Evidence], Iterator[Finding]]
FINDERS: Registry[Finder] = Registry("finder", "tumortrace.cohorts.findings")

_SAID_BY = {
    "odd-size": "size-tells-label",
    "mode-": "kind-tells-label",
    "images-": "kind-tells-label",
    "wrong-format": "format-tells-label",
}
"""Findings that say nothing new where another stands."""


def find_all(evidence: Evidence) -> tuple[Finding, ...]:
    """Every finding, errors first."""
    found = [finding for name in FINDERS for finding in FINDERS[name](evidence)]
    if evidence.refusal and not any(finding.verdict == "error" for finding in found):
        found.append(Finding("not-opened", "error", 1, evidence.refusal.rstrip(". ")))
    names = {finding.name for finding in found}
    told = tuple(start for start, other in _SAID_BY.items() if other in names)
    found = [finding for finding in found if not finding.name.startswith(told)] if told else found
    if evidence.cohort.has_bags:
        found = [replace(one, message=_of_slides(one.message), remedy=_of_slides(one.remedy)) for one in found]
    return tuple(sorted(found, key=lambda finding: VERDICTS.index(finding.verdict)))


def _of_slides(text: str) -> str:
    return re.sub(r"(?<![-\w])image(s?)(?![-\w])", r"slide\1", text)  # options keep their names


def examples(rows: pd.DataFrame, says: Iterable[object] | None = None) -> tuple[Example, ...]:
    """The first of these images, each with what is to be said of it."""
    first = rows.head(EXAMPLES)
    texts = [""] * len(first) if says is None else map(str, says)
    return tuple(Example(*each) for each in zip(first["id"], first["path"], texts, strict=False))


def several(table: pd.DataFrame, by: str, column: str) -> pd.Series:
    """Whether the row's value of `by` stands with several values of `column` in the table."""
    return (table.groupby(by)[column].transform("nunique") > 1).fillna(False).astype(bool)


def count(number: int, what: str) -> str:
    """A number with its noun.

    Example:
        >>> count(1, "image"), count(2000, "copy")
        ('1 image', '2,000 copies')
    """
    plural = what[:-1] + "ies" if what.endswith("y") else what + "s"
    return f"{number:,} {what if number == 1 else plural}"
