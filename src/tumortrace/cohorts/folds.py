"""Folds of a cross-validation: disjoint by slide or patient, alike in class balance, each tested once per repeat."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import pandas as pd

from tumortrace.cohorts.cohort import Cohort
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
