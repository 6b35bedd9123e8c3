"""Splits by slide or patient: disjoint, stratified by class, and saying aloud what they rule out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

import numpy as np
import pandas as pd

from tumortrace.cohorts.cohort import SPLITS, TAUGHT, Cohort
from tumortrace.cohorts.columns import listed, may_be_labels
from tumortrace.cohorts.copies import joined
from tumortrace.cohorts.stratify import stratify
from tumortrace.errors import SplitError
from tumortrace.records.user_tables import read_text

DEFAULT_FRACTIONS = {"train": 0.7, "validation": 0.1, "calibration": 0.1, "test": 0.1}
NO_COPIES: Mapping[str, str] = MappingProxyType({})
LEAK = "groups-across-splits"
"""The finding that `--allow` passes over where the data's own splits part slides or patients."""


@dataclass(frozen=True)
class Splits:
    """Which image serves what.

    Attributes:
        table: Columns `id`, `group` (missing when not known) and `split` (one of `SPLITS`), one row per image used.
        leakage: One sentence: whether a slide or patient can stand in several splits, and how that is known.
        notes: What was decided on the way, to be said aloud.
    """

    table: pd.DataFrame
    leakage: str
    notes: tuple[str, ...] = ()


def assign_splits(
    cohort: Cohort,
    *,
    fractions: Mapping[str, float] | None = None,
    seed: int = 0,
    by_group: bool = True,
    copies: Mapping[str, str] = NO_COPIES,
    leaks: bool = False,
) -> Splits:
    """The cohort's labelled images in disjoint splits that share no group and resemble each other in class balance.

    Splits that the data bring are kept. Where they lack a calibration split, half of validation becomes it, by
    group (training has not seen those slides), or else a part of training; a missing validation split is taken out
    of training, and a test split is never touched or invented. Without splits of its own, the cohort is divided
    whole: groups, largest first, go where the chi-square distance to the wanted counts of each class falls most,
    then are moved and swapped while that helps. An image whose group is not known is a group of its own. Groups and
    images that share a picture, pixel for pixel, are divided as one, and a note says so.

    Args:
        cohort: Images, of which the labelled ones are used.
        fractions: Share of the images per split, adding up to 1; default 0.7, 0.1, 0.1, 0.1. A split that is not named
            is not made.
        seed: Same seed, same splits, whatever the order of the rows.
        by_group: False divides at random although groups are known; the leakage sentence then says so.
        copies: Picture by id of the images that have copies, as `exact_copies` finds them.
        leaks: Accept groups that stand in several of the splits that the data bring; the leakage sentence says so.

    Raises:
        SplitError: Fewer groups than splits, a group in several given splits, or a class missing from training.

    Example:
        >>> table = pd.DataFrame({"id": list("abcdefgh"), "path": "", "label": [0, 1] * 4, "group": list("AABBCCDD")})
        >>> splits = assign_splits(Cohort("mine", "table", table.assign(split=None)))
        >>> splits.leakage
        'ruled out: splits share no slide or patient (4 groups)'
        >>> sorted(splits.table["split"].unique())
        ['calibration', 'test', 'train', 'validation']
    """
    wanted = _checked(DEFAULT_FRACTIONS if fractions is None else fractions)
    known = require_labels(cohort).labelled
    rows = known.table[["id", "label", "group", "split"]].assign(kind=known.kinds)
    if rows["label"].nunique() < 2:
        expected = f"images of {cohort.classes[0]} and of {cohort.classes[1]}"
        raise SplitError("all labelled images are of one class", where=cohort.name, expected=expected)
    rng = np.random.default_rng(seed)
    rows = rows.assign(unit=units_of(rows, by_group, copies))
    if rows["split"].isna().all():
        rows, notes = rows.assign(split=_divide(rows, wanted, rng, by_group)), told_together(rows, by_group)
    else:
        rows, notes = _complete(rows, wanted, rng, by_group, leaks)
    return _finish(rows, cohort, by_group and not leaks, notes + _one_sided(rows, cohort))


