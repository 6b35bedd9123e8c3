"""The share of images of which something holds, with its interval: by whole groups where these are known."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from tumortrace.evaluation.intervals import check_settings, percentile_interval
from tumortrace.evaluation.proportions import wilson, wilson_of_groups
from tumortrace.evaluation.resampling import draws_groups
from tumortrace.evaluation.table import check_table


def share_with_interval(
    holds: ArrayLike,
    group: ArrayLike | None = None,
    *,
    replicates: int = 1000,
    seed: int = 0,
    confidence: float = 0.95,
) -> dict[str, Any]:
    """The share of images of which something holds.

    Whole groups are drawn (percentile bootstrap) where every image has one and there are two or more; where no
    replicate differs, as where it holds of all images, the interval is Wilson's with groups counted as images.
    Without groups it is Wilson's.

    Args:
        holds: Whether it does, bool, shape (n,).
        group: Slide or patient of each image, shape (n,), or None.
        replicates: Number of bootstrap replicates.
        seed: Seed of the replicates.
        confidence: Nominal coverage, in (0, 1).

    Returns:
        `{"value": share, "ci95": [low, high]}`, both None where there are no images.

    Example:
        >>> found = share_with_interval([True, True, False, True])
        >>> found["value"], [round(end, 2) for end in found["ci95"]]
        (0.75, [0.3, 0.95])
        >>> [round(end, 2) for end in share_with_interval([True] * 40, list("abcd") * 10)["ci95"]]
        [0.51, 1.0]
    """
    check_settings(replicates, confidence)
    name, held = f"ci{100 * confidence:g}", np.asarray(holds, dtype=bool)
    if not len(held):
        return {"value": None, name: None}
    table = pd.DataFrame({"label": held.astype(np.int64), "probability": 0.5})
    if group is not None:
        table["group"] = np.asarray(group, dtype=object)
    checked, value = check_table(table), float(held.mean())
    if checked.group is None or checked.n_groups is None or not draws_groups(checked):
        low, high = wilson(held.sum(), len(held), confidence)
        return {"value": value, name: [float(low), float(high)]}
    count = checked.n_groups
    right, size = np.bincount(checked.group, weights=held, minlength=count), np.bincount(checked.group)
    random = np.random.default_rng(seed)
    drawn = (random.integers(count, size=count) for _ in range(replicates))
    ends = percentile_interval(np.array([right[rows].sum() / size[rows].sum() for rows in drawn]), confidence)
    if ends is not None and ends[0] == ends[1]:
        ends = wilson_of_groups(value, count, confidence)
    return {"value": value, name: ends}
