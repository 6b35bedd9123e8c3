"""Predictions counted by probability: all that a measure of them depends on."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import wraps
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from tumortrace.evaluation.table import Predictions
from tumortrace.records.metrics import ConfusionMatrix

#: Bins of equal mass of the calibration error, and of every reliability diagram, in reports and on the pages.
BINS = 15
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Tally:
    """How many images there are at each distinct probability, in a table or in many bootstrap replicates of it.

    Counting that once makes every measure a few sums. What is written here of one tally holds for each of r replicates,
    whose counts have an axis before the last: values then have the shape (r,) instead of ().

    Attributes:
        probability: Distinct probabilities, ascending, shape (k,).
        positive: Number of positive images at each, shape (k,) or (r, k), whole numbers as float64.
        negative: The same of negative images.
    """

    probability: Floats
    positive: Floats
    negative: Floats

    @property
    def total(self) -> Floats:
        """Number of images at each probability."""
        return self.positive + self.negative

    def __iter__(self) -> Iterator[Tally]:
        """The replicates one by one."""
        for positive, negative in zip(self.positive, self.negative, strict=True):
            yield replace(self, positive=positive, negative=negative)


def tally(predictions: Predictions) -> Tally:
    """The tally of checked predictions.

    Example:
        >>> from tumortrace.evaluation.table import check_arrays
        >>> counts = tally(check_arrays([0, 1, 1], [0.5, 0.5, 0.9]))
        >>> counts.probability, counts.positive, counts.negative
        (array([0.5, 0.9]), array([1., 1.]), array([1., 0.]))
    """
    levels, level = np.unique(predictions.probability, return_inverse=True)
    positive = np.bincount(level, weights=predictions.label, minlength=len(levels))
    negative = np.bincount(level, weights=1 - predictions.label, minlength=len(levels))
    return Tally(levels, positive.astype(np.float64), negative.astype(np.float64))


def by_replicate(function: Callable[[Tally], ArrayLike]) -> Callable[[Tally], Floats]:
    """A function of a tally of one table, made to take replicates too."""

    @wraps(function)
    def measured(counts: Tally) -> Floats:
        values = function(counts) if counts.positive.ndim == 1 else [function(one) for one in counts]
        return np.asarray(values, dtype=np.float64)

    return measured


class Confusion(NamedTuple):
    """The four counts at a threshold, shape () or (r,) each."""

    tn: Floats
    fp: Floats
    fn: Floats
    tp: Floats

    def as_record(self) -> ConfusionMatrix:
        """As whole numbers."""
        return ConfusionMatrix(**{name: int(count) for name, count in self._asdict().items()})


def confusion(counts: Tally, threshold: float) -> Confusion:
    """What is called positive, at or above a threshold, and what negative, by class.

    Example:
        >>> from tumortrace.evaluation.table import check_arrays
        >>> confusion(tally(check_arrays([0, 1, 1], [0.6, 0.5, 0.2])), 0.5).as_record()
        ConfusionMatrix(tn=0, fp=1, fn=1, tp=1)
    """
    cut = int(np.searchsorted(counts.probability, threshold, side="left"))
    (fn, tp), (tn, fp) = (
        (side[..., :cut].sum(-1), side[..., cut:].sum(-1)) for side in (counts.positive, counts.negative)
    )
    return Confusion(tn, fp, fn, tp)


def equal_mass_bins(counts: Tally, bins: int = BINS) -> NDArray[np.int64]:
    """The bin of each level among `bins` of equal mass, shape (k,) or (r, k), ascending from 0.

    Images of one probability always share a bin: the one that their middle rank falls into. So the bins do not
    depend on the order of the images; with many ties they are of unequal size, or empty.

    Example:
        >>> from tumortrace.evaluation.table import check_arrays
        >>> equal_mass_bins(tally(check_arrays([0, 0, 1, 1], [0.1, 0.2, 0.2, 0.2])), bins=2)
        array([0, 1])
    """
    total = counts.total
    middle = np.cumsum(total, axis=-1) - total / 2
    return np.minimum((bins * middle / total.sum(-1, keepdims=True)).astype(np.int64), bins - 1)


def sum_bins(values: Floats, place: NDArray[np.int64], bins: int = BINS) -> Floats:
    """Sums of the levels' values, shape (k,) or (r, k), by bin: shape (bins,) or (r, bins)."""
    rows = values.reshape(-1, values.shape[-1])
    index = np.arange(len(rows))[:, None] * bins + place
    sums = np.bincount(index.ravel(), rows.ravel(), len(rows) * bins).astype(np.float64)
    return sums.reshape(*values.shape[:-1], bins)


def ratio(part: ArrayLike, whole: ArrayLike) -> Floats:
    """`part / whole`, NaN where there is no whole."""
    part, whole = np.broadcast_arrays(np.asarray(part, dtype=np.float64), np.asarray(whole, dtype=np.float64))
    return np.divide(part, whole, out=np.full(whole.shape, np.nan), where=whole > 0)
