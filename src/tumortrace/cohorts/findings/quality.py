"""Quality of the pictures: blank, out of focus, marked with ink."""

from __future__ import annotations

from collections.abc import Iterator

import pandas as pd

from tumortrace.cohorts.findings import FINDERS, LEAVE_OUT, Evidence, Finding, Verdict, count, examples
from tumortrace.cohorts.findings.forms import NO_COLOUR
from tumortrace.cohorts.inspection import NEARLY_BLANK

# Octaves of `sharpness`: sharp tissue of PCam and IDC lies around +0.8 and 99 % of it above -1.2; a Gaussian blur of
# 2 px brings it below -2. Pictures smooth by nature (MRI: -1.8) are measured against their like.
BLURRED, BELOW_USUAL = -1.5, 1.6
INK, BLACK = 0.02, 0.1  # shares of a picture's area
_NATURE = 0.5  # share of the images from which on it is no fault but what they are


@FINDERS.register("quality")
def find(evidence: Evidence) -> Iterator[Finding]:
    """Findings about what the pictures show."""
    yield from _blank(evidence.sound, evidence.cohort.classes)
    marks = _marks(evidence.vivid)
    yield from _ink(evidence.vivid, marks)
    yield from _out_of_focus(evidence.vivid.drop(index=marks.index))  # a mark's edge outweighs the tissue's detail


def _blank(sound: pd.DataFrame, classes: tuple[str, str]) -> Iterator[Finding]:
    bad = sound[sound["spread"] < NEARLY_BLANK]
    if len(bad):
        positives = bad[bad["label"] == 1]
        message = f"{count(len(bad), 'image')} blank or nearly so, {len(positives):,} labelled positive"
        remedy = f"look at them, and {LEAVE_OUT} (the positive ones)" if len(positives) else ""
        leave_out = dict.fromkeys(positives.index, "blank or nearly so, and labelled positive")
        worst = bad.sort_values("label", ascending=False, kind="stable")
        says = worst["label"].map({label: f"labelled {name}" for label, name in enumerate(classes)}).fillna("")
        verdict: Verdict = "warning" if len(positives) else "note"
        yield Finding("blank", verdict, len(bad), message, remedy, examples(worst, says), leave_out)


def _out_of_focus(vivid: pd.DataFrame) -> Iterator[Finding]:
    limit = min(BLURRED, vivid["sharpness"].median() - BELOW_USUAL)
    bad = vivid[vivid["sharpness"] < limit].sort_values("sharpness", kind="stable")
    if len(bad):
        message = f"{count(len(bad), 'image')} out of focus: no detail finer than about four pixels"
        leave_out = dict.fromkeys(bad.index, "out of focus")
        remedy = f"look at them, and {LEAVE_OUT}"
        yield Finding("out-of-focus", "warning", len(bad), message, remedy, examples(bad), leave_out)


def _marks(vivid: pd.DataFrame) -> pd.DataFrame:
    """Share of the area per kind of mark for the images that have one, the most marked of each kind first."""
    coloured = vivid[vivid["colour"] >= NO_COLOUR]
    shares = {"green or blue": coloured["ink"].where(coloured["ink"] > INK)}
    shares["black"] = coloured["black"].where(coloured["black"] > BLACK)
    marks = pd.DataFrame({name: share for name, share in shares.items() if share.notna().mean() < _NATURE})
    return marks.loc[marks.rank(ascending=False).min(axis=1).dropna().sort_values(kind="stable").index]


def _ink(vivid: pd.DataFrame, marks: pd.DataFrame) -> Iterator[Finding]:
    bad = vivid.loc[marks.index]
    if len(bad):
        largest = zip(marks.idxmax(axis=1), marks.max(axis=1), strict=True)
        says = [f"{name}, {share:.0%} of the area" for name, share in largest]
        message = f"{count(len(bad), 'image')} with pen marks, inked margins or black areas such as a slide's edge"
        leave_out = dict(zip(bad.index, says, strict=True))
        remedy = f"look whether ink goes with one class, and {LEAVE_OUT}"
        yield Finding("pen-marks", "warning", len(bad), message, remedy, examples(bad, says), leave_out)
