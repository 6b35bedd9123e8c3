"""The threshold at which a probability becomes a call, by a stated policy.

It belongs to the calibration split: fitted on the images that are reported, it flatters every metric.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from tumortrace.errors import PredictionsError, RecipeError
from tumortrace.evaluation.table import check_arrays
from tumortrace.evaluation.tally import Floats, Tally, by_replicate, tally
from tumortrace.records.metrics import Estimate, OperatingPoints

POLICIES = "f1, youden, sensitivity>=S, specificity>=S, either with @C, cost:fn=A,fp=B or fixed:T"
_NUMBER = r"\d+(?:\.\d*)?(?:[eE][-+]?\d+)?|\.\d+(?:[eE][-+]?\d+)?"


@dataclass(frozen=True)
class Policy:
    """A parsed policy: its kind, and its numbers by name (`least` and `confidence`, `fn` and `fp`, or `threshold`)."""

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
            - `sensitivity>=0.95@0.9`: the same, with at least this sensitivity at a confidence of .9: the lower bound
              of Clopper & Pearson (1934) is at least .95. As thresholds and sensitivities are in one order, the bound
              holds for the threshold that is chosen by it: it is the tolerance limit of Wilks (1941). It takes images
              as independent; where many come from one slide or patient, the true confidence is lower.
            - `specificity>=0.95@0.95`: likewise.
            - `cost:fn=5,fp=1`: least total cost of missed and of false positives; the lowest among equals.
            - `fixed:0.5`: this one, whatever the data.

    Returns:
        The threshold, in [0, 1] or the next number above 1.

    Raises:
        RecipeError: The policy is not one of these.
        PredictionsError: A label or a probability is not possible, only one class is present, or there are too few
            images for the confidence.

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
    require_enough(policy, int(negatives), int(positives))
    best = _best(chosen, positives - fn, negatives - tn, positives, negatives)
    return _candidates(counts.probability)[best]


def parse_policy(policy: str) -> Policy:
    """A policy taken apart.

    Raises:
        RecipeError: It is not one of those that `fit_threshold` knows, or a number in it is not possible.

    Example:
        >>> parse_policy("cost:fn=5,fp=1")
        Policy(kind='cost', numbers={'fn': 5.0, 'fp': 1.0})
        >>> parse_policy("sensitivity>=0.95@0.9").numbers
        {'least': 0.95, 'confidence': 0.9}
    """
    text = re.sub(r"\s+", "", policy) if isinstance(policy, str) else ""
    if text in ("f1", "youden"):
        return Policy(text, {})
    if match := re.fullmatch(rf"(sensitivity|specificity)>=({_NUMBER})(?:@({_NUMBER}))?", text):
        least = float(match[2])
        if match[3] is None and 0 < least <= 1:
            return Policy(match[1], {"least": least})
        if match[3] is not None and 0 < least < 1 and 0 < float(match[3]) < 1:
            return Policy(match[1], {"least": least, "confidence": float(match[3])})
    elif match := re.fullmatch(rf"fixed:({_NUMBER})", text):
        if 0 <= float(match[1]) <= 1:
            return Policy("fixed", {"threshold": float(match[1])})
    elif match := re.fullmatch(rf"cost:(fn|fp)=({_NUMBER}),(fn|fp)=({_NUMBER})", text):
        costs = {match[1]: float(match[2]), match[3]: float(match[4])}
        if len(costs) == 2 and all(0 < cost < float("inf") for cost in costs.values()):
            return Policy("cost", {"fn": costs["fn"], "fp": costs["fp"]})
    raise RecipeError(
        f"threshold policy {policy!r}",
        expected=f"{POLICIES}, with S above 0 and at most 1 (below 1 with @C), C between 0 and 1, T from 0 to 1, "
        "A and B above 0",
        remedy="write it like sensitivity>=0.95",
    )


def require_enough(policy: str, negatives: int, positives: int, where: object = None) -> None:
    """Refuse a confidence that not even a threshold which misses no image would reach.

    Args:
        policy: As for `fit_threshold`.
        negatives: Images of the calibration split that are negative.
        positives: Those that are positive.
        where: The split, for messages.

    Raises:
        PredictionsError: There are too few.

    Example:
        >>> require_enough("sensitivity>=0.95@0.95", negatives=10, positives=59)
        >>> require_enough("sensitivity>=0.95@0.95", negatives=10, positives=58)
        Traceback (most recent call last):
        tumortrace.errors.PredictionsError: 58 positive images; expected at least 59 to show sensitivity>=0.95@0.95...
    """
    chosen = parse_policy(policy)
    if "confidence" not in chosen.numbers:
        return
    kind, images = ("positive", positives) if chosen.kind == "sensitivity" else ("negative", negatives)
    least, alpha = chosen.numbers["least"], 1 - chosen.numbers["confidence"]
    from scipy.special import bdtr

    if bdtr(0, images, 1 - least) > alpha:
        needed = math.ceil(math.log(alpha) / math.log(least))
        raise PredictionsError(
            f"{images:,} {kind} images",
            where=where,
            expected=f"at least {needed:,} to show {policy}",
            remedy="give the calibration split more of them, or ask for less",
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
        allowed = np.flatnonzero(_reached(policy, tp, positives))
        return int(allowed[np.lexsort((tp[allowed], -fp[allowed]))[-1]])
    allowed = np.flatnonzero(_reached(policy, negatives - fp, negatives))
    return int(allowed[np.lexsort((-fp[allowed], tp[allowed]))[-1]])


def _reached(policy: Policy, right: Floats, of: float) -> NDArray[np.bool_]:
    """Whether so many right ones show the share that is wanted, with its confidence where one is."""
    least, confidence = policy.numbers["least"], policy.numbers.get("confidence")
    if confidence is None:
        return np.asarray(right / of >= least)
    # That Clopper and Pearson's lower bound reaches `least`, said without computing it.
    from scipy.special import bdtr

    return np.asarray(bdtr(of - right, int(of), 1 - least) <= 1 - confidence)


def _candidates(levels: Floats) -> list[float]:
    """One threshold below each level and one above the last."""
    below, above = np.append(0.0, levels), np.append(levels, 1.0)
    middle = below + (above - below) / 2
    # Between neighbouring floats there is no middle: the upper one separates them just as well.
    middle[1:] = np.where(middle[1:] <= below[1:], above[1:], middle[1:])
    if levels[-1] == 1.0:
        middle[-1] = np.nextafter(1.0, 2.0)
    return [float(threshold) for threshold in middle]


# Sensitivity at a given specificity, and the reverse: single points of the ROC curve.


GIVEN = (0.9, 0.95, 0.99)
AT_SPECIFICITY, AT_SENSITIVITY = "sensitivity_at_specificity", "specificity_at_sensitivity"
POINT_NAMES = tuple((kind, f"{share:.2f}") for kind in (AT_SPECIFICITY, AT_SENSITIVITY) for share in GIVEN)


@by_replicate
def operating_points(counts: Tally) -> list[float]:
    """The best sensitivity with at least each of the given specificities, and the best specificity likewise.

    Only points that some threshold reaches count; nothing is interpolated between them. The threshold behind a point
    is chosen on the very images that it is measured on, in every bootstrap replicate anew: it compares models, and
    nothing may be called by it. It is therefore not told.

    Returns:
        In the order of `POINT_NAMES`; NaN where only one class is present.

    Example:
        >>> from tumortrace.evaluation.table import check_arrays
        >>> points = operating_points(tally(check_arrays([0, 0, 1, 1], [0.1, 0.6, 0.4, 0.9])))
        >>> POINT_NAMES[1], float(points[1]), POINT_NAMES[4], float(points[4])
        (('sensitivity_at_specificity', '0.95'), 0.5, ('specificity_at_sensitivity', '0.95'), 0.5)
    """
    true = np.append(0, np.cumsum(counts.positive[::-1]))
    true_negative = counts.negative.sum() - np.append(0, np.cumsum(counts.negative[::-1]))
    if true[-1] == 0 or true_negative[0] == 0:
        return [math.nan] * len(POINT_NAMES)
    # Ascending the one and descending the other, so that the best is the last, or first, that is allowed.
    sensitivity, specificity = true / true[-1], true_negative / true_negative[0]
    at_specificity = [float(sensitivity[specificity >= share][-1]) for share in GIVEN]
    return at_specificity + [float(specificity[sensitivity >= share][0]) for share in GIVEN]


def operating_points_record(estimates: Mapping[tuple[str, str], Estimate]) -> OperatingPoints:
    """The record of estimates by `POINT_NAMES`."""
    points: dict[str, dict[str, Estimate]] = {AT_SPECIFICITY: {}, AT_SENSITIVITY: {}}
    for (kind, share), estimate in estimates.items():
        points[kind][share] = estimate
    return OperatingPoints(**points)
