"""Learning from a teacher: its probabilities beside the labels."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from tumortrace.cohorts.cohort import Cohort
from tumortrace.cohorts.seen import digests, read_seen
from tumortrace.cohorts.splits import Splits
from tumortrace.cohorts.store import PatchStore
from tumortrace.errors import RunError
from tumortrace.models.bundle import find_bundle, load_model
from tumortrace.training.patches import Patches


def teacher_targets(
    teacher: str | Path, cohort: Cohort, store: PatchStore, splits: Splits, training: Patches, share: float
) -> tuple[Patches, list[str]]:
    """The training images with targets (1 - share) * label + share * the teacher's calibrated probability.

    Args:
        teacher: Run folder or bundle.
        cohort: The data.
        store: Its images.
        splits: Its splits.
        training: Images of the training split.
        share: The teacher's, in [0, 1].

    Returns:
        The images with targets, and what to say aloud.

    Raises:
        RunError: The teacher was made for other classes or another size, or has learnt from images that validate,
            calibrate or test the pupil: their measurements would flatter it.
    """
    model = load_model(teacher)
    remedy = "distil from a teacher trained on this data with the same splits"
    if model.info.classes != cohort.classes or model.info.patch_size != store.size:
        raise RunError(
            f"the teacher takes {model.info.patch_size} px and classes {model.info.classes}",
            where=teacher,
            expected=f"{store.size} px and classes {cohort.classes}",
            remedy=remedy,
        )
    seen = read_seen(find_bundle(teacher).parent / "seen.csv")
    notes = [] if seen else ["what the teacher has learnt from is not known: its seen.csv is not there"]
    kept = splits.table.loc[splits.table["split"] != "train", "id"]
    rows = np.flatnonzero(cohort.table["id"].isin(set(kept)))
    learnt = sum(seen.get(digest) == "train" for digest in digests(store.images, rows))
    if learnt:
        raise RunError(
            f"the teacher has learnt from {learnt:,} of the {len(rows):,} images that are to measure the pupil",
            where=teacher,
            remedy=remedy,
        )
    probability = model.predict(store.images, training.rows, description="teacher")
    targets = (1 - share) * training.labels + share * probability
    notes.append(f"distilled from {model.info.name}, weights {model.info.weights_sha256[:12]}, share {share:g}")
    return replace(training, targets=targets.astype(np.float32)), notes
