"""Classes that data state themselves, as generated and prepared images do, read in another way that the user asks."""

from __future__ import annotations

from dataclasses import replace

from tumortrace.cohorts.cohort import Cohort, Reading
from tumortrace.cohorts.labels import binary_labels, merged_name, refuse_options
from tumortrace.errors import CohortError


def read_again(cohort: Cohort, reading: Reading, where: object) -> Cohort:
    """The cohort with `--positive` and `--merge` applied to the classes that it states.

    A class made of several keeps their side; which one a class of both sides is on has to be said.

    Raises:
        CohortError: There are two classes, which stay as they are; a name is none of them; or classes of both sides
            become one and `positive` does not say on which.

    Example:
        >>> from tumortrace.cohorts.layouts import open_cohort
        >>> open_cohort("synthetic:tissues?count=96", merge=["no=normal,benign"]).class_names
        ('no', 'insitu', 'invasive')
    """
    if not cohort.class_names:
        refuse_options(reading.positive, reading.merge, cohort.classes, where)
        return cohort
    if reading.positive is None and not reading.merge:
        return cohort
    texts = cohort.table["class_name"].fillna("").tolist()
    positive = reading.positive or _sides_kept(cohort, reading, where)
    labels = binary_labels(texts, positive=positive, merge=reading.merge, where=where)
    table = labels.into(cohort.table.drop(columns="class_name"))
    return replace(cohort, table=table, notes=(*cohort.notes, *filter(None, [labels.note])), **labels.naming)


def _sides_kept(cohort: Cohort, reading: Reading, where: object) -> str:
    """The classes that are positive after merging, separated by commas."""
    sides: dict[str, set[bool]] = {}
    for name in cohort.class_names:
        sides.setdefault(merged_name(name, reading.merge), set()).add(name in cohort.positive_names)
    if mixed := [name for name, both in sides.items() if len(both) > 1]:
        raise CohortError(
            f"--merge makes {mixed[0]!r} of classes that count as tumour and classes that do not",
            where=where,
            expected=f"classes of one side; as tumour count {', '.join(cohort.positive_names)}",
            remedy="say with --positive which classes count as tumour then",
        )
    return ",".join(name for name, side in sides.items() if side == {True})
