"""The mean of something measured once per image, with its interval."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike


def mean_with_interval(
    values: ArrayLike, groups: Sequence[str | None] | None = None, *, replicates: int = 1000, seed: int = 0
) -> dict[str, Any]:
    """Mean over images and its 95 % interval, by percentile bootstrap (Efron & Tibshirani 1993).

    Replicates draw whole groups with replacement where every image has one and there are two or more (Field & Welsh
    2007), else single images.

    Args:
        values: One per image; NaN where it is not defined, which is left out.
        groups: Slide or patient of each image.
        replicates: Number of bootstrap replicates.
        seed: Seed of the replicates.

    Returns:
        `{"value", "ci95", "n"}`: the mean, its interval and the number of images that it is of. The mean is None
        where no value is defined, the interval also where fewer than two units could be drawn.

    Example:
        >>> result = mean_with_interval([0.0, 1.0, 1.0, 1.0])
        >>> result["value"], result["ci95"], result["n"]
        (0.75, [0.25, 1.0], 4)
    """
    numbers = np.asarray(values, dtype=np.float64)
    defined = ~np.isnan(numbers)
    kept = numbers[defined]
    if not len(kept):
        return {"value": None, "ci95": None, "n": 0}
    names = None if groups is None else np.asarray(groups, dtype=object)[defined]
    if names is not None and all(isinstance(name, str) for name in names) and len(set(names)) > 1:
        unit = np.unique(names.astype(str), return_inverse=True)[1]
    else:
        unit = np.arange(len(kept))
    units = int(unit.max()) + 1
    interval = None
    if units > 1:
        sums, counts = np.bincount(unit, kept), np.bincount(unit).astype(np.float64)
        drawn = np.random.default_rng(seed).integers(units, size=(replicates, units))
        means = sums[drawn].sum(1) / counts[drawn].sum(1)
        interval = [float(end) for end in np.quantile(means, (0.025, 0.975))]
    return {"value": float(kept.mean()), "ci95": interval, "n": len(kept)}