def read_splits(path: Path, cohort: Cohort, *, by_group: bool = True) -> Splits:
    """The splits that a `splits.csv` (columns `id`, `group`, `split`) holds, checked against the cohort.

    Args:
        path: The file.
        cohort: The images that its ids name.
        by_group: False accepts a group in several splits, as `assign_splits` does.

    Raises:
        SplitError: An id that the cohort lacks or that comes twice, another group than the cohort's, an unknown
            split, or leakage.
    """
    try:
        table, _ = read_text(path, SplitError)
    except OSError as error:
        found = f"cannot be read ({error.strerror})"
        raise SplitError(found, where=path, expected="a CSV file with id, group, split") from None
    if missing := [column for column in ("id", "group", "split") if column not in table]:
        raise SplitError(f"no column {missing[0]!r}", where=path, expected="columns id, group, split")
    table = table[["id", "group", "split"]].astype("string")
    table["group"] = table["group"].mask(table["group"] == "")
    _refuse(table.loc[~table["split"].isin(SPLITS), "split"], "unknown splits", path, f"one of {', '.join(SPLITS)}")
    _refuse(table.loc[~table["id"].isin(cohort.table["id"]), "id"], "ids that the cohort lacks", path)
    _refuse(table.loc[table["id"].duplicated(), "id"], "ids that come twice", path, "each id once")
    known = table["id"].map(cohort.table.drop_duplicates("id").set_index("id")["group"])
    differs = (table["group"] != known).fillna(table["group"].isna() != known.isna()).astype(bool)
    _refuse(table.loc[differs, "id"], "ids whose group is another than the cohort's", path)
    unused = int((~cohort.labelled.table["id"].isin(table["id"])).sum())
    return _finish(table, cohort, by_group, [f"{unused} labelled images stand in no split of {path}"] if unused else [])


def verify_disjoint(table: pd.DataFrame) -> None:
    """Nothing, if no id and no known group stands in two splits of a table with `id`, `group` and `split`.

    Raises:
        SplitError: Naming how many do, and the first of them.

    Example:
        >>> verify_disjoint(pd.DataFrame({"id": ["a", "b"], "group": ["A", "A"], "split": ["train", "test"]}))
        Traceback (most recent call last):
        ...
        tumortrace.errors.SplitError: 1 group stands in several splits: A; ...
    """
    for column in ("group", "id"):
        splits = table.groupby(column)["split"].nunique()  # missing groups are left out by groupby
        several = [str(name) for name in splits.index[splits > 1]]
        if several:
            raise SplitError(
                f"{_count(len(several), column)} {'stands' if len(several) == 1 else 'stand'} in several splits: "
                + _some(several),
                expected=f"each {column} in one split only",
                remedy="correct the splits, or leave them out so that TumorTrace divides"
                + (f"; --allow {LEAK} goes on with the leak, on record" if column == "group" else ""),
            )


def require_labels(cohort: Cohort) -> Cohort:
    """The cohort, if any image carries a label.

    Raises:
        SplitError: None does; the remedy names the columns that may hold labels.
    """
    if cohort.table["label"].notna().any():
        return cohort
    columns = may_be_labels(cohort.table)
    raise SplitError(
        "no image carries a label",
        where=cohort.name,
        expected=f"images of {cohort.classes[0]} and of {cohort.classes[1]}",
        remedy=f"name the column of labels with --label-column; it may be {listed(columns)}"
        if columns
        else "put the images into two class folders (benign/, malignant/), or give a table with a column label",
    )


