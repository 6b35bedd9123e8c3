"""Whether a set of images as a whole lies apart from the training images, by how far slides of the training data do.

What single images do not show, as all of them are usual by themselves, a whole set does: another stain or scanner
moves all its images a little, the same way. A p-value alone would flag every set, as patches of another slide of the
same laboratory differ, too. So a set's distance is placed among those of the training data's slides or patients from
one another, each taken with no more images than the set has, so that chance blurs these no less.
"""

from __future__ import annotations

import numpy as np
import pandas as pd

from tumortrace.evaluation.discrepancy import Reference
from tumortrace.records.metrics import Drift, Estimate

#: Images from which on a set is placed. `tests/evaluation/test_drift.py` holds what it brings.
MINIMUM = 32
#: Slides or patients of the training data without which "further than 19 of 20" cannot be said.
NEEDED = 19
#: Images of a set that are compared; the time that it takes grows with their square.
SAMPLE = 1000
DRAWS = 199
LEVEL = 0.05
NO_REFERENCE = (
    "whether these images as a whole lie apart from the training images is not said: the model keeps no reference of "
    "these; one that is trained anew does"
)
NOT_OF_SLIDES = "whether these slides as a whole lie apart from the training slides is not said of models of slides"


def sampled(images: int) -> np.ndarray:
    """Which images of a set are compared: all of them, or `SAMPLE` drawn at random; rows, rising, int64."""
    if images <= SAMPLE:
        return np.arange(images)
    return np.sort(np.random.default_rng(0).choice(images, SAMPLE, replace=False))


def judge_drift(
    reference: Reference, rows: np.ndarray, group: pd.Series | None = None, *, grouped: bool, images: int
) -> Drift:
    """How far a set lies from the training images, and where that is among their slides or patients.

    A set of several slides is compared with as many slides drawn together, since their differences cancel in it; slides
    that are unequally large count as fewer (Kish's effective number).

    Args:
        reference: Rows of training images by slide or patient; where these are not known each its own.
        rows: What the model makes of the sampled images, shape (N, D).
        group: Slide or patient of each; None where not known, which is taken for one slide.
        grouped: Whether the reference knows slides or patients.
        images: Of the whole set.
    """
    if images < MINIMUM:
        return Drift(images=images, used=len(rows), minimum=MINIMUM, groups=None, verdict=None)
    known = None if group is None or group.isna().any() else pd.factorize(group)[0]
    distance = reference.discrepancy(rows)
    interval = reference.interval(rows, np.arange(len(rows)) if known is None or known.max() == 0 else known)
    sizes = np.bincount(known) if known is not None else np.array([len(rows)])
    alike = int(sizes.sum() ** 2 / (sizes**2).sum() + 1e-9) if grouped else len(rows)
    drawn, each = _like(reference, alike, len(rows))
    others = reference.drawn(drawn, each, draws=DRAWS)
    further = int((others < distance).sum())
    able = int((reference.sizes >= each).sum())
    rare = (1 + len(others) - further) / (len(others) + 1) <= LEVEL
    return Drift(
        images=images,
        used=len(rows),
        minimum=MINIMUM,
        groups=None if known is None else len(sizes),
        distance=Estimate(value=round(distance, 6), ci95=(round(interval[0], 6), round(interval[1], 6))),
        grouped=grouped,
        known_groups=able if grouped else 0,
        drawn_groups=drawn,
        drawn_images=each,
        distances=np.sort(others).round(6).tolist(),
        further_than=further,
        needed=NEEDED,
        verdict=("further" if rare else "among") if grouped and able >= NEEDED else None,
    )


def _like(reference: Reference, groups: int, images: int) -> tuple[int, int]:
    """How many groups are drawn, and how many images of each, so that a drawn set is no larger than the set."""
    sizes, most = reference.sizes, int(reference.sizes.max())

    def able(each: int) -> int:
        return int((sizes >= each).sum())

    drawn = max(min(groups, len(sizes) // 2), 1)
    least = 2 if drawn == 1 else 1
    each = max(range(least, max(min(images // drawn, most), least) + 1), key=lambda k: (min(able(k), NEEDED), k))
    return max(min(drawn, able(each) // 2), 1), each


def drift_line(drift: Drift) -> str:
    """That in a sentence; where the set lies further away than 19 of 20, a warning.

    Example:
        >>> drift_line(Drift(images=12, used=12, minimum=32))
        'too few images (12 of 32) to say whether as a whole they lie apart from the training images'
    """
    if drift.distance is None:
        few = f"too few images ({drift.images:,} of {drift.minimum})"
        return f"{few} to say whether as a whole they lie apart from the training images"
    value, (low, high) = drift.distance.value or 0.0, drift.distance.ci95 or (np.nan, np.nan)
    start = f"as a whole these {drift.images:,} images lie"
    measured = f"MMD2 {value:.4f} [{low:.4f}, {high:.4f}]"
    if not drift.grouped:
        limit = f"19 of 20 random draws of these come to at most {np.quantile(drift.distances, 0.95):.4f}"
        unknown = "no slide or patient of the training data is known by which to judge"
        return f"{start} apart from the training images by {measured}; {limit}; {unknown}"
    place = f"{drift.further_than} of {len(drift.distances)} {drift.compared}"
    told = f"{start} further from the training images than {place} of the training data do ({measured})"
    if drift.verdict == "further":
        return f"warning: {told}; measure the model on labelled images from there before it is trusted"
    if drift.verdict is None:
        return (
            f"{told}; too few slides or patients ({drift.known_groups} of {drift.needed}) to say whether that is much"
        )
    return f"{told}, as slides of the same kind may"
