"""What decoding showed, in the words of `check`, for every verb that decodes."""

from __future__ import annotations

from collections.abc import Collection, Iterable

import pandas as pd

from tumortrace.cohorts.cohort import Cohort
from tumortrace.cohorts.findings import FINDERS, Evidence, Finding
from tumortrace.cohorts.looks import Look
from tumortrace.cohorts.resolution import resolutions
from tumortrace.errors import DataError
from tumortrace.records.progress import say

_RESIZED = ("odd-size",)  # which the store's own note tells


def judge(cohort: Cohort, looks: pd.DataFrame, size: tuple[int, int] | None = None) -> tuple[Finding, ...]:
    """What `check` would say of these pictures: all about their form, and what may mislead about their quality.

    Args:
        cohort: The images.
        looks: What decoding showed of them, in the order of the cohort.
        size: Height and width to which they are brought; None for the most frequent.

    Example:
        >>> from tumortrace.cohorts.looks import as_table
        >>> table = pd.DataFrame({"id": ["a"], "path": "a.jpg", "label": 1, "group": None, "split": None})
        >>> look = Look(digest="0", kind="RGB", orientation=6, width=400, height=400, spread=30.0, colour=20.0)
        >>> for finding in judge(Cohort("mine", "table", table), as_table([look]), (96, 96)):
        ...     print(finding.line)
        1 image with an EXIF orientation: shown turned or mirrored against the pixels (a)
        1 image has to shrink by more than 2 to 96x96 pixels, and what is fine in them is lost (a)
    """
    table = cohort.table.drop(columns=[column for column in cohort.table if column in Look._fields])
    seen = looks.reset_index(drop=True).assign(resolution=resolutions(cohort, looks))
    evidence = Evidence(table.join(seen), cohort, size=size)
    forms = [finding for finding in FINDERS["forms"](evidence) if finding.name not in _RESIZED]
    quality = [finding for finding in FINDERS["quality"](evidence) if finding.verdict != "note"]
    return (*forms, *quality)


def tell(cohort: Cohort, looks: pd.DataFrame, size: tuple[int, int] | None = None) -> list[str]:
    """Say what decoding showed, for a verb that asks no model; bits that nothing states are asked for.

    Raises:
        DataError: Bits are doubtful.
    """
    findings = judge(cohort, looks, size)
    doubtful = [finding for finding in findings if finding.name == "pixels-doubtful"]
    if doubtful:
        raise DataError(doubtful[0].line, where=cohort.name, remedy=doubtful[0].remedy)
    for finding in findings:
        say(f"note: {finding.line}")
    return [finding.line for finding in findings]


def refuse_errors(findings: Iterable[Finding], allow: Collection[str], where: object) -> None:
    """Nothing, if what would make answers wrong is allowed.

    Raises:
        DataError: Naming what is not, in the words of `check`, with what to do.
    """
    standing = [finding for finding in findings if finding.verdict == "error" and finding.name not in allow]
    if standing:
        told = "; ".join(f"{finding.name}: {finding.line}" for finding in standing)
        remedies = "; ".join(finding.remedy for finding in standing if finding.remedy)
        flags = " ".join(f"--allow {finding.name}" for finding in standing)
        raise DataError(told, where=where, remedy=f"{remedies}; or go on knowingly with {flags}")
