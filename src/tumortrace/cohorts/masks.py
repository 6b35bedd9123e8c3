"""Where the tumour truly lies: the masks of a cohort that has some."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from PIL import Image

from tumortrace.cohorts.cohort import Cohort
from tumortrace.images.decoding import read_image

COLUMN = "mask"


def read_masks(cohort: Cohort, rows: Sequence[int] | np.ndarray, size: tuple[int, int]) -> np.ndarray | None:
    """Masks of chosen images.

    Args:
        cohort: Its table's column `mask` names a picture for each image, light where there is tumour; synthetic
            patches have it.
        rows: Which images.
        size: Height and width in pixels to which masks of another size are brought, pixel by pixel.

    Returns:
        bool, shape (number of rows, *size); None where the cohort has no masks.

    Raises:
        ImageError: A mask cannot be decoded.

    Example:
        >>> from tumortrace.cohorts.layouts import open_cohort
        >>> cohort = open_cohort("synthetic:patches?count=16")
        >>> masks = read_masks(cohort, range(16), (96, 96))
        >>> masks.shape, (masks[:, 32:64, 32:64].any((1, 2)) == (cohort.table["label"] == 1)).all()
        ((16, 96, 96), np.True_)
    """
    if COLUMN not in cohort.table or cohort.table[COLUMN].iloc[np.asarray(rows)].isna().any():
        return None
    return np.stack([_mask(str(path), size) for path in cohort.table[COLUMN].iloc[np.asarray(rows)]])


def _mask(path: str, size: tuple[int, int]) -> np.ndarray:
    picture = read_image(path)[..., 0]
    if picture.shape != tuple(size):
        picture = np.asarray(Image.fromarray(picture).resize((size[1], size[0]), Image.Resampling.NEAREST))
    return picture > 127
