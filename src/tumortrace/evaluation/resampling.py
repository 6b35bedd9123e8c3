"""Bootstrap replicates of predictions: of whole slides or patients where these are known, else of images."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from tumortrace.evaluation.metrics import Tally, tally
from tumortrace.evaluation.table import Predictions


def resamples(predictions: Predictions, replicates: int, seed: int) -> Iterator[Tally]:
    """Bootstrap replicates of the predictions, as tallies over the same levels.

    Whole groups are drawn where every image has one and there are two or more, else single images. Classes are not
    drawn apart: their shares vary as those of a new sample would, without which precision, F1 or the calibration error
    look surer than they are.

    Example:
        >>> from tumortrace.evaluation.table import check_arrays
        >>> sample = next(resamples(check_arrays([0, 0, 1], [0.1, 0.2, 0.9]), replicates=1, seed=0))
        >>> int(sample.positive.sum()) + int(sample.negative.sum())
        3
    """
    random = np.random.default_rng(seed)
    counts = tally(predictions)
    levels = len(counts.probability)
    level = np.searchsorted(counts.probability, predictions.probability)
    unit, units = predictions.group, predictions.n_groups
    if unit is None or units is None or not draws_groups(predictions):
        units = len(level)
        unit = np.empty(units, dtype=np.int64)
        unit[np.lexsort((predictions.label, level))] = np.arange(units)  # the order of the rows must not matter
    classes = [(level[rows], unit[rows]) for rows in (predictions.label == 1, predictions.label == 0)]
    for _ in range(replicates):
        times = np.bincount(random.integers(units, size=units), minlength=units).astype(np.float64)
        positive, negative = (np.bincount(rows, weights=times[of], minlength=levels) for rows, of in classes)
        yield replace(counts, positive=np.asarray(positive, float), negative=np.asarray(negative, float))


def single_groups(predictions: Predictions) -> Iterator[Tally]:
    """Each group by itself, as a tally over the same levels as `resamples`; none where groups are not known.

    Example:
        >>> from tumortrace.evaluation.table import Predictions
        >>> both = Predictions(np.array([0, 1, 1]), np.array([0.1, 0.2, 0.9]), np.array([0, 0, 1]), 2, 0)
        >>> [group.positive.tolist() for group in single_groups(both)]
        [[0.0, 1.0, 0.0], [0.0, 0.0, 1.0]]
    """
    counts = tally(predictions)
    level = np.searchsorted(counts.probability, predictions.probability)
    for code in range(predictions.n_groups or 0):
        own = predictions.group == code
        sides = (np.bincount(level[own & (predictions.label == k)], minlength=len(counts.probability)) for k in (0, 1))
        negative, positive = (np.asarray(side, dtype=np.float64) for side in sides)
        yield replace(counts, positive=positive, negative=negative)


def draws_groups(predictions: Predictions) -> bool:
    """Whether replicates draw whole groups: every image has one, and there are two or more."""
    return predictions.n_groups is not None and predictions.n_groups >= 2
