"""Nested parts of a training split, by whole slides or patients where these are known."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Sequence
from itertools import islice

import numpy as np
import pandas as pd

from tumortrace.errors import SplitError

LOOKED_AT = 4  # units, richer in positives and poorer, among which the next one is chosen for balance


def parse_fractions(text: str) -> list[float]:
    """Shares such as `1%,10%,100%` or `0.01,0.1,1`, rising.

    Raises:
        SplitError: One is no share above 0 and at most 1, or they are fewer than two.

    Example:
        >>> parse_fractions("100%,10%,0.01")
        [0.01, 0.1, 1.0]
    """
    wanted = "shares such as 1%,10%,100%"
    try:
        found = sorted(
            {float(p.rstrip("%")) / 100 if p.endswith("%") else float(p) for p in map(str.strip, text.split(","))}
        )
    except ValueError as error:
        raise SplitError(f"--fractions {text}", expected=wanted, remedy="mend it") from error
    if len(found) < 2 or not all(0 < share <= 1 for share in found):
        raise SplitError(f"--fractions {text}", expected=f"two or more {wanted}", remedy="mend it")
    return found


def nested_subsets(table: pd.DataFrame, fractions: Sequence[float], seed: int) -> dict[float, list[str]]:
    """Ids of each share of a training split; each holds all smaller ones, and classes in about the split's shares.

    Units are drawn in a random order, of the next few always the one that keeps the classes in balance best: whole
    groups, or single images where no group is known (an image without one is a unit of its own). A share ends with the
    unit that brings it nearest to its size, but not before both classes are there.

    Args:
        table: Columns `id`, `label` (0 or 1) and `group` (missing where not known), one row per training image.
        fractions: Shares, rising.
        seed: Of the order; the order of rows does not matter.

    Returns:
        By share, in the order of `fractions`. Shares that whole groups cannot tell apart have the same ids.

    Example:
        >>> table = pd.DataFrame({"id": list("abcdefgh"), "label": [0, 1] * 4, "group": None})
        >>> parts = nested_subsets(table, [0.25, 0.5, 1.0], seed=0)
        >>> [len(ids) for ids in parts.values()], set(parts[0.25]) < set(parts[0.5])
        ([2, 4, 8], True)
    """
    rows = table.sort_values("id")
    unit = rows["group"].astype("string").radd("group ").fillna("image " + rows["id"].astype("string"))
    units = list(dict.fromkeys(sorted(unit)))
    place = unit.map({name: index for index, name in enumerate(units)}).to_numpy()
    labels = rows["label"].to_numpy(dtype=int)
    counts = np.stack([np.bincount(place, labels == label, len(units)) for label in (0, 1)], axis=1)
    order = _balanced(counts, np.random.default_rng(seed))
    reached = counts[order].cumsum(0)
    sizes = reached.sum(1)
    enough = int(np.argmax((reached > 0).all(1)))  # both classes from here on
    ids, parts = rows["id"].to_numpy(dtype=str), dict[float, list[str]]()
    for share in fractions:
        end = max(enough, int(np.abs(sizes - share * len(rows)).argmin()))
        parts[share] = sorted(ids[np.isin(place, order[: end + 1])].tolist())
    return parts


def _balanced(counts: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """An order of units in which the share of positives stays near that of all."""
    share = counts[:, 1].sum() / counts.sum()
    drawn = random.permutation(len(counts))
    rich = counts[drawn, 1] > share * counts[drawn].sum(1)
    waiting = [deque(drawn[rich].tolist()), deque(drawn[~rich].tolist())]  # richer in positives than all, and poorer
    order, images, positives = list[int](), 0.0, 0.0
    while any(waiting):
        best, found = math.inf, (0, 0)
        for side, units in enumerate(waiting):
            for index, unit in enumerate(islice(units, LOOKED_AT)):
                negative, positive = counts[unit]
                excess = abs(positives + positive - share * (images + negative + positive))
                if excess < best:
                    best, found = excess, (side, index)
        unit = waiting[found[0]][found[1]]
        del waiting[found[0]][found[1]]
        images, positives = images + counts[unit].sum(), positives + counts[unit, 1]
        order.append(unit)
    return np.array(order)
