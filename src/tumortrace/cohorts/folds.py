"""Folds of a cross-validation: disjoint by slide or patient, alike in class balance, each tested once per repeat."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import pandas as pd

from tumortrace.cohorts.cohort import COLUMNS, Cohort
from tumortrace.cohorts.splits import NO_COPIES, Splits, assign_splits, class_counts, units_of
from tumortrace.cohorts.stratify import stratify
from tumortrace.errors import SplitError


def assign_folds(
    cohort: Cohort,
    folds: int,
    repeats: int = 1,
    *,
    seed: int = 0,
    by_group: bool = True,
    copies: Mapping[str, str] = NO_COPIES,
) -> pd.DataFrame:
    """Every labelled image in one fold of each repeat; splits that the data bring play no part.

    Folds are carved out one after the other, each with its share of both classes of what is left. An image whose
    group is not known is a group of its own; those that share a picture are one.

    Args:
        cohort: Images, of which the labelled ones are used.
        folds: Number of folds, at least 2.
        repeats: How often all images are divided anew.
        seed: Same seed, same folds, whatever the order of the rows.
        by_group: False divides at random although groups are known.
        copies: As for `assign_splits`.

    Returns:
        Columns `id`, `group`, `repeat` and `fold`, both counted from 1; one row per image and repeat.

    Raises:
        SplitError: Fewer than two folds, an id that comes twice, or fewer groups than folds.

    Example:
        >>> table = pd.DataFrame({"id": list("abcdefgh"), "path": "", "label": [0, 1] * 4, "group": list("AABBCCDD")})
        >>> found = assign_folds(Cohort("mine", "table", table.assign(split=None)), 4)
        >>> sorted(found.groupby("fold")["group"].nunique())
        [1, 1, 1, 1]
    """
    if folds < 2 or repeats < 1:
        raise SplitError(f"{folds} folds, {repeats} repeats", expected="at least 2 folds and 1 repeat")
    known = cohort.labelled
    rows = known.table[["id", "label", "group"]].assign(kind=known.kinds).sort_values("id", ignore_index=True)
    if twice := rows.loc[rows["id"].duplicated(), "id"].tolist():
        raise SplitError(
            f"{len(twice)} ids that come twice: {twice[0]}, ...", where=cohort.name, expected="each id once"
        )
    units = units_of(rows, by_group, copies)
    counts = class_counts(rows, units)
    if len(counts) < folds:
        kind = "slides or patients" if by_group and rows["group"].notna().any() else "images"
        raise SplitError(
            f"{len(counts)} {kind} for {folds} folds",
            where=cohort.name,
            expected=f"at least {folds}",
            remedy="ask for fewer folds, or accept leakage knowingly with --split random",
        )
    parts = []
    for repeat in range(1, repeats + 1):
        fold = dict(zip(counts.index, _divide(counts.to_numpy(float), folds, seed, repeat), strict=True))
        parts.append(rows[["id", "group"]].assign(repeat=repeat, fold=units.map(fold).astype(int)))
    return pd.concat(parts, ignore_index=True)


def folds_by(
    cohort: Cohort, column: str, *, by_group: bool = True, copies: Mapping[str, str] = NO_COPIES
) -> tuple[pd.DataFrame, list[str]]:
    """One fold for each value of a column, such as the centre or the scanner: leave-one-centre-out.

    Args:
        cohort: Images, of which the labelled ones are used.
        column: Of the cohort's table.
        by_group: False lets a slide or patient stand in several folds.
        copies: As for `assign_splits`.

    Returns:
        What `assign_folds` returns, folds in the order of the values; and the values, in this order.

    Raises:
        SplitError: There is no such column, it lacks values or has but one, or a slide, a patient or a picture stands
            under several of them.

    Example:
        >>> table = pd.DataFrame({"id": list("abcd"), "path": "", "label": [0, 1] * 2, "group": list("SSTT")})
        >>> folds_by(Cohort("mine", "table", table.assign(split=None, center=[1, 1, 2, 2])), "center")[1]
        ['1', '2']
    """
    rows = cohort.labelled.table
    if column not in rows:
        own = [name for name in map(str, rows) if name not in COLUMNS]
        expected = f"one of {', '.join(own)}" if own else "data with a column of that name"
        raise SplitError(f"no column {column!r}", where=cohort.name, expected=expected, remedy="correct --by")
    values = rows[column].astype("string").str.strip()
    values = values.mask(values == "")
    if values.isna().any() or values.nunique() < 2:
        found = (
            f"{values.nunique()} different values" if values.notna().all() else f"{values.isna().sum():,} empty cells"
        )
        raise SplitError(found, where=f"{cohort.name}, column {column}", expected="a value for each image, two or more")
    names = sorted(values.unique())
    units = units_of(rows, by_group, copies)
    across = values.groupby(units).nunique()
    if several := across.index[across > 1].tolist():
        others = f", as do {len(several) - 1:,} more" if len(several) > 1 else ""
        raise SplitError(
            f"{several[0]} stands under several values of {column}{others}",
            where=cohort.name,
            expected="each slide, patient and picture under one",
            remedy="mend the column, or accept leakage knowingly with --split random",
        )
    fold = values.map({name: number for number, name in enumerate(names, 1)}).astype(int)
    return rows[["id", "group"]].assign(repeat=1, fold=fold).reset_index(drop=True), names


def _divide(counts: np.ndarray, folds: int, seed: int, repeat: int) -> np.ndarray:
    """Fold of each unit, from 1."""
    rng = np.random.default_rng((seed, repeat))
    fold = np.full(len(counts), folds)
    left = np.arange(len(counts))
    for number in range(1, folds):
        share = 1 / (folds - number + 1)
        taken = stratify(counts[left], {"test": share, "train": 1 - share}, rng) == 0
        fold[left[taken]] = number
        left = left[~taken]
    return fold


def fold_splits(
    cohort: Cohort,
    table: pd.DataFrame,
    repeat: int,
    fold: int,
    *,
    fractions: Mapping[str, float] | None = None,
    seed: int = 0,
    by_group: bool = True,
    copies: Mapping[str, str] = NO_COPIES,
) -> Splits:
    """The splits of one fold: the fold is the test split, the rest is divided anew without one.

    Args:
        cohort: The images of the folds.
        table: What `assign_folds` returned.
        repeat: Which repeat.
        fold: Which fold of it.
        fractions: As for `assign_splits`; only the proportions of train, validation and calibration count.
        seed: Of the division of the rest.
        by_group: As for `assign_folds`.
        copies: As for `assign_folds`.

    Raises:
        SplitError: The rest cannot be divided.
    """
    own = table[table["repeat"] == repeat].set_index("id")["fold"]
    cohort = cohort.where(cohort.table["id"].isin(own.index) & cohort.table["label"].notna())
    split = np.where(cohort.table["id"].map(own) == fold, "test", "train")
    divided = replace(cohort, table=cohort.table.assign(split=split))
    splits = assign_splits(divided, fractions=fractions, seed=seed, by_group=by_group, copies=copies)
    # the training split is ours here, and what stays together is told once for all folds
    notes = [note for note in splits.notes if "the data's own" not in note and "share pictures" not in note]
    name = f"fold {fold} of {table['fold'].max()}, repeat {repeat} of {table['repeat'].max()}, is the test split"
    return replace(splits, notes=(name, *notes))


def groups_on_both_sides(table: pd.DataFrame) -> int:
    """How many groups stand in several folds of a repeat, so that models are tested on slides they have learnt from.

    Example:
        >>> table = pd.DataFrame({"group": ["A", "A", "B"], "repeat": 1, "fold": [1, 2, 1]})
        >>> groups_on_both_sides(table)
        1
    """
    folds = table.groupby(["repeat", "group"])["fold"].nunique()  # missing groups are left out by groupby
    return int(folds[folds > 1].reset_index()["group"].nunique())