def _checked(fractions: Mapping[str, float]) -> dict[str, float]:
    wanted = {name: float(fractions[name]) for name in SPLITS if fractions.get(name, 0) != 0}
    bad = [name for name in fractions if name not in SPLITS]
    if bad or "train" not in wanted or min(wanted.values()) < 0 or not np.isclose(sum(wanted.values()), 1):
        raise SplitError(
            f"split fractions {dict(fractions)}", expected=f"shares of {', '.join(SPLITS)} that add up to 1, with train"
        )
    return wanted


def _complete(
    rows: pd.DataFrame, wanted: dict[str, float], rng: np.random.Generator, by_group: bool, leaks: bool
) -> tuple[pd.DataFrame, list[str]]:
    """Rows with the data's own splits kept and the ones that training needs carved out, and notes."""
    notes = []
    _refuse(rows.loc[~rows["split"].isin(SPLITS) & rows["split"].notna(), "split"], "unknown splits", None)
    given = set(rows["split"].dropna())
    without = rows["split"].isna()
    if "train" not in given and without.any():
        rows = rows.assign(split=rows["split"].fillna("train"))
        notes.append(f"{without.sum()} images without a split serve as training images: the data name no others")
    elif "train" not in given:
        raise SplitError(
            f"the data bring labelled images of {_some(sorted(given))}, and none to train on",
            expected="labelled images in a split train",
            remedy="label those of the training split, or leave the splits out so that all are divided anew",
        )
    elif without.any():
        rows = rows[~without]
        notes.append(f"{without.sum()} labelled images have no split although others do: left out")
    if by_group and not leaks:
        verify_disjoint(rows)
    if "test" not in given:
        notes.append("the data bring splits but no test split: none is made")
    missing = [name for name in ("validation", "calibration") if name in wanted and name not in given]
    if missing == ["calibration"] and _halves(rows[rows["split"] == "validation"]):
        shares, source = {"validation": 0.5, "calibration": 0.5}, "validation"
    elif missing:
        shares, source = {name: wanted[name] for name in ("train", *missing)}, "train"
    else:
        return rows, notes
    part = rows[rows["split"] == source]
    divided = _divide(part, shares, rng, by_group)
    how = "by group" if by_group and part["group"].notna().all() else "at random"
    notes += [f"{name} is {(divided == name).mean():.0%} of the data's own {source} split, {how}" for name in missing]
    notes += told_together(part, by_group)
    split = rows["split"].copy()
    split[divided.index] = divided
    return rows.assign(split=split), notes


def units_of(rows: pd.DataFrame, by_group: bool, copies: Mapping[str, str] = NO_COPIES) -> pd.Series:
    """What stays together, per row: the group, or the image itself where no group is known or asked for.

    Those that share a picture are one unit.
    """
    units = _alone(rows, by_group)
    return joined(units, copies, rows["id"]) if copies else units


def told_together(rows: pd.DataFrame, by_group: bool) -> list[str]:
    """A note where copies have made units larger; `rows` have them in the column `unit`."""
    alone = _alone(rows, by_group)
    pieces = pd.DataFrame({"unit": rows["unit"], "alone": alone}).drop_duplicates()
    together = pieces[pieces["unit"].duplicated(keep=False)]
    if together.empty:
        return []
    kind = "groups" if together["alone"].str.startswith("group ").any() else "images"
    sets = together["unit"].nunique()
    return [
        f"{len(together):,} {kind} share pictures, pixel for pixel: they are divided as {sets:,} "
        f"{'set' if sets == 1 else 'sets'}, copies together"
    ]


def _alone(rows: pd.DataFrame, by_group: bool) -> pd.Series:
    alone = "image " + rows["id"]
    return ("group " + rows["group"]).fillna(alone) if by_group else alone


def class_counts(rows: pd.DataFrame, by: pd.Series) -> pd.DataFrame:
    """Images of each class (columns, by the number in `kind`) for each value of `by` (rows, sorted)."""
    count = max(2, int(rows["kind"].max()) + 1)
    return pd.DataFrame({kind: rows["kind"] == kind for kind in range(count)}).groupby(by).sum()


