"""Scores of a whole slide, from its tiles: what they mean, and how far they can be trusted."""

from __future__ import annotations

import numpy as np
import pandas as pd

from tumortrace.records.scans import Ranged, SlideScore, TumourArea
from tumortrace.slides.heatmap import heat_array

TOP = 10
"""Tiles whose mean probability is the slide score."""


def slide_score(tiles: pd.DataFrame) -> SlideScore:
    """Score of a slide: the mean of its ten highest tile probabilities (of all where there are fewer).

    The highest alone would hang on one odd tile, the mean of all on the size of the section. It ranks slides; it is
    no probability that the slide holds tumour, as no slide labels went into it.

    Args:
        tiles: Column `probability`.

    Returns:
        `value` (None without tiles), `ci95` (always None), `definition` and `interval`, which says why there is none.

    Example:
        >>> slide_score(pd.DataFrame({"probability": [0.25, 0.75]})).value
        0.5
    """
    highest = np.sort(tiles["probability"].to_numpy())[::-1][:TOP]
    return SlideScore(
        value=float(highest.mean()) if len(highest) else None,
        ci95=None,
        definition=f"mean of the {TOP} highest tile probabilities (of all tiles where there are fewer)",
        interval="none: all tissue was read, so there is no sampling error; what the model gets wrong on slides "
        "such as this one can only be measured on labelled slides",
    )


def tumour_area(
    cells: pd.DataFrame, mask: np.ndarray, slide: tuple[int, int], resolution: float | None, coverage: float | None
) -> TumourArea:
    """How much of the tissue lies in positive cells, from least to most by the model's own doubt.

    The range counts only tiles decided `positive` at its lower end, and all tiles but those decided `negative` at
    its upper end: tiles that the model refers to a person count once as normal and once as tumour. It is not a
    confidence interval.

    Args:
        cells: Columns `x`, `y`, `width`, `height` (level-0 px), `prediction` and `decision`, from `tiling.cells`.
        mask: bool array (height, width), the tissue on a thumbnail, exact to which areas are measured.
        slide: Width and height in level-0 px.
        resolution: Um per px at level 0; None gives no mm².
        coverage: Of the conformal prediction behind `decision`, or None where the model never refers.

    Returns:
        `share` and `mm2`, each with `value` and `range` (None where not defined), and `definition`.

    Example:
        >>> cells = pd.DataFrame({"x": [0, 10, 20, 30], "y": 0, "width": 10, "height": 10,
        ...                       "prediction": [1, 1, 0, 0], "decision": ["positive", "refer", "refer", "negative"]})
        >>> tumour_area(cells, np.ones((10, 40), bool), (40, 10), 1.0, 0.9).share
        Ranged(value=0.5, range=(0.25, 0.75))
    """
    called = [cells["decision"] == "positive", cells["prediction"] == 1, cells["decision"] != "negative"]
    tissue = int(mask.sum())
    low = value = high = None
    if tissue:
        covered = (heat_array(cells[rows].assign(probability=1.0), slide, mask.shape) for rows in called)
        low, value, high = (float((mask & ~np.isnan(part)).sum() / tissue) for part in covered)
    definition = "tissue in positive tiles (in their middles where they overlap), exact to the thumbnail of the tissue"
    if coverage is None or value is None:
        low = high = None
        definition += "; no range, as the model refers no tile"
    else:
        definition += (
            f"; the range counts referred tiles once as normal and once as tumour (conformal coverage {coverage:g} on "
            "calibration patches); it is not a confidence interval"
        )
    area = None if resolution is None else slide[0] * slide[1] * resolution**2 / 1e6 / mask.size * tissue
    ends = None if area is None or low is None or high is None else (round(area * low, 4), round(area * high, 4))
    return TumourArea(
        share=Ranged(value=value, range=None if low is None or high is None else (low, high)),
        mm2=Ranged(value=None if area is None or value is None else round(area * value, 4), range=ends),
        definition=definition,
    )
