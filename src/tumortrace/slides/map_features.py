"""What a scan's map is summed up by, to learn a slide score from: sizes of foci, areas, probabilities.

After the teams of CAMELYON16 and 17 (Wang et al. 2016, "Deep Learning for Identifying Metastatic Breast Cancer"; Bandi
et al. 2019), who took shape and area of the largest focus and the probabilities within the tissue. Fewer are taken
here, since labelled slides are few, and each on a scale on which a sum makes sense.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy.special import logit

from tumortrace.slides.foci import Focus, Grid, foci, grid_of
from tumortrace.slides.score import TOP

HALF, SURE = 0.5, 0.9


@dataclass(frozen=True)
class SlideMap:
    """The map of a slide: its cells and the foci at .5 and .9, largest first."""

    grid: Grid
    half: list[Focus]
    sure: list[Focus]

    @classmethod
    def of(cls, tiles: pd.DataFrame, overlap: float, resolution: float) -> SlideMap:
        """That of a scan's tiles; see `grid_of`."""
        grid = grid_of(tiles, overlap, resolution)
        return cls(grid, foci(grid, HALF), foci(grid, SURE))


def _odds(probability: float) -> float:
    """Log-odds, between those of .0001 and .9999."""
    return float(logit(np.clip(probability, 1e-4, 1 - 1e-4)))


def _share_odds(grid: Grid, quantile: float) -> float:
    return _odds(float(np.quantile(grid.probability, quantile))) if len(grid.probability) else _odds(0)


def _highest(grid: Grid, count: int) -> float:
    chances = np.sort(grid.probability)[::-1][:count]
    return _odds(float(chances.mean())) if len(chances) else _odds(0)


def _area(grid: Grid, threshold: float) -> float:
    """Of cells at or above a threshold, as log(1 + area / 0.01 mm²)."""
    across, down = grid.side
    return float(np.log1p((grid.probability >= threshold).sum() * across * down / 1e6 / 0.01))


def _extent(parts: list[Focus]) -> float:
    """Of the largest focus, as log(1 + um / 100)."""
    return float(np.log1p(parts[0].extent / 100)) if parts else 0.0


def _largest_area(parts: list[Focus]) -> float:
    return float(np.log1p(max(part.area for part in parts) / 0.01)) if parts else 0.0


#: Name of each feature, what it is, and how it is computed.
FEATURES: dict[str, tuple[str, Callable[[SlideMap], float]]] = {
    "highest": ("log-odds of the highest probability of a tile", lambda of: _highest(of.grid, 1)),
    "top_ten": ("log-odds of the mean of the ten highest", lambda of: _highest(of.grid, TOP)),
    "quantile_99": ("log-odds of the probability that 1 in 100 tiles exceeds", lambda of: _share_odds(of.grid, 0.99)),
    "quantile_90": ("log-odds of the probability that 1 in 10 tiles exceeds", lambda of: _share_odds(of.grid, 0.9)),
    "median": ("log-odds of the median probability", lambda of: _share_odds(of.grid, 0.5)),
    "area_50": ("log(1 + area / 0.01 mm²) of tiles at or above .5", lambda of: _area(of.grid, HALF)),
    "area_70": ("the same at .7", lambda of: _area(of.grid, 0.7)),
    "area_90": ("the same at .9", lambda of: _area(of.grid, SURE)),
    "foci_50": ("log(1 + number of foci) at .5", lambda of: float(np.log1p(len(of.half)))),
    "foci_90": ("log(1 + number of foci) at .9", lambda of: float(np.log1p(len(of.sure)))),
    "focus_area_50": ("log(1 + area / 0.01 mm²) of the largest focus at .5", lambda of: _largest_area(of.half)),
    "focus_area_90": ("the same at .9", lambda of: _largest_area(of.sure)),
    "focus_extent_50": ("log(1 + um / 100) of the longest focus at .5", lambda of: _extent(of.half)),
    "focus_extent_90": ("the same at .9", lambda of: _extent(of.sure)),
    "focus_mean_50": (
        "mean probability of the longest focus at .5, 0 without one",
        lambda of: of.half[0].mean if of.half else 0.0,
    ),
}


def map_features(tiles: pd.DataFrame, overlap: float, resolution: float) -> dict[str, float]:
    """Every feature of `FEATURES` of a scan; a slide without tiles is as one without any suspicion.

    Args:
        tiles: As in tiles.csv.
        overlap: Of the scan.
        resolution: Um per px of level 0.

    Example:
        >>> tiles = pd.DataFrame({"x": [0, 100], "y": 0, "width": 100, "height": 100, "probability": [0.5, 0.2]})
        >>> features = map_features(tiles, 0.0, 1.0)
        >>> features["highest"], round(features["area_50"], 4), round(features["focus_extent_50"], 4)
        (0.0, 0.6931, 0.6931)
    """
    found = SlideMap.of(tiles, overlap, resolution)
    return {name: compute(found) for name, (_, compute) in FEATURES.items()}
