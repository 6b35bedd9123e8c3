"""Copies: pictures that stand in several files, exactly or nearly, also turned and mirrored.

Each picture is told once, by the worst that its copies do: contradict each other, stand in several splits, in several
groups, or only count several times. Blank pictures, which are alike everywhere, are no copies.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import pandas as pd

from tumortrace.cohorts.cohort import SPLITS
from tumortrace.cohorts.findings import (
    EXAMPLES,
    FINDERS,
    LEAVE_OUT,
    Evidence,
    Example,
    Finding,
    Verdict,
    count,
    several,
)

_TUNING = {"validation", "calibration"}


class _Likeness(NamedTuple):
    """How alike copies are: the column that numbers them, and words."""

    column: str
    prefix: str
    which: str


_EXACT = _Likeness("digest", "copies", "the very same pixels")
_NEAR = _Likeness("near", "near-copies", "nearly the same picture")


@FINDERS.register("copies")
def find(evidence: Evidence) -> Iterator[Finding]:
    """Findings about exact copies, then about near ones."""
    sound = evidence.sound.drop_duplicates("id")
    names = sound["label"].map(dict(enumerate(evidence.cohort.classes)))
    stands = (sound["own_split"].fillna(sound["split"]).fillna("") + " " + names.fillna("unlabelled")).str.strip()
    sound = sound.assign(stands=stands)
    vivid = sound[sound.index.isin(evidence.vivid.index)]
    yield from _copies(vivid[vivid["digest"].duplicated(keep=False)], _EXACT, sound)
    if "near" in vivid:
        yield from _copies(vivid[vivid["near"].notna()], _NEAR, sound)


def _copies(rows: pd.DataFrame, likeness: _Likeness, sound: pd.DataFrame) -> Iterator[Finding]:
    by = likeness.column
    conflict, splits, groups = (several(rows, by, column) for column in ("label", "split", "group"))
    yield from _conflicting(rows[conflict], likeness)
    yield from _across_splits(rows[splits & ~conflict], likeness)
    yield from _across_groups(rows[groups & ~splits & ~conflict], likeness)
    yield from _within(rows[~(groups | splits | conflict)], likeness, sound)


def _conflicting(bad: pd.DataFrame, likeness: _Likeness) -> Iterator[Finding]:
    if len(bad):
        message = f"{_pictures(bad, likeness)} with both labels"
        remedy = f"correct the labels, or {LEAVE_OUT}"
        leave_out = dict.fromkeys(bad.index, f"{likeness.which} carries the other label elsewhere")
        verdict: Verdict = "error" if likeness is _EXACT else "warning"
        yield Finding(
            f"{likeness.prefix}-conflict", verdict, len(bad), message, remedy, _sets(bad, likeness), leave_out
        )


def _across_splits(bad: pd.DataFrame, likeness: _Likeness) -> Iterator[Finding]:
    if len(bad):
        stand_in = set(bad["split"].dropna())
        names = ", ".join(split for split in SPLITS if split in stand_in)
        message = f"{_pictures(bad, likeness)} in several splits ({names})"
        spilled = _nearer_to_training(bad, likeness.column)
        leave_out = dict.fromkeys(spilled.index, f"{likeness.which} stands in a split further from training")
        name, shown = f"{likeness.prefix}-across-splits", _sets(bad, likeness)
        verdict: Verdict = "warning" if stand_in <= _TUNING else "error"
        yield Finding(name, verdict, len(bad), message, LEAVE_OUT, shown, leave_out)


def _across_groups(bad: pd.DataFrame, likeness: _Likeness) -> Iterator[Finding]:
    if len(bad):
        message = f"{_pictures(bad, likeness)} in several groups: these may be one slide or patient"
        remedy = "give one group to slides or patients that share pictures"
        name = f"{likeness.prefix}-across-groups"
        yield Finding(name, "warning", len(bad), message, remedy, _sets(bad, likeness))


def _within(bad: pd.DataFrame, likeness: _Likeness, sound: pd.DataFrame) -> Iterator[Finding]:
    if bad.empty:
        return
    name, repeats = f"{likeness.prefix}-within-split", bad[bad[likeness.column].duplicated()]
    remedy = "copies count several times, and intervals are too narrow: leave them out (quarantine.csv)"
    leave_out = dict.fromkeys(repeats.index, f"{likeness.which} stands in another file of its split")
    if likeness is _NEAR:
        message = f"{_pictures(bad, likeness)} of one group or split"
        yield Finding(name, "note", len(bad), message, remedy, _sets(bad, likeness), leave_out)
        return
    counts = sound["digest"].groupby(sound["stands"]).agg(["size", "nunique"])
    counts = counts.loc[sorted(set(repeats["stands"]))]
    listed = [f"{row.Index}: {row.size:,} files, {row.nunique:,} distinct pictures" for row in counts.itertuples()]
    yield Finding(
        name, "warning", len(repeats), f"exact copies: {'; '.join(listed)}", remedy, _sets(bad, likeness), leave_out
    )


def _pictures(bad: pd.DataFrame, likeness: _Likeness) -> str:
    number = bad[likeness.column].nunique()
    if likeness is _EXACT:
        return f"{count(number, 'picture')} {'stands' if number == 1 else 'stand'} in {count(len(bad), 'file')}"
    turned = bad.loc[bad["turned"], "near"].nunique()
    how = f", {turned:,} of them turned or mirrored," if turned else ""
    stands = "stands nearly alike" if number == 1 else "stand nearly alike"
    return f"{count(number, 'picture')} {stands} in {count(len(bad), 'file')}{how}"


def _sets(bad: pd.DataFrame, likeness: _Likeness) -> tuple[Example, ...]:
    """The first few pictures with three of their files at most, side by side."""
    number = bad[likeness.column].rank(method="dense").astype(int)
    order = number.groupby(number).cumcount()
    chosen = number[order < 3].sort_values(kind="stable").index[:EXAMPLES]
    rows = bad.loc[chosen]
    says = rows["stands"] + (", group " + rows["group"]).fillna("")
    return tuple(Example(*each) for each in zip(rows["id"], rows["path"], says, number[chosen].tolist(), strict=True))


def _nearer_to_training(rows: pd.DataFrame, by: str) -> pd.DataFrame:
    """Rows whose picture stands in a split further from training: what to leave out so that splits share none."""
    rank = rows["split"].map({split: number for number, split in enumerate(SPLITS)}).astype(float)
    return rows[(rank < rank.groupby(rows[by]).transform("max")).astype(bool)]
