"""What can be wrong with a data set: one short function per fault, over a table of what was seen in each image."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import pandas as pd

from tumortrace.cohorts.cohort import SPLITS, Cohort

NEARLY_BLANK = 4.0  # standard deviation of the liveliest channel, of 255; the faintest tissue of PCam has 9
NO_COLOUR = 1.0  # mean difference between channels, of 255; the palest stained patch of PCam has 2
LEAVE_OUT = "leave out what stands in quarantine.csv"


@dataclass(frozen=True)
class Finding:
    """One thing to know about a data set.

    Attributes:
        name: Short name, the same for every data set.
        verdict: `error` (results would be wrong), `warning` (they may mislead) or `note`.
        count: How many images, ids or groups it concerns.
        message: What was found, as a sentence without full stop.
        remedy: What to do, or nothing.
        examples: The first few ids or groups.
    """

    name: str
    verdict: Literal["error", "warning", "note"]
    count: int
    message: str
    remedy: str = ""
    examples: tuple[str, ...] = ()


def find_all(seen: pd.DataFrame, cohort: Cohort) -> list[Finding]:
    """Every finding, errors first.

    Args:
        seen: The cohort's table with `split` as used, `own_split` as the data say, and what decoding showed:
            `problem` (why an image cannot be decoded, else missing), `height`, `width`, `digest` (of the pixels),
            `spread` (standard deviation of the liveliest channel) and `colour` (mean difference between channels).
        cohort: For class names and notes.
    """
    sound = seen[seen["problem"].isna()]
    vivid = sound[sound["spread"] >= NEARLY_BLANK]
    found = [
        *_unreadable(seen),
        *_class_counts(seen, cohort),
        *_repeated_ids(seen),
        *_conflicting_copies(sound),
        *_copies_across_splits(vivid),
        *_groups_across_splits(seen),
        *_unknown_groups(seen),
        *_copies_across_groups(vivid),
        *_copies_within(sound, cohort),
        *_shortcuts(sound, cohort),
        *_odd_sizes(sound),
        *_blank(sound),
        *_grey(vivid),
        *_pure_groups(seen),
        *(Finding("assumed", "note", 1, note) for note in cohort.notes),
    ]
    return sorted(found, key=lambda finding: ("error", "warning", "note").index(finding.verdict))


def _unreadable(seen: pd.DataFrame) -> Iterator[Finding]:
    bad = seen[seen["problem"].notna()]
    if len(bad):
        reasons = tuple(f"{row.id}: {row.problem}" for row in bad.head(5).itertuples())
        message = f"{len(bad)} of {len(seen)} images cannot be decoded"
        yield Finding("unreadable", "error", len(bad), message, f"restore them, or {LEAVE_OUT}", reasons)


def _class_counts(seen: pd.DataFrame, cohort: Cohort) -> Iterator[Finding]:
    labels = seen["label"].dropna()
    if len(labels) < len(seen):
        missing = len(seen) - len(labels)
        message = f"{missing} of {len(seen)} images carry no label: they serve neither training nor evaluation"
        yield Finding("unlabelled", "note", missing, message, examples=_ids(seen[seen["label"].isna()]))
    counts = [int((labels == label).sum()) for label in (0, 1)]
    if min(counts) == 0 < len(labels):
        absent = cohort.classes[counts.index(0)]
        message = f"no labelled image is of {absent}: nothing can be learned or measured"
        yield Finding("class-absent", "error", len(labels), message, f"add images of {absent}")
    elif len(labels):
        shares = [f"{name} {n} ({n / len(labels):.1%})" for name, n in zip(cohort.classes, counts, strict=True)]
        yield Finding("class-balance", "note", len(labels), " and ".join(shares))


def _repeated_ids(seen: pd.DataFrame) -> Iterator[Finding]:
    repeated = seen[seen["id"].duplicated(keep=False)]
    if len(repeated):
        values = repeated.groupby("id")[["label", "digest"]].nunique().max(axis=1)
        clashing = values.index[values > 1]
        ids = clashing if len(clashing) else values.index
        what = "with different labels or pictures" if len(clashing) else "for the same picture"
        message = f"{len(ids)} {'id comes' if len(ids) == 1 else 'ids come'} more than once, {what}"
        verdict: Literal["error", "warning"] = "error" if len(clashing) else "warning"
        yield Finding("id-repeated", verdict, len(ids), message, "give each image an id of its own", tuple(ids[:5]))


def _conflicting_copies(sound: pd.DataFrame) -> Iterator[Finding]:
    bad = conflicting_copies(sound)
    if len(bad):
        message = f"{bad['digest'].nunique()} pictures stand in {len(bad)} files with both labels"
        yield Finding("copies-conflict", "error", len(bad), message, f"correct the labels, or {LEAVE_OUT}", _ids(bad))


def _copies_across_splits(vivid: pd.DataFrame) -> Iterator[Finding]:
    bad = vivid[_several(vivid, "digest", "split")]
    if len(bad):
        tuning = set(bad["split"].dropna()) <= {"validation", "calibration"}
        names = ", ".join(split for split in SPLITS if split in set(bad["split"].dropna()))
        message = f"{bad['digest'].nunique()} pictures stand in several splits ({names}), in {len(bad)} files"
        verdict: Literal["error", "warning"] = "warning" if tuning else "error"
        yield Finding("copies-across-splits", verdict, len(bad), message, LEAVE_OUT, _ids(bad))


def _groups_across_splits(seen: pd.DataFrame) -> Iterator[Finding]:
    groups = seen.loc[_several(seen, "group", "split"), "group"].unique()
    if len(groups):
        message = f"{len(groups)} of {seen['group'].nunique()} groups (slides or patients) stand in several splits"
        remedy = "split by group, or correct the split column"
        yield Finding("groups-across-splits", "error", len(groups), message, remedy, tuple(groups[:5]))


def _unknown_groups(seen: pd.DataFrame) -> Iterator[Finding]:
    unknown = int(seen["group"].isna().sum())
    if unknown:
        message = f"leakage is not ruled out: the slide or patient of {unknown} of {len(seen)} images is not known"
        remedy = "name it in a column `group`, or with --group-from-name where file names hold it"
        yield Finding("groups-unknown", "warning", unknown, message, remedy)


def _copies_across_groups(vivid: pd.DataFrame) -> Iterator[Finding]:
    bad = vivid[_several(vivid, "digest", "group")]
    if len(bad):
        message = f"{bad['digest'].nunique()} pictures stand in several groups, in {len(bad)} files: groups may overlap"
        remedy = "give one group to slides or patients that share pictures"
        yield Finding("copies-across-groups", "warning", len(bad), message, remedy, _ids(bad))


def _copies_within(sound: pd.DataFrame, cohort: Cohort) -> Iterator[Finding]:
    names = sound["label"].map(dict(enumerate(cohort.classes)))
    place = (sound["own_split"].fillna(sound["split"]).fillna("") + " " + names.fillna("unlabelled")).str.strip()
    counts = sound["digest"].groupby(place).agg(["size", "nunique"])
    counts = counts[counts["size"] > counts["nunique"]]
    if len(counts):
        listed = [f"{row.Index}: {row.size:,} files, {row.nunique:,} distinct pictures" for row in counts.itertuples()]
        copies = int((counts["size"] - counts["nunique"]).sum())
        bad = sound[sound["digest"].groupby(place).transform(lambda digests: digests.duplicated()).astype(bool)]
        remedy = "copies count several times, and intervals are too narrow: leave them out where that matters"
        yield Finding("copies-within-split", "warning", copies, "; ".join(listed), remedy, _ids(bad))


def _shortcuts(sound: pd.DataFrame, cohort: Cohort) -> Iterator[Finding]:
    """Properties that tell the label without a look at the tissue: several values, each of one class only."""
    labelled = sound[sound["label"].notna()]
    properties = {
        "size in pixels": labelled["width"].astype(str) + "x" + labelled["height"].astype(str),
        "file type": labelled["path"].map(lambda path: Path(path.partition("::")[0]).suffix.lower()),
        "being grey or coloured": (labelled["colour"] < NO_COLOUR).map({True: "grey", False: "coloured"}),
    }
    for name, value in properties.items():
        classes = labelled["label"].groupby(value).agg(["nunique", "first"])
        if len(classes) > 1 and (classes["nunique"] == 1).all() and classes["first"].nunique() == 2:
            pairs = zip(classes.index[:4], classes["first"], strict=False)
            listed = ", ".join(f"{value} is always {cohort.classes[int(label)]}" for value, label in pairs)
            message = f"{name} alone tells the label: {listed}"
            yield Finding("shortcut", "warning", len(labelled), message, "bring both classes into one form")


def _odd_sizes(sound: pd.DataFrame) -> Iterator[Finding]:
    sizes = sound["width"].astype(str) + "x" + sound["height"].astype(str)
    bad = sound[~sizes.isin(sizes.mode()[:1])]
    if len(bad):
        usual = sizes.mode()[0]
        message = f"{len(bad)} of {len(sound)} images are not {usual} pixels ({sizes.nunique() - 1} other sizes)"
        yield Finding("odd-size", "warning", len(bad), message, "nothing, if resizing them is right", _ids(bad))


def _blank(sound: pd.DataFrame) -> Iterator[Finding]:
    bad = sound[sound["spread"] < NEARLY_BLANK]
    if len(bad):
        positives = int((bad["label"] == 1).sum())
        message = f"{len(bad)} images are blank or nearly so, {positives} of them labelled positive"
        remedy = "look at them, and leave out those that show no tissue" if positives else ""
        worst = bad.sort_values("label", ascending=False, kind="stable")
        yield Finding("blank", "warning" if positives else "note", len(bad), message, remedy, _ids(worst))


def _grey(vivid: pd.DataFrame) -> Iterator[Finding]:
    grey = vivid[vivid["colour"] < NO_COLOUR]
    if 0 < len(grey) < len(vivid):
        message = f"{len(grey)} images are grey among {len(vivid) - len(grey)} coloured ones"
        yield Finding("grey-among-colour", "note", len(grey), message, examples=_ids(grey))


def _pure_groups(seen: pd.DataFrame) -> Iterator[Finding]:
    classes = seen["label"].groupby(seen["group"]).nunique()
    classes = classes[classes > 0]
    if len(classes) > 1 and (classes == 1).all():
        message = "every group is of one class only: the model may learn slides instead of tissue"
        yield Finding("groups-of-one-class", "note", len(classes), message)


def conflicting_copies(sound: pd.DataFrame) -> pd.DataFrame:
    """Rows whose picture stands elsewhere with the other label."""
    return sound[_several(sound, "digest", "label")]


def spilled_copies(vivid: pd.DataFrame) -> pd.DataFrame:
    """Rows whose picture stands in a split further from training: what to leave out so that splits share none."""
    rank = vivid["split"].map({split: number for number, split in enumerate(SPLITS)}).astype(float)
    return vivid[(rank < rank.groupby(vivid["digest"]).transform("max")).astype(bool)]


def _several(table: pd.DataFrame, by: str, column: str) -> pd.Series:
    """Whether the row's value of `by` stands with several values of `column` in the table."""
    return (table.groupby(by)[column].transform("nunique") > 1).fillna(False).astype(bool)


def _ids(rows: pd.DataFrame) -> tuple[str, ...]:
    return tuple(rows["id"].head(5))
