"""The threshold at which a probability becomes a call, by a stated policy.

It belongs to the calibration split: fitted on the images that are reported, it flatters every metric.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from tumortrace.errors import PredictionsError, RecipeError
from tumortrace.evaluation.metrics import tally
from tumortrace.evaluation.table import check_arrays

Floats = NDArray[np.float64]
POLICIES = "f1, youden, sensitivity>=S, specificity>=S, cost:fn=A,fp=B or fixed:T"
_NUMBER = r"\d+(?:\.\d*)?(?:[eE][-+]?\d+)?|\.\d+(?:[eE][-+]?\d+)?"


@dataclass(frozen=True)
class Policy:
    """A parsed policy: its kind, and its numbers by name (`least`, `fn` and `fp`, or `threshold`)."""

    kind: str
    numbers: dict[str, float]


def fit_threshold(label: ArrayLike, probability: ArrayLike, policy: str) -> float:
    """The threshold that a policy chooses; an image is called positive at or above it.

    Candidates lie halfway between neighbouring distinct probabilities, so that rounding on another machine flips no
    call, and between the outermost ones and 0 and 1. Where probabilities of 1 must be called negative, the
    threshold is the next number above 1.

    Args:
        label: 0 or 1, shape (n,), of the calibration split.
        probability: Probability of class 1, shape (n,), in [0, 1].
        policy: One of

            - `f1`: largest F1; the lowest threshold among equals.
            - `youden`: largest sensitivity + specificity - 1 (Youden 1950); the lowest among equals.
            - `sensitivity>=0.95`: largest specificity with at least this sensitivity, then largest sensitivity.
            - `specificity>=0.95`: largest sensitivity with at least this specificity, then largest specificity.
            - `cost:fn=5,fp=1`: least total cost of missed and of false positives; the lowest among equals.
            - `fixed:0.5`: this one, whatever the data.

    Returns:
        The threshold, in [0, 1] or the next number above 1.

    Raises:
        RecipeError: The policy is not one of these.
        PredictionsError: A label or a probability is not possible, or only one class is present.

    Example:
        >>> fit_threshold([0, 0, 1, 1], [0.1, 0.6, 0.4, 0.9], "sensitivity>=0.95")
        0.25
    """
    chosen = parse_policy(policy)
    if chosen.kind == "fixed":
        return chosen.numbers["threshold"]
    counts = tally(check_arrays(label, probability))
    # Calls at candidate i: every level from i upwards is called positive; the last candidate calls none.
    fn = np.append(0, np.cumsum(counts.positive))
    tn = np.append(0, np.cumsum(counts.negative))
    positives, negatives = fn[-1], tn[-1]
    if positives == 0 or negatives == 0:
        raise PredictionsError(
            f"only images of class {int(positives > 0)}",
            expected=f"both classes, to fit the threshold by {policy!r}",
            remedy="give the calibration split images of both classes, or use fixed:0.5",
        )
    best = _best(chosen, positives - fn, negatives - tn, positives, negatives)
    return _candidates(counts.probability)[best]


def parse_policy(policy: str) -> Policy:
    """A policy taken apart.

    Raises:
        RecipeError: It is not one of those that `fit_threshold` knows, or a number in it is not possible.

    Example:
        >>> parse_policy("cost:fn=5,fp=1")
        Policy(kind='cost', numbers={'fn': 5.0, 'fp': 1.0})
    """
    text = re.sub(r"\s+", "", policy) if isinstance(policy, str) else ""
    if text in ("f1", "youden"):
        return Policy(text, {})
    if match := re.fullmatch(rf"(sensitivity|specificity)>=({_NUMBER})", text):
        if 0 < float(match[2]) <= 1:
            return Policy(match[1], {"least": float(match[2])})
    elif match := re.fullmatch(rf"fixed:({_NUMBER})", text):
        if 0 <= float(match[1]) <= 1:
            return Policy("fixed", {"threshold": float(match[1])})
    elif match := re.fullmatch(rf"cost:(fn|fp)=({_NUMBER}),(fn|fp)=({_NUMBER})", text):
        costs = {match[1]: float(match[2]), match[3]: float(match[4])}
        if len(costs) == 2 and all(0 < cost < float("inf") for cost in costs.values()):
            return Policy("cost", {"fn": costs["fn"], "fp": costs["fp"]})
    raise RecipeError(
        f"threshold policy {policy!r}",
        expected=f"{POLICIES}, with S above 0 and at most 1, T from 0 to 1, A and B above 0",
        remedy="write it like sensitivity>=0.95",
    )


def _best(policy: Policy, tp: Floats, fp: Floats, positives: float, negatives: float) -> int:
    """Index of the candidate that the policy prefers; comparisons are of whole numbers wherever they can be."""
    if policy.kind == "f1":
        return int(np.argmax(2 * tp / (tp + fp + positives)))  # argmax takes the first, the lowest threshold
    if policy.kind == "youden":
        return int(np.argmax(tp * negatives - fp * positives))
    if policy.kind == "cost":
        return int(np.argmin(policy.numbers["fn"] * (positives - tp) + policy.numbers["fp"] * fp))
    if policy.kind == "sensitivity":
        allowed = np.flatnonzero(tp / positives >= policy.numbers["least"])
        return int(allowed[np.lexsort((tp[allowed], -fp[allowed]))[-1]])
    allowed = np.flatnonzero((negatives - fp) / negatives >= policy.numbers["least"])
    return int(allowed[np.lexsort((-fp[allowed], tp[allowed]))[-1]])


def _candidates(levels: Floats) -> list[float]:
    """One threshold below each level and one above the last."""
    below, above = np.append(0.0, levels), np.append(levels, 1.0)
    middle = below + (above - below) / 2
    # Between neighbouring floats there is no middle: the upper one separates them just as well.
    middle[1:] = np.where(middle[1:] <= below[1:], above[1:], middle[1:])
    if levels[-1] == 1.0:
        middle[-1] = np.nextafter(1.0, 2.0)
    return [float(threshold) for threshold in middle]
