"""How often two sets of calls of the same images agree."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from tumortrace.errors import PredictionsError
from tumortrace.evaluation.shares import share_with_interval
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
    """Share of images that are called alike, with its interval as `share_with_interval` makes it.

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
    one, other = np.asarray(first), np.asarray(second)
    if one.ndim != 1 or one.shape != other.shape:
        raise PredictionsError(f"shapes {one.shape} and {other.shape}", expected="two flat arrays of one length")
    checked = check_table(pd.DataFrame({"label": one, "probability": np.asarray(other, dtype=float)}), "calls")
    alike = checked.label == checked.probability
    return share_with_interval(alike, group, replicates=replicates, seed=seed, confidence=confidence)
