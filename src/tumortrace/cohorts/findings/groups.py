"""Groups (slides or patients): unknown, in several splits, each of one class."""

from __future__ import annotations

from collections.abc import Iterator

import pandas as pd

from tumortrace.cohorts.findings import EXAMPLES, FINDERS, Evidence, Example, Finding, several

FEW = 10  # groups per class below which groups of one class each are no basis
TELLS = 0.8  # informedness of the guess "as the others of its group" from which on the group tells the label


@FINDERS.register("groups")
def find(evidence: Evidence) -> Iterator[Finding]:
    """Findings about groups."""
    yield from _across_splits(evidence.table)
    yield from _unknown(evidence.table)
    yield from _telling(evidence.table)


def _across_splits(table: pd.DataFrame) -> Iterator[Finding]:
    bad = table[several(table, "group", "split")]
    groups = bad["group"].unique()
    if len(groups):
        known = table["group"].nunique()
        message = f"patients leak: {len(groups):,} of {known:,} groups (slides or patients) stand in several splits"
        remedy = "split by group (--split group), or correct the split column"
        where = bad.groupby("group")["split"].value_counts()
        says = [
            ", ".join(f"{images} in {split}" for split, images in where[name].items()) for name in groups[:EXAMPLES]
        ]
        shown = tuple(Example(name, says=text) for name, text in zip(groups, says, strict=False))
        yield Finding("groups-across-splits", "error", len(groups), message, remedy, shown)


def _unknown(table: pd.DataFrame) -> Iterator[Finding]:
    unknown = int(table["group"].isna().sum())
    if unknown:
        message = f"leakage is not ruled out: the slide or patient of {unknown:,} of {len(table):,} images is not known"
        remedy = "name it in a column called group, or with --group-from-name where file names hold it"
        yield Finding("groups-unknown", "warning", unknown, message, remedy)


def _telling(table: pd.DataFrame) -> Iterator[Finding]:
    """Groups that tell the label, unless all of many are of one class: then it is the patient that is labelled."""
    known = table[table["group"].notna() & table["label"].notna()]
    positives = known.groupby("group")["label"].agg(images="size", positive="sum")
    if len(positives) < 2 or positives["images"].max() < 2:
        return
    one_class = (positives["positive"] == 0) | (positives["positive"] == positives["images"])
    by_class = [
        int((one_class & (positives["positive"] > 0)).sum()),
        int((one_class & (positives["positive"] == 0)).sum()),
    ]
    if min(by_class) == 0 or (one_class.all() and min(by_class) >= FEW):
        return
    size, total = (known["group"].map(positives[column]).astype(float) for column in positives)
    label = known["label"].astype(float)
    others = ((total - label) / (size - 1))[size > 1]
    guess = (others > 0.5).groupby(label[others.index]).mean()
    if guess.get(1.0, 0.0) - guess.get(0.0, 1.0) >= TELLS:
        message = (
            f"the group alone tells the label: {int(one_class.sum()):,} of {len(positives):,} groups are of one class, "
            "so that a model may learn slides instead of tissue"
        )
        remedy = "add groups that hold both classes; judge by group, and trust intervals by group only"
        first = positives[one_class].sort_values("images", ascending=False, kind="stable").head(EXAMPLES)
        shown = tuple(
            Example(str(row.Index), says=f"{row.positive} of {row.images} positive") for row in first.itertuples()
        )
        yield Finding("group-tells-label", "warning", int(one_class.sum()), message, remedy, shown)
