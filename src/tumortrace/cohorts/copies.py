"""Copies of pictures: exact ones, which have to stay on one side of a split, and near ones."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import pandas as pd

from tumortrace.cohorts.looks import showing


def exact_copies(ids: pd.Series, looks: pd.DataFrame) -> dict[str, str]:
    """Digest of the picture, by id, of each image whose picture stands in others too.

    Blank pictures and masks, which are alike everywhere, are no copies.

    Args:
        ids: One id per image.
        looks: What decoding showed of each, in the same order.

    Example:
        >>> looks = pd.DataFrame({"digest": ["x", "y", "x"], "spread": 20.0, "two_valued": None})
        >>> exact_copies(pd.Series(["a", "b", "c"]), looks)
        {'a': 'x', 'c': 'x'}
    """
    seen = pd.DataFrame({"id": ids.to_numpy(), "digest": looks["digest"].to_numpy()})[showing(looks).to_numpy()]
    several = seen[seen["digest"].duplicated(keep=False)]
    return dict(zip(several["id"].astype(str), several["digest"].astype(str), strict=True))


def joined(units: pd.Series, pictures: Mapping[str, str], ids: pd.Series) -> pd.Series:
    """What must not be divided, once units (slides, patients, single images) that share a picture are one.

    Args:
        units: Name of the unit of each image.
        pictures: Picture by id, as `exact_copies` returns it.
        ids: Id of each image.

    Returns:
        Names as before, but one, the first in order, for all units that hang together.

    Example:
        >>> joined(pd.Series(["p", "q", "r"]), {"a": "x", "c": "x"}, pd.Series(["a", "b", "c"])).tolist()
        ['p', 'q', 'p']
    """
    links = pd.DataFrame({"unit": units, "picture": ids.map(dict(pictures))}).dropna().drop_duplicates()
    links = links[links["picture"].duplicated(keep=False)]  # the others stay within one unit
    if links.empty:
        return units
    unit, names = pd.factorize(links["unit"], sort=True)
    picture, pictures_there = pd.factorize(links["picture"])
    size = len(names) + len(pictures_there)  # units and pictures are the nodes of one graph
    from scipy.sparse import coo_array  # here, as predicting looks for no copies
    from scipy.sparse.csgraph import connected_components

    graph = coo_array((np.ones(len(links)), (unit, picture + len(names))), shape=(size, size))
    sets = connected_components(graph, directed=False)[1][: len(names)]
    first = pd.Series(names).groupby(sets).transform("first")
    return units.map(dict(zip(names, first, strict=True))).fillna(units).astype("string")


# Near-copies: pictures alike but for compression, brightness, scale, rotation and mirroring.
#
# A picture's 8x8 lowest cosine coefficients, without the mean and at unit norm, do not change with brightness and
# hardly
# with compression. Mirroring changes signs of them and transposing swaps them, so the absolute values, sorted within
# each
# pair (u, v), (v, u), are the same for all eight positions, and lie no further apart than the coefficients themselves:
# neighbours among them miss none. What these find is held against the finer detail, where different pictures differ.


COARSE = 8  # coefficients per axis of the descriptor
# Re-encoded at JPEG quality 50 or with 10 % more light, 99 % of copies lie within .12 (96 px) and .22 (50 px);
# of 22,000 different PCam patches 13 pairs do, and of these none has a correlation of fine detail above .83.
NEAR, ALIKE = 0.2, 0.9
_NEIGHBOURS, _DIMENSIONS = 8, 24
_BLOCK, _CHUNK = 512, 2048  # points, pairs that are worked on at once
_FAINT = 40.0  # norm of coefficients, in grey values: what is fainter is noise


class Pairs(NamedTuple):
    """Pairs of near-copies: rows `first` and `second`, and whether one is turned or mirrored against the other."""

    first: np.ndarray
    second: np.ndarray
    turned: np.ndarray


def near_copies(small: np.ndarray, sides: np.ndarray) -> Pairs:
    """Pairs of pictures that are nearly alike.

    Args:
        small: Grey pictures, uint8, shape (N, 32, 32).
        sides: Shorter side of each original in pixels, shape (N,): of small ones, less detail survives compression.

    Returns:
        The pairs, each once; with at most eight neighbours of each picture.

    Example:
        >>> picture = np.random.default_rng(0).integers(0, 255, (32, 32), np.uint8)
        >>> pairs = near_copies(np.stack([picture, picture.T, picture[::-1] // 2 + 9]), np.array([96, 96, 96]))
        >>> list(zip(pairs.first.tolist(), pairs.second.tolist(), pairs.turned.tolist()))
        [(0, 1, True), (0, 2, True), (1, 2, True)]
    """
    from scipy.fft import dctn

    coefficients = dctn(small.astype(np.float32), axes=(1, 2), norm="ortho")
    coarse = coefficients[:, :COARSE, :COARSE].copy()
    coarse[:, 0, 0] = 0
    lively = np.flatnonzero(np.linalg.norm(coarse, axis=(1, 2)) > _FAINT)
    found = [np.zeros((3, 0), int)]
    if len(lively) > 1:
        first, second = _neighbours(_reduced(_invariants(_unit(coarse[lively]))))
        first, second = lively[first], lively[second]
        for start in range(0, len(first), _CHUNK):
            pair = first[start : start + _CHUNK], second[start : start + _CHUNK]
            position, alike = _compare(
                coefficients[pair[0]], coefficients[pair[1]], np.minimum(*(sides[each] for each in pair))
            )
            found.append(np.stack([*pair, position])[:, alike])
    first, second, position = np.concatenate(found, axis=1)
    return Pairs(first, second, position > 0)


def components(pairs: Pairs, number: int) -> np.ndarray:
    """Number of the set of near-copies that each of `number` pictures belongs to; -1 for those in none."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    links = coo_array((np.ones(len(pairs.first)), (pairs.first, pairs.second)), shape=(number, number))
    sets = connected_components(links, directed=False)[1]
    alone = np.ones(number, bool)
    alone[pairs.first] = alone[pairs.second] = False
    return np.where(alone, -1, sets)


def _unit(coefficients: np.ndarray) -> np.ndarray:
    return coefficients / np.maximum(np.linalg.norm(coefficients, axis=(-2, -1), keepdims=True), 1e-6)


def _invariants(coarse: np.ndarray) -> np.ndarray:
    """What the eight positions of a picture have in common, shape (N, 63)."""
    sizes = np.abs(coarse)
    row, column = np.triu_indices(COARSE, 1)
    pair = np.stack([sizes[:, row, column], sizes[:, column, row]])
    diagonal = sizes[:, np.arange(1, COARSE), np.arange(1, COARSE)]
    return np.concatenate([pair.max(axis=0), pair.min(axis=0), diagonal], axis=1)


def _reduced(points: np.ndarray) -> np.ndarray:
    """The points projected on their principal axes, which brings none further apart."""
    centred = points - points.mean(axis=0)
    axes = np.linalg.eigh(centred.T @ centred)[1]
    return centred @ axes[:, ::-1][:, :_DIMENSIONS]


def _neighbours(points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Pairs of points that are close, each once and at most a few for each point, by comparing all with all.

    In 24 dimensions that is several times faster than a tree of points.
    """
    half = (points**2).sum(axis=1) / 2
    pairs = [np.zeros((2, 0), int)]
    for start in range(0, len(points), _BLOCK):
        block = slice(start, start + _BLOCK)
        closeness = points[block] @ points[start:].T  # then minus half the squared distance
        closeness -= half[block, None]
        closeness -= half[start:]
        row, column = np.nonzero(closeness > -(NEAR**2) / 2)
        later = column > row
        row, column = row[later], column[later]
        nearest = np.lexsort((-closeness[row, column], row))
        row, column = row[nearest], column[nearest]
        rank = np.arange(len(row)) - np.searchsorted(row, row)
        pairs.append(np.stack([row, column])[:, rank < _NEIGHBOURS] + start)
    first, second = np.concatenate(pairs, axis=1)
    return first, second


def _compare(one: np.ndarray, other: np.ndarray, sides: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The position (0 to 7) of `one` that fits best, and whether they are alike; coefficients of shape (P, 32, 32)."""
    coarse = [_unit(_part(each, 0, COARSE)) for each in (one, other)]
    distances = np.stack(
        [np.linalg.norm(_turned(coarse[0], position) - coarse[1], axis=(1, 2)) for position in range(8)]
    )
    position, distance = distances.argmin(axis=0), distances.min(axis=0)
    for number in range(1, 8):
        one[position == number] = _turned(one[position == number], number)
    finest = np.clip(sides // 3, 2 * COARSE, one.shape[-1])
    one[:, 0] = one[:, :, 0] = other[:, 0] = other[:, :, 0] = 0  # straight edges along an axis are all alike
    detail = [_unit(_part(each, COARSE, finest)) for each in (one, other)]
    return position, (distance < NEAR) & ((detail[0] * detail[1]).sum(axis=(1, 2)) > ALIKE)


def _part(coefficients: np.ndarray, low: int, high: int | np.ndarray) -> np.ndarray:
    """The coefficients of order `low` to `high` in either direction, without the mean, the others being zero."""
    orders = np.arange(coefficients.shape[-1])
    order = np.maximum.outer(orders, orders)
    return coefficients * ((order >= max(low, 1)) & (order < np.reshape(high, (-1, 1, 1))))


def _turned(coefficients: np.ndarray, position: int) -> np.ndarray:
    """Coefficients of the pictures in one of eight positions; 0 is as they stand."""
    signs = (-1.0) ** np.arange(coefficients.shape[-1], dtype=np.float32)
    turned = np.swapaxes(coefficients, 1, 2) if position & 4 else coefficients
    turned = turned * signs[:, None] if position & 2 else turned
    return turned * signs if position & 1 else turned
