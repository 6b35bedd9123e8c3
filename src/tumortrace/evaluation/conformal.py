"""Abstention with a guarantee: split conformal prediction, class by class, and slide by slide where there are enough.

For each class the share of images whose prediction set leaves out their true class is at most 1 - coverage, on average
over calibration sets and whatever the model, as long as calibration and new images are exchangeable (Vovk 2012;
Angelopoulos & Bates 2021). Images of one slide or patient resemble each other, so that this says little about the next
slide. Where there are enough slides, these take the place of images: a new slide, and an image of it, exchangeable
with the slides of the calibration split and their images (hierarchical conformal prediction: Lee, Barber & Willett
2023, "Distribution-free inference with hierarchical data"; Dunn, Wasserman & Ramdas 2023). Slides of a new hospital or
scanner are not exchangeable with these, and nothing is promised about them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from fractions import Fraction
from typing import Literal

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from pydantic import BaseModel, ConfigDict, Field

from tumortrace.errors import PredictionsError
from tumortrace.evaluation.table import check_arrays, check_threshold

#: Groups of each class from which on they are the unit; coverage .95 needs 19 of them.
ENOUGH_GROUPS = 20

#: How far beyond its quantile a class still belongs to the set. The quantile is the score of a calibration image, which
#: another backend or batch size computes a little differently: the same image must not fall on the other side. It only
#: makes sets larger, so that no coverage is lost.
ROUNDING = 1e-5


class Conformal(BaseModel):
    """Class-conditional split conformal prediction, from the calibration split; see `fit_conformal`.

    Attributes:
        coverage: Share of images of each class whose prediction set contains it.
        quantiles: Of the negative and of the positive class; None where there were too few to calibrate by.
        n: Calibration images of both classes.
        unit: What is exchangeable: images, or slides and patients with their images.
        n_groups: Slides or patients with images of each class, where known.
    """

    model_config = ConfigDict(frozen=True, extra="allow")

    coverage: float = Field(gt=0, lt=1)
    quantiles: tuple[float | None, float | None]
    n: tuple[int, int] | None = None
    unit: Literal["image", "group"] = "image"
    n_groups: tuple[int, int] | None = None


def fit_conformal(
    label: ArrayLike, probability: ArrayLike, coverage: float = 0.9, group: ArrayLike | None = None
) -> Conformal:
    """The conformal quantile of each class, from the calibration split.

    The nonconformity of an image is 1 - probability of its true class. Where the unit is the image, the quantile of
    a class with n images is the ceil((n + 1) coverage)-th smallest. Where it is the group, each of the K groups with
    images of the class weighs 1 / (K + 1), its images in equal parts, and the quantile is the smallest nonconformity
    up to which the weights sum to the coverage; with one image in each group that is the same. With too little (9
    images or groups are needed for coverage .9) there is none, and the quantile is None: the class then belongs to
    every prediction set, so that the other one is never decided.

    Args:
        label: 0 or 1, shape (n,).
        probability: Probability of class 1, shape (n,), in [0, 1].
        coverage: Share of images of each class whose prediction set contains it, in (0, 1).
        group: Slide or patient of each image, or None. Groups are the unit where every image has one and at least 20
            of them hold images of the class, for both classes.

    Returns:
        The quantiles, with what they are from.

    Raises:
        PredictionsError: A label, a probability or the coverage is not possible.

    Example:
        >>> fit_conformal([0, 0, 0, 1], [0.1, 0.2, 0.4, 0.9], coverage=0.75).quantiles
        (0.4, None)
    """
    predictions = check_arrays(label, probability)
    scores = _nonconformity(predictions.probability)[np.arange(len(predictions.label)), predictions.label]
    quantiles, n, by_group, n_groups = quantiles_of(scores, predictions.label, 2, coverage, group)
    return Conformal(
        coverage=float(coverage),
        quantiles=(quantiles[0], quantiles[1]),
        n=(n[0], n[1]),
        unit="group" if by_group else "image",
        n_groups=None if n_groups is None else (n_groups[0], n_groups[1]),
    )


def quantiles_of(
    scores: NDArray[np.float64], label: NDArray[np.int64], classes: int, coverage: float, group: ArrayLike | None
) -> tuple[list[float | None], list[int], bool, list[int] | None]:
    """The conformal quantile of each class; see `fit_conformal`.

    Args:
        scores: Nonconformity of each image to its true class, shape (n,).
        label: Which class that is, shape (n,), in [0, classes).
        classes: How many there are.
        coverage: In (0, 1).
        group: Slide or patient of each image, or None.

    Returns:
        The quantiles, the number of images of each class, whether groups are the unit, and their numbers by class
        where all are known.
    """
    if not 0 < coverage < 1:
        raise PredictionsError(f"coverage {coverage}", expected="a number between 0 and 1", remedy="use 0.9")
    known = None if group is None else pd.Series(np.asarray(group, dtype=object))
    groups = None if known is None or known.isna().any() else known.factorize()[0]
    chosen = [label == index for index in range(classes)]
    n_groups = None if groups is None else [len(np.unique(groups[rows])) for rows in chosen]
    by_group = n_groups is not None and min(n_groups) >= ENOUGH_GROUPS
    exact = Fraction(str(float(coverage)))  # 0.1 * 30 must not round up to 4
    drawn = groups if by_group else None
    quantiles = [_quantile(scores[rows], None if drawn is None else drawn[rows], exact) for rows in chosen]
    return quantiles, [int(rows.sum()) for rows in chosen], by_group, n_groups


def _quantile(scores: NDArray[np.float64], group: NDArray[np.int64] | None, coverage: Fraction) -> float | None:
    order = np.argsort(scores, kind="stable")
    if group is None:
        rank = math.ceil((len(scores) + 1) * coverage)
        return float(scores[order[rank - 1]]) if rank <= len(scores) else None
    _, place, size = np.unique(group, return_inverse=True, return_counts=True)
    weight = np.cumsum(1 / size[place[order]])
    reached = np.flatnonzero(weight >= float((len(size) + 1) * coverage) - 1e-9)
    return float(scores[order[reached[0]]]) if len(reached) else None


def promise(conformal: Conformal, classes: Sequence[str], unit: str = "image") -> list[str]:
    """What the decisions promise, on which ground, and what voids it: a sentence each.

    Args:
        conformal: What `fit_conformal` returned.
        classes: Names of the negative and of the positive class.
        unit: What is decided: "image" or "slide".

    Example:
        >>> fitted = fit_conformal([0, 0, 0, 1], [0.1, 0.2, 0.4, 0.9], coverage=0.75)
        >>> promise(fitted, ("normal", "tumour"))[1]
        'Too few calibration images to ever decide normal: everything else is referred.'
    """
    wrong = f"{100 * (1 - conformal.coverage):.3g} %"
    sentences = [f"Of the {classes[0]} {unit}s, and of the {classes[1]} {unit}s, at most {wrong} are decided wrongly."]
    by_group = conformal.unit == "group"
    what = "slides or patients" if by_group else f"{unit}s"
    # where a class has no quantile, it is in every set, and the other one never alone
    lacking = [classes[1 - i] for i, quantile in enumerate(conformal.quantiles) if quantile is None]
    if lacking:
        sentences.append(
            f"Too few calibration {what} to ever decide {' or '.join(lacking)}: everything else is referred."
        )
    if by_group:
        one = "an image of a new slide or patient" if unit == "image" else "a slide of a new patient"
        counts = " and ".join(f"{number:,}" for number in conformal.n_groups or ())
        sentences.append(
            f"That is a promise about {one}, each counting once, on average over such "
            f"({counts} of them with {unit}s of either class calibrated it)."
        )
    else:
        sentences.append(
            f"That is a promise about new {unit}s drawn as the calibration {unit}s were, on average; those of a "
            "slide or patient of its own may do worse, as there were too few, or no known, slides or patients to "
            "calibrate by."
        )
    sentences.append(
        "A new scanner, stain, laboratory or hospital, or patients chosen otherwise, voids it: calibrate anew on data "
        "from there."
    )
    return sentences


def prediction_sets(probability: ArrayLike, quantiles: Sequence[float | None]) -> NDArray[np.bool_]:
    """Which classes each image's prediction set contains.

    Args:
        probability: Probability of class 1, shape (n,), in [0, 1].
        quantiles: Of the negative and of the positive class, from `fit_conformal`, each taken `ROUNDING` larger; None
            always contains the class.

    Returns:
        Negative and positive, shape (n, 2), bool.

    Example:
        >>> prediction_sets([0.1, 0.5, 0.9], [0.5, 0.6])
        array([[ True, False],
               [ True,  True],
               [False,  True]])
    """
    limits = [math.inf if quantile is None else quantile + ROUNDING for quantile in quantiles]
    return np.asarray(_nonconformity(_probabilities(probability)) <= limits)


def decide(probability: ArrayLike, threshold: float, quantiles: Sequence[float | None] | None) -> NDArray[np.str_]:
    """What to call each image: `positive`, `negative`, or `refer` to a person.

    An image is decided where its prediction set holds exactly one class and the threshold says the same. It is
    referred where the set holds both or none, or contradicts the threshold.

    Args:
        probability: Probability of class 1, shape (n,), in [0, 1].
        threshold: An image is called positive where its probability is at or above it.
        quantiles: From `fit_conformal`; None decides every image by the threshold alone.

    Returns:
        Shape (n,), one of the three words each. In each class, the share decided wrongly is at most
        1 - coverage.

    Raises:
        PredictionsError: A probability or the threshold is not possible.

    Example:
        >>> decide([0.1, 0.5, 0.9], threshold=0.5, quantiles=[0.5, 0.6]).tolist()
        ['negative', 'refer', 'positive']
    """
    check_threshold(threshold)
    probabilities = _probabilities(probability)
    positive = probabilities >= threshold
    calls = np.where(positive, "positive", "negative")
    if quantiles is None:
        return calls
    sets = prediction_sets(probabilities, quantiles)
    agrees = (sets[:, 1] == positive) & (sets[:, 0] == ~positive)
    return np.where(agrees, calls, "refer")


def _nonconformity(probability: NDArray[np.float64]) -> NDArray[np.float64]:
    """1 - probability of the negative and of the positive class, shape (n, 2)."""
    return np.column_stack([probability, 1 - probability])


def _probabilities(probability: ArrayLike) -> NDArray[np.float64]:
    """Checked probabilities; an empty array stays one."""
    values = np.asarray(probability, dtype=np.float64)
    return values if values.shape == (0,) else check_arrays(np.zeros(len(values)), values).probability
