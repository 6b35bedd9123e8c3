"""How often two sets of calls of the same images agree."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from tumortrace.errors import PredictionsError
from tumortrace.evaluation.intervals import check_settings
from tumortrace.evaluation.proportions import wilson
from tumortrace.evaluation.resampling import draws_groups
from tumortrace.evaluation.table import check_table


def agreement(
    first: ArrayLike,
    second: ArrayLike,
    group: ArrayLike | None = None,
    *,
    replicates: int = 1000,
    seed: int = 0,
    confidence: float = 0.95,
) -> dict[str, Any]:
    """Share of images that are called alike, with its interval.

    Whole groups are drawn (percentile bootstrap) where every image has one and there are two or more; otherwise the
    interval is Wilson's.

    Args:
        first: Calls, 0 or 1, shape (n,).
        second: The other calls of the same images.
        group: Slide or patient of each, shape (n,), or None.
        replicates: Number of bootstrap replicates.
        seed: Seed of the replicates.
        confidence: Nominal coverage, in (0, 1).

    Returns:
        `{"value": share, "ci95": [low, high]}`.

    Raises:
        PredictionsError: The arrays differ in length, are empty or hold something else.

    Example:
        >>> agreement([0, 1, 1, 0], [0, 1, 0, 0])["value"]
        0.75
    """
    check_settings(replicates, confidence)
    one, other = np.asarray(first), np.asarray(second)
    if one.ndim != 1 or one.shape != other.shape:
        raise PredictionsError(f"shapes {one.shape} and {other.shape}", expected="two flat arrays of one length")
    table = pd.DataFrame({"label": one, "probability": np.asarray(other, dtype=float)})
    if group is not None:
        table["group"] = np.asarray(group, dtype=object)
    checked = check_table(table, "calls")
    alike = checked.label == checked.probability
    name = f"ci{100 * confidence:g}"
    if checked.group is None or checked.n_groups is None or not draws_groups(checked):
        low, high = wilson(alike.sum(), len(alike), confidence)
        return {"value": float(alike.mean()), name: [float(low), float(high)]}
    right = np.bincount(checked.group, weights=alike, minlength=checked.n_groups)
    size = np.bincount(checked.group, minlength=checked.n_groups)
    drawn = np.random.default_rng(seed).integers(checked.n_groups, size=(replicates, checked.n_groups))
    shares = right[drawn].sum(1) / size[drawn].sum(1)
    ends = np.quantile(shares, [(1 - confidence) / 2, (1 + confidence) / 2])
    return {"value": float(alike.mean()), name: [float(end) for end in ends]}
