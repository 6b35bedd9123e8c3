"""Shortcuts: what tells the label without a look at the tissue, such as size, compression or scanner."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pandas as pd
from scipy.stats import chi2_contingency

from tumortrace.cohorts.findings import FINDERS, Evidence, Finding
from tumortrace.cohorts.findings.forms import NO_COLOUR

TELLS, BY_CHANCE = 0.5, 1e-3  # informedness (Youden's J) of the best guess, and p value, of a shortcut
PERFECT = 0.95
_MOST_VALUES = 50
_ACQUISITION = re.compile(
    r".*(scanner|device|machine|manufactur|vendor|camera|hospital|institut|stain|batch|magnification|software)|"
    r"site|cent(er|re)|lab(oratory)?|model|source|mpp"
)
"""Columns of a user's own that say how, where or with what an image was taken."""


@FINDERS.register("shortcuts")
def find(evidence: Evidence) -> Iterator[Finding]:
    """One finding for each property of the files that alone tells the label."""
    table, sound, vivid = evidence.table, evidence.sound, evidence.vivid
    kind = (
        vivid["kind"].where(~vivid["kind"].isin(["RGB", "grey"]), "coloured").mask(vivid["colour"] < NO_COLOUR, "grey")
    )
    quality = (" of quality " + sound["quality"].astype(str)).where(sound["quality"] > 0, "")
    size = sound["width"].astype(str) + "x" + sound["height"].astype(str)
    yield from _telling(table, size, "size", "size in pixels", evidence.cohort.classes)
    yield from _telling(table, sound["format"] + quality, "format", "file format", evidence.cohort.classes)
    yield from _telling(table, kind, "kind", "kind of pixels", evidence.cohort.classes)
    yield from _telling(table, sound["origin"], "scanner", "scanner or software in the file", evidence.cohort.classes)
    for column in table:
        if _ACQUISITION.fullmatch(str(column).lower()):
            yield from _telling(table, table[column], str(column), f"column {column!r}", evidence.cohort.classes)


def _telling(
    table: pd.DataFrame, values: pd.Series, name: str, what: str, classes: tuple[str, str]
) -> Iterator[Finding]:
    rows = table.loc[values.index].assign(value=values.astype("string"))
    rows = rows[rows["value"].notna() & rows["label"].notna()]
    if not 1 < rows["value"].nunique() <= _MOST_VALUES or rows["label"].nunique() < 2:
        return
    shares = pd.crosstab(rows["value"], rows["label"], normalize="columns")
    informedness = (shares[1] - shares[0]).clip(lower=0).sum()
    # Where all images of a patient have the same scanner, it is patients that count, not images.
    units = rows.assign(unit=rows["group"].fillna(rows["id"]))
    if units.groupby("unit")["value"].nunique().max() == 1:
        units = units.drop_duplicates(["unit", "label"])
    chance = chi2_contingency(pd.crosstab(units["value"], units["label"]), correction=False).pvalue
    if informedness < TELLS or chance > BY_CHANCE:
        return
    goes = (shares[1] > shares[0]).astype(int)
    order = shares.max(axis=1).sort_values(ascending=False, kind="stable").index[:4]
    within = pd.crosstab(rows["value"], rows["label"], normalize="index")
    told = [f"{value or 'none'} is {within.loc[value, goes[value]]:.0%} {classes[goes[value]]}" for value in order]
    perfect = informedness >= PERFECT
    message = f"{what} {'alone tells' if perfect else 'goes with'} the label: {', '.join(told)}"
    remedy = "bring both classes into one form, or take both from the same source: a model may learn this instead"
    yield Finding(f"{name}-tells-label", "error" if perfect else "warning", len(rows), message, remedy)
