"""Micrometres per pixel of each image: as the user says, or else the table, or else the file."""

from __future__ import annotations

import numpy as np
import pandas as pd

from tumortrace.cohorts.cohort import Cohort
from tumortrace.records.user_tables import numbers

COLUMNS = ("resolution", "mpp", "um_per_px", "um_per_pixel", "microns_per_pixel")
"""Columns of a user's table that state it, the first that holds numbers being taken."""


def stated_before(cohort: Cohort) -> np.ndarray:
    """What is known of each image before its file is opened: float64, shape (N,), NaN where nothing is.

    Example:
        >>> table = pd.DataFrame({"id": ["a", "b"], "path": "a.png", "label": 1, "group": None, "split": None})
        >>> stated_before(Cohort("mine", "table", table.assign(mpp=["0,25", ""]))).tolist()
        [0.25, nan]
    """
    if cohort.resolution is not None:
        return np.full(len(cohort), cohort.resolution)
    for column in COLUMNS if cohort.preparation is None else ():  # which was the images' before they were prepared
        if column in cohort.table:
            stated = numbers(cohort.table[column].astype("object"))
            stated = stated.where((stated > 0) & (stated < 1000))
            if stated.notna().any():
                return stated.to_numpy()
    return np.full(len(cohort), np.nan)


def resolutions(cohort: Cohort, looks: pd.DataFrame) -> np.ndarray:
    """What is known of each image that was decoded: float64, shape (N,), NaN where nothing is.

    Args:
        cohort: The images.
        looks: What decoding showed of them, in the order of the cohort.
    """
    before = stated_before(cohort)
    return np.where(np.isnan(before), looks["resolution"].to_numpy(float), before)


def common(values: np.ndarray) -> float | None:
    """The one resolution that all images have, to within 1 %; None where some have none, or another."""
    if not len(values) or np.isnan(values).any() or values.max() > 1.01 * values.min():
        return None
    return float(np.median(values))
