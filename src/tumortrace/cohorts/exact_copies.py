"""Exact copies: pictures that stand in several images, pixel for pixel, and have to stay on one side of a split."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from tumortrace.cohorts.inspection import showing


def exact_copies(ids: pd.Series, looks: pd.DataFrame) -> dict[str, str]:
    """Digest of the picture, by id, of each image whose picture stands in others too.

    Blank pictures and masks, which are alike everywhere, are no copies.

    Args:
        ids: One id per image.
        looks: What `inspect` or `glances` saw of each, in the same order.

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
    graph = coo_array((np.ones(len(links)), (unit, picture + len(names))), shape=(size, size))
    sets = connected_components(graph, directed=False)[1][: len(names)]
    first = pd.Series(names).groupby(sets).transform("first")
    return units.map(dict(zip(names, first, strict=True))).fillna(units).astype("string")