def _halves(rows: pd.DataFrame) -> bool:
    """Whether both halves of `rows` can hold both classes."""
    holders = rows["unit"].groupby(rows["label"]).nunique()
    return len(holders) == 2 and bool((holders >= 2).all())


def _divide(rows: pd.DataFrame, shares: dict[str, float], rng: np.random.Generator, by_group: bool) -> pd.Series:
    """Split name per row; each `unit` stays whole, and names sort them, so that the order of rows plays no part."""
    units = rows["unit"]
    counts = class_counts(rows, units)
    if len(counts) < len(shares):
        what = "group" if by_group and rows["group"].notna().any() else "image"
        once = ", those that share pictures being one," if told_together(rows, by_group) else ""
        raise SplitError(
            f"{_count(len(counts), what)}{once} to divide into {', '.join(shares)}",
            expected=f"at least {len(shares)} {what}s",
            remedy="add slides or patients, ask for fewer splits, or accept leakage knowingly with --split random"
            if what == "group"
            else "add images or ask for fewer splits",
        )
    chosen = stratify(counts.to_numpy(float), shares, rng)
    return units.map(dict(zip(counts.index, np.array(list(shares))[chosen], strict=True))).astype("string")


def _one_sided(rows: pd.DataFrame, cohort: Cohort) -> list[str]:
    """A note for each split that lacks a class; training that lacks one is refused."""
    counts = class_counts(rows, rows["split"])
    names = cohort.class_names or cohort.classes
    lacking = [
        (str(split), name)
        for kind, name in enumerate(names)
        if kind in counts
        for split in counts.index[counts[kind] == 0]
    ]
    for split, name in lacking:
        if split == "train":
            expected = f"each of {len(names)} classes" if cohort.class_names else "both classes"
            found = f"the training split holds no {cohort.unit} of {name}"
            raise SplitError(found, where=cohort.name, expected=expected)
    return [f"the {split} split holds no {cohort.unit} of {name}" for split, name in lacking]


def _finish(rows: pd.DataFrame, cohort: Cohort, by_group: bool, notes: list[str]) -> Splits:
    table = rows[["id", "group", "split"]].reset_index(drop=True)
    verify_disjoint(table if by_group else table.assign(group=None))
    return Splits(table, _taught(table, cohort) or _leakage(table), tuple(notes))


def _taught(table: pd.DataFrame, cohort: Cohort) -> str | None:
    """A sentence where slides are to be judged on which the body of their features has learnt."""
    test = table["id"][table["split"] == "test"]
    taught = test.isin(cohort.table["id"][cohort.table[TAUGHT]]).sum() if TAUGHT in cohort.table else 0
    if not taught:
        return None
    return (
        f"present: the body of the features has learnt from patches of {taught} of {len(test)} test slides, or of "
        "their patients"
    )


def _leakage(table: pd.DataFrame) -> str:
    known = table["group"].notna()
    per_group = table.groupby("group")["split"].nunique()
    if not known.any():
        return "not ruled out: no slide or patient is known, and patches of one may stand in several splits"
    if (per_group > 1).any():
        return (
            f"present: patches of one slide or patient stand on both sides: {(per_group > 1).sum()} of "
            f"{len(per_group)} groups"
        )
    if not known.all():
        return f"not ruled out: the slide or patient of {(~known).sum()} of {len(table)} images is not known"
    return f"ruled out: splits share no slide or patient ({len(per_group)} groups)"


def _refuse(bad: pd.Series, what: str, where: object, expected: str | None = None) -> None:
    if len(bad):
        raise SplitError(
            f"{len(bad)} {what}: {_some([str(value) for value in bad.unique()])}", where=where, expected=expected
        )


def _count(number: int, what: str) -> str:
    return f"{number} {what}" if number == 1 else f"{number} {what}s"


def _some(names: list[str]) -> str:
    return ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")
