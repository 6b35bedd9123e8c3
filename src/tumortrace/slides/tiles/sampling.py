"""Which of a slide's tiles are taken: all, so many of a class, as many of both."""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from tumortrace.errors import SlideError
from tumortrace.records.record import Open

UNLABELLED = -1
"""Label of tiles of which nothing says what they are."""

Counts = Mapping[int, int]
"""Tiles by label: 0, 1 and `UNLABELLED`."""


@dataclass(frozen=True)
class Sampling:
    """Which of the tiles that there are will be cut.

    Attributes:
        per_slide: At most so many of a slide and class.
        balanced: As many of both classes; those without label are not counted.
        seed: Of the draw.
        mines: Whether negative tiles are those of the highest probability, in place of drawn ones.
        weights: Of the model that says it, their SHA-256.

    Raises:
        SlideError: A slide is to give none, or those that are to be mined have no number.
    """

    per_slide: int | None
    balanced: bool
    seed: int
    mines: bool = False
    weights: str | None = None

    def __post_init__(self) -> None:
        if self.per_slide is not None and self.per_slide < 1:
            raise SlideError(
                f"the value {self.per_slide}", where="--per-slide", expected="at least 1", remedy="change it"
            )
        if self.mines and self.per_slide is None and not self.balanced:
            raise SlideError("--mine without --per-slide or --balanced", expected="how many", remedy="add one of them")

    @property
    def request(self) -> Open:
        """The same as JSON takes it."""
        told: Open = {"per_slide": self.per_slide, "balanced": self.balanced, "seed": self.seed}
        return told if self.weights is None else told | {"model": self.weights}


def quotas(counts: Sequence[Counts], sampling: Sampling) -> list[dict[int, int]]:
    """How many tiles of each label each slide gives.

    Args:
        counts: Of each slide, what there is.
        sampling: How many are asked for. Where classes are balanced, it is over all slides; of the more frequent class
            slides give alike, as far as they have some.

    Example:
        >>> quotas([{0: 9, 1: 3}, {0: 1, 1: 0}, {0: 9, 1: 1}], Sampling(None, True, 0))
        [{0: 2, 1: 3}, {0: 1, 1: 0}, {0: 1, 1: 1}]
    """
    labels = (0, 1, UNLABELLED)
    most = np.array([[count.get(label, 0) for label in labels] for count in counts], np.int64).reshape(-1, len(labels))
    if sampling.per_slide is not None:
        most = np.minimum(most, sampling.per_slide)
    if sampling.balanced:
        target = int(most[:, :2].sum(0).min())
        most[:, :2] = np.stack([_level(most[:, label], target) for label in (0, 1)], 1)
    rows = (zip(labels, map(int, row), strict=True) for row in most)
    return [{label: number for label, number in row if number or label != UNLABELLED} for row in rows]


def _level(most: np.ndarray, target: int) -> np.ndarray:
    """At most `most` each, `target` in all: each gives alike as far as it has some, the first the odd ones."""
    given = np.zeros_like(most)
    while (rest := target - int(given.sum())) > 0 and (open_ := np.flatnonzero(given < most)).size:
        step = max(1, rest // open_.size)
        for place in open_[:rest] if rest < open_.size else open_:
            given[place] = min(most[place], given[place] + step)
    return given


def choose(tiles: pd.DataFrame, quota: Counts, slide: str, seed: int, scores: np.ndarray | None = None) -> pd.DataFrame:
    """The tiles of a slide that are taken, in their order.

    Args:
        tiles: Column `label`.
        quota: Of each label at most so many.
        slide: Its id; with the seed it decides what is drawn, whatever other slides there are.
        seed: Of the draw.
        scores: Probabilities of the negative tiles, in their order: the highest are taken instead of drawn ones.
    """
    taken = []
    for label, number in sorted(quota.items()):
        rows = np.flatnonzero(tiles["label"].to_numpy() == label)
        if label == 0 and scores is not None:
            rows = rows[np.argsort(-scores, kind="stable")]
        elif len(rows) > number:
            rows = np.random.default_rng([seed, zlib.crc32(slide.encode()), label % 3]).permutation(rows)
        taken.append(rows[:number])
    return tiles.iloc[np.sort(np.concatenate(taken))]
