"""Sensitivity at a given specificity, and the reverse: single points of the ROC curve."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from tumortrace.evaluation.metrics import Tally

GIVEN = (0.9, 0.95, 0.99)
AT_SPECIFICITY, AT_SENSITIVITY = "sensitivity_at_specificity", "specificity_at_sensitivity"
POINT_NAMES = tuple((kind, f"{share:.2f}") for kind in (AT_SPECIFICITY, AT_SENSITIVITY) for share in GIVEN)


def operating_points(counts: Tally) -> list[float]:
    """The best sensitivity with at least each of the given specificities, and the best specificity likewise.

    Only points that some threshold reaches count; nothing is interpolated between them. The threshold behind a point
    is chosen on the very images that it is measured on, in every bootstrap replicate anew: it compares models, and
    nothing may be called by it. It is therefore not told.

    Returns:
        In the order of `POINT_NAMES`; NaN where only one class is present.

    Example:
        >>> from tumortrace.evaluation.metrics import tally
        >>> from tumortrace.evaluation.table import check_arrays
        >>> points = operating_points(tally(check_arrays([0, 0, 1, 1], [0.1, 0.6, 0.4, 0.9])))
        >>> POINT_NAMES[1], points[1], POINT_NAMES[4], points[4]
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


def operating_points_record(entries: Mapping[tuple[str, str], dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """`{kind: {given: entry}}` of entries by `POINT_NAMES`."""
    return {
        kind: {f"{share:.2f}": entries[kind, f"{share:.2f}"] for share in GIVEN}
        for kind, _ in POINT_NAMES[:: len(GIVEN)]
    }
