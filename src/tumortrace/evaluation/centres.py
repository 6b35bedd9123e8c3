"""Whether features tell tissue or hospital: the robustness index and margin of what lies near each image.

Of the nearest images, those of the same class from another centre speak for features that hold elsewhere, those of
another class from the same centre against. Index: de Jong et al. (2025), "Current pathology foundation models are
unrobust to medical center differences" (PathoROB). Margin: Grisi & van der Laak (2026), "A distributional robustness
margin for pathology foundation models" (CRoMa).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from tumortrace.evaluation.intervals import percentile_interval
from tumortrace.evaluation.replicates import draws
from tumortrace.evaluation.tally import Floats
from tumortrace.records.centres import CentreMeasures, CentreRecord
from tumortrace.records.metrics import Estimate

NEIGHBOURS = (5, 11, 21, 41, 61)
"""How many of the nearest images may count; which of them is chosen by how well these tell the class."""
NEAREST = 5  # of each kind, that the margin takes the mean distance of
TAIL = 0.1
TITLES = {
    "index": "Robustness index",
    "margin": "Robustness margin",
    "worst": "Margin of the worst tenth",
    "centre_bound": "Images nearer to their centre",
    "support": "Images with an index",
}
_CELLS = 2**24  # distances that are held at a time


def neighbourhoods(features: np.ndarray, kinds: np.ndarray, centres: np.ndarray, groups: np.ndarray) -> pd.DataFrame:
    """What lies near each image, by cosine distance; images of its own slide or patient do not count.

    Args:
        features: float32, shape (N, D).
        kinds: The class of each, whole numbers from 0, shape (N,).
        centres: The hospital of each, shape (N,).
        groups: Slide or patient of each, or what is its own for each image, shape (N,).

    Returns:
        A row for each image: `kind`, `centre`, `group`; for each k of `NEIGHBOURS` `same_class_k` (of its class, from
        another centre), `same_centre_k` (of another class, from its centre) and `named_k` (the commonest class, -1
        without any neighbour); `share_same_class` and `share_same_centre` of all images that could be near; `margin` in
        [-1, 1], which is missing where fewer than five of either kind are there.

    Example:
        >>> features = np.array([[1, 0], [1, 0.1], [0, 1], [0.1, 1]], np.float32)
        >>> near = neighbourhoods(features, np.array([0, 0, 1, 1]), np.array(list("abab")), np.arange(4))
        >>> near["same_class_5"].tolist(), near["same_centre_5"].tolist()
        ([1, 1, 1, 1], [1, 1, 1, 1])
    """
    long = np.asarray(features, np.float64)
    unit = long / (np.linalg.norm(long, axis=1, keepdims=True) + 1e-12)
    centre, group = pd.factorize(centres)[0], pd.factorize(groups)[0]
    step = max(1, _CELLS // len(unit))
    rows = [np.arange(start, min(start + step, len(unit))) for start in range(0, len(unit), step)]
    parts = [_near(unit, part, np.asarray(kinds, np.int64), centre, group) for part in rows]
    near = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    return pd.DataFrame({"kind": kinds, "centre": centres, "group": groups, **near})


def _near(
    unit: Floats, rows: NDArray[np.int64], kinds: NDArray[np.int64], centre: NDArray[np.int64], group: NDArray[np.int64]
) -> dict[str, np.ndarray]:
    distance = 1 - unit[rows] @ unit.T
    allowed = group[rows, None] != group
    same_class, same_centre = kinds[rows, None] == kinds, centre[rows, None] == centre
    robust, bound = allowed & same_class & ~same_centre, allowed & ~same_class & same_centre
    distance[~allowed] = np.inf
    most = min(NEIGHBOURS[-1], len(unit))
    nearest = np.argsort(distance, axis=1, kind="stable")[:, :most]
    counted = np.take_along_axis(allowed, nearest, 1)
    near: dict[str, np.ndarray] = {}
    for count in NEIGHBOURS:
        first = nearest[:, :count]
        near[f"same_class_{count}"] = np.take_along_axis(robust, first, 1).sum(1)
        near[f"same_centre_{count}"] = np.take_along_axis(bound, first, 1).sum(1)
        near[f"named_{count}"] = _commonest(kinds[first], counted[:, :count], int(kinds.max()) + 1)
    possible = np.maximum(allowed.sum(1), 1)
    near["share_same_class"], near["share_same_centre"] = robust.sum(1) / possible, bound.sum(1) / possible
    near["margin"] = _margin(_mean_nearest(distance, robust), _mean_nearest(distance, bound))
    return near


def _commonest(kinds: NDArray[np.int64], counted: NDArray[np.bool_], classes: int) -> NDArray[np.int64]:
    votes = np.stack([((kinds == kind) & counted).sum(1) for kind in range(classes)], axis=1)
    return np.where(votes.sum(1) > 0, votes.argmax(1), -1)


def _mean_nearest(distance: Floats, chosen: NDArray[np.bool_]) -> Floats:
    """Mean distance of the five nearest of those chosen, NaN where there are fewer."""
    if distance.shape[1] < NEAREST:
        return np.full(len(distance), np.nan)
    nearest = np.partition(np.where(chosen, distance, np.inf), NEAREST - 1, axis=1)[:, :NEAREST].mean(1)
    return np.where(np.isfinite(nearest), nearest, np.nan)


def _margin(same_class: Floats, same_centre: Floats) -> Floats:
    total = same_class + same_centre
    return np.divide(same_centre - same_class, total, out=np.full(len(total), np.nan), where=total > 0)


def usual_neighbours(near: pd.DataFrame) -> int:
    """How many of the nearest images tell the class best, by balanced accuracy of their commonest one.

    Args:
        near: What `neighbourhoods` gave.
    """
    possible = [count for count in NEIGHBOURS if count < len(near)] or [NEIGHBOURS[0]]
    accuracy = []  # balanced: the mean over classes of the share that is named rightly
    for count in possible:
        known = near[near[f"named_{count}"] >= 0]
        rightly = (known["kind"] == known[f"named_{count}"]).groupby(known["kind"]).mean()
        accuracy.append(rightly.mean() if len(known) else 0.0)
    return possible[int(np.argmax(accuracy))]


def robustness(
    near: pd.DataFrame, column: str, neighbours: int, *, replicates: int = 1000, seed: int = 0
) -> CentreRecord:
    """Index and margin of a set of images, each with its interval, and those of each centre.

    Replicates draw whole slides or patients; the neighbours of an image stay what they are.

    Args:
        near: What `neighbourhoods` gave.
        column: Where the centres come from.
        neighbours: How many of the nearest images count, one of `NEIGHBOURS`.
        replicates: Number of bootstrap replicates.
        seed: Of the replicates.

    Example:
        >>> random = np.random.default_rng(0)
        >>> kinds, centres = np.arange(80) % 2, np.arange(80) // 2 % 2
        >>> tissue = random.normal(size=(80, 4)) + 9 * (2 * kinds[:, None] - 1) * np.eye(4)[0]
        >>> robustness(neighbourhoods(tissue, kinds, centres, np.arange(80)), "center", 5).index.value
        1.0
    """
    parts = {str(name): part for name, part in near.groupby("centre", sort=True)}

    def measured(some: pd.DataFrame) -> dict[str, Estimate]:
        return {name: _estimate(values) for name, values in _drawn(some, neighbours, replicates, seed).items()}

    return CentreRecord.model_validate(
        {
            "column": column,
            "centres": {name: len(part) for name, part in parts.items()},
            "neighbours": neighbours,
            "chance": _ratio(near["share_same_class"].sum(), near["share_same_centre"].sum()),
            "by_centre": {name: CentreMeasures.model_validate(measured(part)) for name, part in parts.items()},
            **measured(near),
        }
    )


def centre_differences(
    tables: Mapping[str, pd.DataFrame], neighbours: int, *, replicates: int = 1000, seed: int = 0
) -> dict[tuple[str, str], dict[str, Estimate]]:
    """Paired differences of index and margin between bodies, second minus first, over the same images.

    Args:
        tables: What `neighbourhoods` gave of each, with the same rows in the same order.
        neighbours: As for `robustness`, like `replicates` and `seed`.
        replicates: The same draws for all.
        seed: Of the draws.
    """
    drawn = {name: _drawn(near, neighbours, replicates, seed) for name, near in tables.items()}
    names = list(drawn)
    return {
        (first, second): {
            key: _estimate(drawn[second][key] - drawn[first][key]) for key in ("index", "margin", "worst")
        }
        for place, first in enumerate(names)
        for second in names[place + 1 :]
    }


def _drawn(near: pd.DataFrame, neighbours: int, replicates: int, seed: int) -> dict[str, Floats]:
    """Each figure of the images and then of each replicate, shape (1 + replicates,)."""
    units = pd.factorize(near["group"])[0]
    times = draws(int(units.max()) + 1, replicates, seed)[:, units].astype(np.float64)
    weights = np.concatenate([np.ones((1, len(near))), times])
    robust, bound = (near[f"{name}_{neighbours}"].to_numpy(np.float64) for name in ("same_class", "same_centre"))
    order = np.argsort(near["margin"].to_numpy(np.float64), kind="stable")[: int(near["margin"].notna().sum())]
    margin, ranked = near["margin"].to_numpy(np.float64)[order], weights[:, order]
    total, told = weights @ (robust + bound), robust + bound > 0
    with np.errstate(invalid="ignore", divide="ignore"):
        return {
            "index": weights @ robust / total,
            "support": weights @ told / weights.sum(1),
            "margin": np.array([_quantile(margin, row, 0.5) for row in ranked]),
            "worst": np.array([_tail(margin, row) for row in ranked]),
            "centre_bound": ranked @ (margin <= 0) / ranked.sum(1),
            "margin_support": ranked.sum(1) / weights.sum(1),
        }


def _quantile(values: Floats, times: Floats, share: float) -> float:
    """NumPy's linear quantile of sorted values, each counted so often; NaN of none."""
    count = int(times.sum())
    if not count:
        return float("nan")
    place = share * (count - 1)
    ends = np.searchsorted(np.cumsum(times), [np.floor(place), np.ceil(place)], side="right")
    low, high = values[ends]
    return float(low + (place - np.floor(place)) * (high - low))


def _tail(values: Floats, times: Floats) -> float:
    """Mean of the worst tenth: of all that are no greater than that quantile."""
    limit = _quantile(values, times, TAIL)
    worst = times * (values <= limit)
    return float(worst @ values / worst.sum()) if worst.sum() else float("nan")


def _estimate(values: Floats) -> Estimate:
    if np.isnan(values[0]):
        return Estimate(value=None, ci95=None)
    ends: Sequence[float] | None = percentile_interval(values[1:])
    return Estimate(value=float(values[0]), ci95=None if ends is None else (ends[0], ends[1]))


def _ratio(robust: float, bound: float) -> float | None:
    return float(robust / (robust + bound)) if robust + bound > 0 else None
