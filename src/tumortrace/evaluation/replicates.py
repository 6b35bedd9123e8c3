"""Bootstrap replicates of predictions: of whole slides or patients where these are known, else of images."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from tumortrace.errors import PredictionsError
from tumortrace.evaluation.table import Predictions, check_table
from tumortrace.evaluation.tally import Floats, Tally, tally

#: Numbers that are held at a time: counts of one block of replicates, and counts and draws that are kept at all.
BLOCK, KEPT_COUNTS, KEPT = 2**18, 2**24, 2**28


def draws(units: int, number: int, seed: int) -> NDArray[np.uint16]:
    """How often each unit is drawn in each bootstrap replicate, shape (number, units)."""
    random = np.random.default_rng(seed)
    return np.stack([_draw(random, units) for _ in range(number)])


def _draw(random: np.random.Generator, units: int) -> NDArray[np.uint16]:
    return np.bincount(random.integers(units, size=units), minlength=units).astype(np.uint16)


class Replicates:
    """Bootstrap replicates of the images of one split, drawn once for all that is measured on them.

    Whole groups are drawn where every image has one and there are two or more (Field & Welsh 2007), because images of
    one slide or patient resemble each other, else single images. Classes are not drawn apart: their shares vary as
    those of a new sample would, without which precision, F1 or the calibration error look surer than they are.

    Attributes:
        predictions: Checked predictions.
        tally: They counted.
        number: How many replicates.
        seed: Of the draws; the order of the rows does not matter.
        confidence: Share of intervals that should contain the truth, in (0, 1).
        grouped: Whether whole groups are drawn.

    Raises:
        PredictionsError: The table or the settings cannot be used.

    Example:
        >>> table = pd.DataFrame({"label": [0, 0, 1], "probability": [0.1, 0.2, 0.9]})
        >>> Replicates(table, number=4).measure(lambda counts: counts.total.sum(-1))
        array([3., 3., 3., 3.])
    """

    def __init__(
        self, table: pd.DataFrame | Predictions, number: int = 1000, seed: int = 0, confidence: float = 0.95
    ) -> None:
        if number < 1:
            raise PredictionsError(f"{number} replicates", expected="1 or more", remedy="use 1000")
        if not 0 < confidence < 1:
            raise PredictionsError(f"confidence {confidence}", expected="a number between 0 and 1", remedy="use 0.95")
        self.predictions = table if isinstance(table, Predictions) else check_table(table)
        self.number, self.seed, self.confidence = number, seed, confidence
        self.tally = tally(self.predictions)
        group, n_groups = self.predictions.group, self.predictions.n_groups
        self.grouped = group is not None and n_groups is not None and n_groups >= 2
        if self.grouped and group is not None and n_groups is not None:
            self._unit, self._units = group, n_groups
        else:
            self._units = len(self.predictions.label)
            self._unit = np.empty(self._units, dtype=np.int64)  # the order of the rows must not matter
            self._unit[np.lexsort((self.predictions.label, self.predictions.probability))] = np.arange(self._units)
        self._times: NDArray[np.uint16] | None = None
        self._blocks: list[Tally] | None = None

    def of(self, table: pd.DataFrame | Predictions) -> Replicates:
        """The same draws of the same images, in the same order of rows, with other probabilities or calls."""
        other = Replicates(table, self.number, self.seed, self.confidence)
        other.grouped, other._unit, other._units, other._times = self.grouped, self._unit, self._units, self._draws()
        return other

    def tallies(self, number: int | None = None) -> Iterator[Tally]:
        """The first replicates in blocks, as tallies over the levels of the whole; `number` of them, or all."""
        wanted = min(self.number, number or self.number)
        if self._blocks is None and 2 * self.number * len(self.tally.probability) <= KEPT_COUNTS:
            self._blocks = list(self._count(self.number))
        for block in self._blocks or self._count(wanted):
            if wanted <= 0:
                return
            yield replace(block, positive=block.positive[:wanted], negative=block.negative[:wanted])
            wanted -= len(block.positive)

    def _count(self, number: int) -> Iterator[Tally]:
        counts, predictions = self.tally, self.predictions
        level = np.searchsorted(counts.probability, predictions.probability)
        sides = []
        for label in (1, 0):
            rows = np.flatnonzero(predictions.label == label)
            rows = rows[np.argsort(level[rows], kind="stable")]
            levels, starts = np.unique(level[rows], return_index=True)
            sides.append((self._unit[rows], levels, starts))
        for times in self._drawn(number, len(level)):
            positive, negative = np.zeros((2, len(times), len(counts.probability)))
            for side, (unit, levels, starts) in zip((positive, negative), sides, strict=True):
                if len(unit):
                    side[:, levels] = np.add.reduceat(times[:, unit].astype(np.float64), starts, axis=1)
            yield Tally(counts.probability, positive, negative)

    def measure(self, function: Callable[[Tally], ArrayLike], number: int | None = None) -> Floats:
        """What a function of tallies of shape (r, k), giving (r, ...), makes of the replicates."""
        return np.concatenate([np.asarray(function(block), dtype=np.float64) for block in self.tallies(number)])

    def groups(self) -> Tally:
        """Each group by itself, over the levels of the whole, shape (n_groups, k); none where groups are not known.

        Example:
            >>> both = Predictions(np.array([0, 1, 1]), np.array([0.1, 0.2, 0.9]), np.array([0, 0, 1]), 2, 0)
            >>> Replicates(both).groups().positive.tolist()
            [[0.0, 1.0, 0.0], [0.0, 0.0, 1.0]]
        """
        counts, predictions = self.tally, self.predictions
        level = np.searchsorted(counts.probability, predictions.probability)
        sides = np.zeros((2, predictions.n_groups or 0, len(counts.probability)))
        if predictions.group is not None:
            np.add.at(sides, (predictions.label, predictions.group, level), 1)
        return Tally(counts.probability, sides[1], sides[0])

    def _draws(self) -> NDArray[np.uint16] | None:
        """All draws, or None where they are too many to be kept."""
        if self._times is None and self.number * self._units <= KEPT:
            self._times = draws(self._units, self.number, self.seed)
        return self._times

    def _drawn(self, number: int, levels: int) -> Iterator[NDArray[np.uint16]]:
        size, kept = max(1, BLOCK // max(levels, self._units)), self._draws()
        random = np.random.default_rng(self.seed)
        for start in range(0, number, size):
            stop = min(start + size, number)
            yield (
                np.stack([_draw(random, self._units) for _ in range(start, stop)]) if kept is None else kept[start:stop]
            )
