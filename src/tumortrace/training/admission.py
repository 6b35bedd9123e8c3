"""Before anything is trained: splits that keep copies together, and data in which nothing stands against them."""

from __future__ import annotations

from collections.abc import Collection, Mapping

import pandas as pd

from tumortrace.cohorts.audit import Audit, check, refuse
from tumortrace.cohorts.cohort import Cohort
from tumortrace.cohorts.copies import exact_copies
from tumortrace.cohorts.inspection import glances
from tumortrace.cohorts.splits import Splits, assign_splits
from tumortrace.cohorts.store import open_store
from tumortrace.errors import SplitError
from tumortrace.evaluation.thresholds import require_enough


def looks_and_copies(cohort: Cohort) -> tuple[pd.DataFrame, dict[str, str]]:
    """What is seen of the cohort's images, decoded where they are not yet, and which of them have copies."""
    looks = glances(open_store(cohort).images)
    return looks, exact_copies(cohort.table["id"], looks)


def divided(
    cohort: Cohort, split: str, seed: int, fractions: Mapping[str, float] | None
) -> tuple[Splits, pd.DataFrame]:
    """The cohort's splits, copies kept together, and what was seen of its images.

    Args:
        cohort: Labelled images.
        split: "group" keeps slides or patients together, "random" does not.
        seed: Of the division.
        fractions: As for `assign_splits`.

    Raises:
        DataError: It cannot be divided; where the table alone shows that, no image is decoded.
    """
    if split not in ("group", "random"):
        raise SplitError(f"--split {split!r}", expected="group or random", remedy="use one of these")
    by_group = split == "group"
    assign_splits(cohort, fractions=fractions, seed=seed, by_group=by_group)
    looks, copies = looks_and_copies(cohort)
    return assign_splits(cohort, fractions=fractions, seed=seed, by_group=by_group, copies=copies), looks


def admit(
    cohort: Cohort,
    splits: Splits,
    *,
    looks: pd.DataFrame,
    split: str,
    allow: Collection[str] = (),
    policies: Collection[str] = (),
) -> tuple[Audit, tuple[str, ...]]:
    """Refuse data that would make results wrong.

    Args:
        cohort: Labelled images.
        splits: Their splits.
        looks: What `glances` saw of them.
        split: "random" allows its own leakage.
        allow: Findings of `check` to pass over.
        policies: Threshold policies, whose confidence the calibration split must be large enough for.

    Returns:
        The audit, and which of its errors were allowed.

    Raises:
        TumorTraceError: A split lacks a class, calibration is too small, or `check` finds an error not allowed.
    """
    _require_both_classes(cohort, splits)
    for policy in policies:
        _require_enough_calibration(cohort, splits, policy)
    audit = check(cohort, splits=splits, quick=True, looks=looks)
    return audit, refuse(audit, [*allow, *(["groups-across-splits"] if split == "random" else [])])


def _require_both_classes(cohort: Cohort, splits: Splits) -> None:
    """Refuse splits to learn from or calibrate on that lack a class."""
    labels = cohort.table.set_index("id")["label"]
    for name in ("train", "validation", "calibration"):
        ids = splits.table.loc[splits.table["split"] == name, "id"]
        found = labels.loc[ids].dropna().unique()
        if len(found) < 2:
            raise SplitError(
                f"split {name!r} holds {len(ids)} images of {len(found)} class(es)",
                where=cohort.name,
                expected="images of both classes in train, validation and calibration",
                remedy="add labelled images or groups, or give your own split column",
            )


def _require_enough_calibration(cohort: Cohort, splits: Splits, policy: str) -> None:
    """Refuse, before training, a threshold policy whose confidence the calibration split is too small to reach."""
    ids = splits.table.loc[splits.table["split"] == "calibration", "id"]
    labels = cohort.table.set_index("id")["label"].loc[ids]
    positives = int(labels.sum())
    require_enough(policy, int(labels.notna().sum()) - positives, positives, where=f"{cohort.name}, calibration split")
