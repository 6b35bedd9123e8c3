"""Abstention with a guarantee: split conformal prediction, class by class.

For each class the share of images whose prediction set leaves out their true class is at most 1 - coverage, on average
over calibration sets and whatever the model, as long as calibration and new images are exchangeable (Vovk 2012;
Angelopoulos & Bates 2021). Images of a new hospital or scanner are not, and images of few slides only roughly so.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from fractions import Fraction
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from tumortrace.errors import PredictionsError
from tumortrace.evaluation.metrics import check_threshold
from tumortrace.evaluation.table import check_arrays


def fit_conformal(label: ArrayLike, probability: ArrayLike, coverage: float = 0.9) -> dict[str, Any]:
    """The conformal quantile of each class, from the calibration split.

    The nonconformity of an image is 1 - probability of its true class. Of the n images of a class, the quantile is the
    ceil((n + 1) coverage)-th smallest. With too few images (9 are needed for coverage .9) there is no such image, and
    the quantile is None: the class then belongs to every prediction set, so that the other one is never decided.

    Args:
        label: 0 or 1, shape (n,).
        probability: Probability of class 1, shape (n,), in [0, 1].
        coverage: Share of images of each class whose prediction set contains it, in (0, 1).

    Returns:
        `{"coverage": coverage, "quantiles": [negative, positive], "n": [negatives, positives]}`, ready for JSON.

    Raises:
        PredictionsError: A label, a probability or the coverage is not possible.

    Example:
        >>> fit_conformal([0, 0, 0, 1], [0.1, 0.2, 0.4, 0.9], coverage=0.75)
        {'coverage': 0.75, 'quantiles': [0.4, None], 'n': [3, 1]}
    """
    if not 0 < coverage < 1:
        raise PredictionsError(f"coverage {coverage}", expected="a number between 0 and 1", remedy="use 0.9")
    predictions = check_arrays(label, probability)
    scores = _nonconformity(predictions.probability)
    quantiles: list[float | None] = []
    sizes = []
    for index in (0, 1):
        own = np.sort(scores[predictions.label == index, index])
        rank = math.ceil((len(own) + 1) * Fraction(str(float(coverage))))  # exact: 0.1 * 30 must not round up to 4
        quantiles.append(float(own[rank - 1]) if rank <= len(own) else None)
        sizes.append(len(own))
    return {"coverage": float(coverage), "quantiles": quantiles, "n": sizes}


def prediction_sets(probability: ArrayLike, quantiles: Sequence[float | None]) -> NDArray[np.bool_]:
    """Which classes each image's prediction set contains.

    Args:
        probability: Probability of class 1, shape (n,), in [0, 1].
        quantiles: Of the negative and of the positive class, from `fit_conformal`; None always contains the class.

    Returns:
        Negative and positive, shape (n, 2), bool.

    Example:
        >>> prediction_sets([0.1, 0.5, 0.9], [0.5, 0.6])
        array([[ True, False],
               [ True,  True],
               [False,  True]])
    """
    limits = [math.inf if quantile is None else quantile for quantile in quantiles]
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
