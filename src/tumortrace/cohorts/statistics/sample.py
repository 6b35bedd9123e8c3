"""A sample of a cohort, drawn by class."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from tumortrace.cohorts.cohort import Cohort
from tumortrace.errors import CohortError

AT_LEAST = 50
"""Images of each class that a sample holds where there are so many, however rare the class."""


def draw_sample(cohort: Cohort, size: int, seed: int = 0) -> Cohort:
    """Images drawn at random without replacement, each class by its share; all of them where `size` is no less.

    Unlabelled images count as a class. A rare class gets up to `AT_LEAST` images where its share is less.

    Args:
        cohort: What to draw from.
        size: Number of images, 1 or more.
        seed: Seed, 0 or more.

    Returns:
        The cohort of the images drawn, in random order.

    Raises:
        CohortError: `size` is less than 1, or the cohort is empty.

    Example:
        >>> import pandas as pd
        >>> rows = {"id": [str(n) for n in range(400)], "path": "", "label": [0] * 300 + [1] * 100}
        >>> cohort = Cohort("mine", "table", pd.DataFrame(rows | {"group": None, "split": None}))
        >>> draw_sample(cohort, 200).table["label"].value_counts().tolist()
        [150, 50]
    """
    if size < 1:
        raise CohortError(f"a sample of {size} images", expected="1 or more", remedy="give --sample a larger number")
    if not len(cohort):
        raise CohortError("no image to look at", where=cohort.name, expected="at least one")
    rng = np.random.default_rng(seed)
    stratum = cohort.table["label"].fillna(2).to_numpy(dtype=int)
    rows = [np.flatnonzero(stratum == label) for label in range(3)]
    quotas = _quotas(np.array([len(each) for each in rows]), min(size, len(cohort)))
    drawn = [rng.choice(each, quota, replace=False) for each, quota in zip(rows, quotas, strict=True)]
    return replace(cohort, table=cohort.table.iloc[rng.permutation(np.concatenate(drawn))])


def _quotas(counts: np.ndarray, size: int) -> np.ndarray:
    """How many to draw of each class: its share rounded down, at least the floor; then one by one to make `size`."""
    share = counts / counts.sum() * size
    floors = np.minimum(counts, min(AT_LEAST, size // int(np.count_nonzero(counts))))
    quotas = np.maximum(np.floor(share).astype(int), floors)
    while quotas.sum() != size:
        if quotas.sum() > size:
            quotas[np.argmax(np.where(quotas > floors, quotas - share, -np.inf))] -= 1
        else:
            quotas[np.argmax(np.where(quotas < counts, share - quotas, -np.inf))] += 1
    return quotas
