"""Labels that a cross-validated model contradicts with confidence: candidates for a second look.

Northcutt, Jiang and Chuang (2021), "Confident learning: estimating uncertainty in dataset labels".
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from tumortrace.cohorts.cohort import Cohort
from tumortrace.cohorts.findings import Example, Finding
from tumortrace.errors import RunError
from tumortrace.records.tables import PREDICTIONS, SECOND_LOOK

EXAMPLES = 24


def doubtful(label: np.ndarray, probability: np.ndarray) -> np.ndarray:
    """Which labels are contradicted with confidence.

    An image is, where the probability of the other class is at least the mean probability of that class among the
    images that bear its label, and larger than that of its own.

    Args:
        label: 0 or 1, shape (N,).
        probability: Of class 1, predicted by a model that has not learnt from the image; shape (N,).

    Returns:
        bool, shape (N,).

    Example:
        >>> doubtful(np.array([0, 0, 1, 1]), np.array([0.1, 0.95, 0.9, 0.8]))
        array([False,  True, False, False])
    """
    positive, negative = label == 1, label == 0
    if not positive.any() or not negative.any():
        return np.zeros(len(label), bool)
    confident = (1 - probability[negative].mean(), probability[positive].mean())
    looks_positive = (probability >= confident[1]) & (probability > 0.5)
    looks_negative = (1 - probability >= confident[0]) & (probability < 0.5)
    return np.asarray((negative & looks_positive) | (positive & looks_negative))


def second_look(cohort: Cohort, run: str | Path) -> tuple[pd.DataFrame, Finding | None]:
    """Candidates for a second look, most contradicted first.

    Args:
        cohort: The data.
        run: Folder of a cross-validation, whose predictions are out of fold, or of a run, whose test split counts.

    Returns:
        Columns `id, path, label, probability, contradiction` (probability of the other class), and a finding with the
        first of them, or None where there are none.

    Raises:
        RunError: The folder has no predictions of these images that were made without learning from them.
    """
    table = PREDICTIONS.find(run)
    if table.empty:
        raise RunError(
            f"no {PREDICTIONS.name} there",
            where=run,
            expected="a folder that `crossval` or `train` made",
            remedy="name one",
        )
    if "fold" not in table:
        table = table[table["split"] == "test"]
    known = table.groupby("id", as_index=False)["probability"].mean()  # over repeats and recipes
    rows = cohort.labelled.table[["id", "path", "label"]].merge(known, on="id")
    if rows.empty:
        raise RunError(
            f"it has predicted none of the {len(cohort.labelled):,} labelled images without having learnt from them",
            where=run,
            remedy="run `tumortrace crossval` on these data first",
        )
    label, probability = rows["label"].to_numpy(np.int64), rows["probability"].to_numpy(float)
    rows["contradiction"] = np.where(label == 1, 1 - probability, probability)
    chosen = rows[doubtful(label, probability)].sort_values("contradiction", ascending=False, kind="stable")
    if chosen.empty:
        return chosen, None
    first = chosen.head(EXAMPLES)
    examples = tuple(
        Example(str(name), str(path), f"labelled {cohort.classes[int(label)]}, probability of the other {against:.2f}")
        for name, path, label, against in zip(
            first["id"], first["path"], first["label"], first["contradiction"], strict=True
        )
    )
    message = f"{len(chosen):,} of {len(rows):,} labels are contradicted with confidence by predictions out of fold"
    remedy = f"have an expert look again, most contradicted first ({SECOND_LOOK.name}); do not drop them unseen"
    return chosen, Finding("label-doubtful", "note", len(chosen), message, remedy, examples)
