"""Folds within the training split, for choices that neither validation nor calibration nor test may make."""

from __future__ import annotations

import numpy as np
from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold

from tumortrace.cohorts.seen import digests
from tumortrace.errors import SplitError
from tumortrace.training.patches import Patches

Folds = list[tuple[np.ndarray, np.ndarray]]


def make_folds(training: Patches, count: int, seed: int) -> tuple[Folds, str]:
    """Folds of the training split, stratified by class, by slide or patient where these are known.

    Where they are not, copies of a picture stay together.

    Args:
        training: The split.
        count: How many folds.
        seed: Of the order.

    Returns:
        Indices to learn from and to judge by, for each fold, and a note.

    Raises:
        SplitError: A fold would lack a class.
    """
    labels, groups = training.labels.astype(np.int64), training.groups
    pictures = digests(training.images, training.rows) if groups is None else []
    if len(set(pictures)) < len(pictures):
        groups = np.array(pictures)
    remedy = "fewer folds, as in --set learner.folds=2, or more labelled images or groups"
    kind = StratifiedKFold if groups is None else StratifiedGroupKFold
    fewest = min(np.bincount(labels, minlength=2)) if groups is None else len(set(groups))
    if fewest < count:
        what = "images of the rarer class" if groups is None else "pictures" if pictures else "slides or patients"
        raise SplitError(f"{fewest} {what} in the training split", expected=f"{count}, one per fold", remedy=remedy)
    folds = list(kind(count, shuffle=True, random_state=seed).split(labels, labels, groups))
    for number, (learnt, judged) in enumerate(folds, 1):
        if len(set(labels[learnt])) < 2 or len(set(labels[judged])) < 2:
            raise SplitError(f"fold {number} of {count} of the training split lacks a class", remedy=remedy)
    note = f"parameters were chosen within {count} folds of the training split, "
    if training.groups is None:
        return folds, note + "which may share slides or patients, as these are not known: the folds are too kind"
    return folds, note + "of which no two share a slide or patient"
