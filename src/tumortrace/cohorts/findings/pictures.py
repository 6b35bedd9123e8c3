"""What can be wrong with the pictures themselves: files, form, quality, copies, and shortcuts past the tissue."""

from __future__ import annotations

import os
import re
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
    examples,
    several,
)
from tumortrace.cohorts.looks import NEARLY_BLANK

_ENDINGS = {
    "JPEG": (".jpg", ".jpeg"),
    "PNG": (".png",),
    "TIFF": (".tif", ".tiff"),
    "BMP": (".bmp",),
    "GIF": (".gif",),
    "WEBP": (".webp",),
    "PPM": (".ppm", ".pgm", ".pnm", ".pbm"),
    "JPEG2000": (".jp2",),
}


@FINDERS.register("files")
def find(evidence: Evidence) -> Iterator[Finding]:
    """Findings about files, those that can be read least first."""
    yield from _missing(evidence)
    yield from _undecodable(
        evidence.table, "truncated", "cut off before its end", "cut off before their end", "copy or download them again"
    )
    yield from _undecodable(evidence.table, "unreadable", "not readable", "not readable", "restore them")
    yield from _unlisted(evidence)
    yield from _wrong_format(evidence.sound)


def _missing(evidence: Evidence) -> Iterator[Finding]:
    rows, gone = evidence.listed, evidence.table[evidence.table["problem"] == "missing"]
    lost = rows[rows["file"].isna()]
    if number := len(gone) + len(lost):
        shown = [Example(str(name), says=f"line {line}") for line, name in lost["id"].head(EXAMPLES).items()]
        shown += [
            Example(name, says=os.path.basename(path)) for name, path in gone[["id", "path"]].to_numpy()[:EXAMPLES]
        ]
        total = len(rows) or len(evidence.table)
        message = f"{number:,} of {total:,} images that the data name {'is' if number == 1 else 'are'} not there"
        remedy = "copy or download the rest, or remove these rows"
        leave_out = dict.fromkeys(gone.index, "there is no such file")
        yield Finding("files-missing", "error", number, message, remedy, tuple(shown[:EXAMPLES]), leave_out)


def _undecodable(table: pd.DataFrame, name: str, one: str, many: str, remedy: str) -> Iterator[Finding]:
    bad = table[table["problem"] == name]
    if len(bad):
        message = f"{len(bad):,} of {len(table):,} images {f'is {one}' if len(bad) == 1 else f'are {many}'}"
        shown = examples(bad, bad["reason"])
        leave_out = dict(zip(bad.index, bad["reason"], strict=True))
        yield Finding(name, "error", len(bad), message, f"{remedy}, or {LEAVE_OUT}", shown, leave_out)


def _unlisted(evidence: Evidence) -> Iterator[Finding]:
    files = evidence.unlisted
    if files:
        where = "row in the label table" if len(evidence.listed) else "class folder"
        message = f"{count(len(files), 'image')} beside the others {'has' if len(files) == 1 else 'have'} no {where}"
        shown = tuple(Example(os.path.basename(file), file) for file in files[:EXAMPLES])
        yield Finding("files-unlabelled", "warning", len(files), message, "label or remove them", shown)


def _wrong_format(sound: pd.DataFrame) -> Iterator[Finding]:
    suffix = sound["path"].map(lambda path: os.path.splitext(path)[1].lower())
    known = sound["format"].isin(_ENDINGS.keys()) & suffix.isin({each for names in _ENDINGS.values() for each in names})
    told = pd.Series([end in _ENDINGS.get(kind, ()) for end, kind in zip(suffix, sound["format"])], sound.index, bool)
    bad = sound[known & ~told]
    if len(bad):
        says = [f"{kind} named {end}" for end, kind in zip(suffix[bad.index], bad["format"])]
        message = f"{count(len(bad), 'image')} of another format than the name says, such as {says[0]}"
        remedy = "rename them: TumorTrace goes by the content, other programs may not"
        yield Finding("wrong-format", "warning", len(bad), message, remedy, examples(bad, says))


NO_COLOUR = 1.0  # mean difference between channels, of 255; the palest stained patch of PCam has 2


# Quality of the pictures: blank, out of focus, marked with ink.


# Octaves of `sharpness`: sharp tissue of PCam and IDC lies around +0.8 and 99 % of it above -1.2; a Gaussian blur of
# 2 px brings it below -2. Pictures smooth by nature (MRI: -1.8) are measured against their like.
BLURRED, BELOW_USUAL = -1.5, 1.6
INK, BLACK = 0.02, 0.1  # shares of a picture's area
_NATURE = 0.5  # share of the images from which on it is no fault but what they are


@FINDERS.register("quality")
def find_quality(evidence: Evidence) -> Iterator[Finding]:
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


# Copies: pictures that stand in several files, exactly or nearly, also turned and mirrored.
#
# Each picture is told once, by the worst that its copies do: contradict each other, stand in several splits, in several
# groups, or only count several times. Blank pictures, which are alike everywhere, are no copies.


_TUNING = {"validation", "calibration"}


class _Likeness(NamedTuple):
    """How alike copies are: the column that numbers them, and words."""

    column: str
    prefix: str
    which: str


_EXACT = _Likeness("digest", "copies", "the very same pixels")
_NEAR = _Likeness("near", "near-copies", "nearly the same picture")


@FINDERS.register("copies")
def find_copies(evidence: Evidence) -> Iterator[Finding]:
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
    area = (bad["width"] * bad["height"]).fillna(0).astype(float)
    first = bad.loc[area.sort_values(ascending=False, kind="stable").index].drop_duplicates(likeness.column)
    name, repeats = f"{likeness.prefix}-within-split", bad.drop(index=first.index)  # of near copies the largest stays
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


# Shortcuts: what tells the label without a look at the tissue, such as size, compression or scanner.


TELLS, BY_CHANCE = 0.5, 1e-3  # informedness (Youden's J) of the best guess, and p value, of a shortcut
PERFECT = 0.95
_MOST_VALUES = 50
_ACQUISITION = re.compile(
    r".*(scanner|device|machine|manufactur|vendor|camera|hospital|institut|stain|batch|magnification|software)|"
    r"site|cent(er|re)|lab(oratory)?|model|source|mpp"
)
"""Columns of a user's own that say how, where or with what an image was taken."""


@FINDERS.register("shortcuts")
def find_shortcuts(evidence: Evidence) -> Iterator[Finding]:
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
    from scipy.stats import chi2_contingency  # takes long, and few data have such a column

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
