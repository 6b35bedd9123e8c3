"""The metrics of a binary classifier, class 1 being positive: one row each, which all that lists metrics reads."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from tumortrace.evaluation.table import check_arrays, check_threshold
from tumortrace.evaluation.tally import Confusion, Tally, confusion, equal_mass_bins, ratio, sum_bins, tally
from tumortrace.records.metrics import ConfusionMatrix

Floats = NDArray[np.float64]
Share = tuple[Floats, Floats]


@dataclass(frozen=True)
class Measure:
    """A metric. To add one, add its row to `MEASURES`: records, reports, comparisons, recipes and pages read it there.

    Attributes:
        name: In records and on the command line.
        title: For people.
        source: What it is, and where it is defined.
        value: Of a tally and the calls at a threshold: shape () or (r,), NaN where it is not defined.
        share: Of a plain proportion, successes and trials, of which `value` is then the ratio.
        interval: How its interval is made: `share` by Wilson's score (of groups by the bootstrap), `percentile` by the
            bootstrap, `bounded` likewise but at an end of the bounds, where no replicate differs, by Wilson's score,
            `mirrored` by the basic bootstrap, `gaps` by inverted tests of its bins (`gap_interval`).
        gaps: Of a sum of absolute gaps, these: signed, of a tally in the bins of the whole one.
        bounds: Least and greatest value.
        rises: Whether more is better.
        called: Whether it depends on the calls alone, and so on the threshold, not on the order of the images.
        prominence: 2 where it stands in every line that sums a model up, 1 in tables of the main figures, 0 in full
            tables.
        colour: Of its line in figures.
    """

    name: str
    title: str
    source: str
    value: Callable[[Tally, Confusion], Floats]
    share: Callable[[Confusion], Share] | None = None
    interval: Literal["share", "percentile", "bounded", "mirrored", "gaps", "brier_reliability"] = "percentile"
    gaps: Callable[[Tally, Tally], Floats] | None = None
    bounds: tuple[float, float] = (0.0, 1.0)
    rises: bool = True
    called: bool = False
    prominence: int = 0
    colour: str = "#66727d"


def auroc(counts: Tally) -> Floats:
    """Probability that a positive image scores above a negative one, ties counting half (Hanley & McNeil 1982)."""
    negative_below = np.cumsum(counts.negative, axis=-1) - counts.negative
    wins = (counts.positive * (negative_below + counts.negative / 2)).sum(-1)
    return ratio(wins, counts.positive.sum(-1) * counts.negative.sum(-1))


def average_precision(counts: Tally) -> Floats:
    """Precision averaged over the steps of recall, without interpolation, as in scikit-learn."""
    called = np.cumsum(counts.total[..., ::-1], axis=-1)[..., ::-1]
    true = np.cumsum(counts.positive[..., ::-1], axis=-1)[..., ::-1]
    precision = true / np.maximum(called, 1)  # 0/0 only at levels that a bootstrap replicate has no image at
    average = ratio((counts.positive * precision).sum(-1), counts.positive.sum(-1))
    return np.where(counts.negative.sum(-1) == 0, np.nan, average)  # would be 1 whatever the model says


def brier(counts: Tally) -> Floats:
    """Mean squared error of the probability."""
    squared = counts.positive @ (1 - counts.probability) ** 2 + counts.negative @ counts.probability**2
    return ratio(squared, counts.total.sum(-1))


def nll(counts: Tally) -> Floats:
    """Mean negative log-likelihood in nats, probabilities clipped by 2.2e-16 as in scikit-learn."""
    epsilon = np.finfo(np.float64).eps
    negative, positive = -np.log(np.clip([1 - counts.probability, counts.probability], epsilon, 1 - epsilon))
    return ratio(counts.negative @ negative + counts.positive @ positive, counts.total.sum(-1))


def gaps(counts: Tally, whole: Tally | None = None) -> Floats:
    """Probability less observed share of each equal-mass bin, weighted by its share of the images: (bins,), (r, bins).

    The bins are those of the tally itself, or of the `whole` of which replicates were drawn.
    """
    place = equal_mass_bins(whole or counts)
    return ratio(sum_bins(counts.total * counts.probability - counts.positive, place), counts.total.sum(-1)[..., None])


def expected_calibration_error(counts: Tally) -> Floats:
    """Mean distance between probability and observed share of positives over 15 equal-mass bins, in [0, 1].

    The l1 calibration error of the positive class with bins of equal size (Nixon et al. 2019; Kumar et al. 2019).
    It is never below 0, so noise makes it too large: about .07 at 300 images and .02 at 3,000 of a perfect model.
    """
    return np.abs(gaps(counts)).sum(-1)


def _correlation(calls: Confusion) -> Floats:
    tn, fp, fn, tp = calls
    return ratio(tp * tn - fp * fn, np.sqrt(tp + fp) * np.sqrt(tp + fn) * np.sqrt(tn + fp) * np.sqrt(tn + fn))


def _shared(name: str, title: str, source: str, share: Callable[[Confusion], Share], **more: Any) -> Measure:
    """The row of a plain proportion."""
    value = lambda _, calls: ratio(*share(calls))  # noqa: E731
    return Measure(name, title, source, value, share=share, interval="share", called=True, **more)


# fmt: off
MEASURES: dict[str, Measure] = {row.name: row for row in (
    Measure("auroc", "AUROC", "chance that a positive image scores above a negative one (Hanley & McNeil 1982)",
            lambda counts, _: auroc(counts), interval="bounded", prominence=2, colour="#22303a"),
    Measure("average_precision", "Average precision", "area under the steps of precision over recall",
            lambda counts, _: average_precision(counts), interval="bounded", prominence=1, colour="#009e73"),
    _shared("accuracy", "Accuracy", "share of images called rightly",
            lambda c: (c.tn + c.tp, c.tn + c.fp + c.fn + c.tp), prominence=1, colour="#cc79a7"),
    Measure("balanced_accuracy", "Balanced accuracy", "mean of sensitivity and specificity (Brodersen et al. 2010)",
            lambda _, c: (ratio(c.tp, c.tp + c.fn) + ratio(c.tn, c.tn + c.fp)) / 2,
            interval="bounded", called=True, prominence=1),
    _shared("sensitivity", "Sensitivity", "share of positive images called positive",
            lambda c: (c.tp, c.tp + c.fn), prominence=2, colour="#d55e00"),
    _shared("specificity", "Specificity", "share of negative images called negative",
            lambda c: (c.tn, c.tn + c.fp), prominence=2, colour="#0072b2"),
    _shared("precision", "Precision", "share of images called positive that are",
            lambda c: (c.tp, c.tp + c.fp), colour="#e69f00"),
    _shared("npv", "Negative predictive value", "share of images called negative that are",
            lambda c: (c.tn, c.tn + c.fn)),
    Measure("f1", "F1", "harmonic mean of precision and sensitivity",
            lambda _, c: ratio(2 * c.tp, 2 * c.tp + c.fp + c.fn),
            interval="bounded", called=True, prominence=1, colour="#009e73"),
    Measure("mcc", "Matthews correlation", "correlation of label and call (Matthews 1975)",
            lambda _, calls: _correlation(calls), interval="bounded", bounds=(-1.0, 1.0), called=True),
    Measure("brier", "Brier score", "mean squared error of the probability (Brier 1950)",
            lambda counts, _: brier(counts), rises=False),
    Measure("nll", "Log loss", "mean negative log-likelihood in nats",
            lambda counts, _: nll(counts), bounds=(0.0, math.inf), rises=False, colour="#e69f00"),
    Measure("ece", "Calibration error (ECE)", "mean gap over bins of equal mass (Nixon et al. 2019)",
            lambda counts, _: expected_calibration_error(counts),
            interval="gaps", gaps=gaps, rises=False, prominence=2, colour="#882255"),
)}
# fmt: on
#: Titles of the metrics by name, in the order of tables.
TITLES = {name: row.title for name, row in MEASURES.items()}
#: Those that depend on the calls alone.
CALLED = {name: row for name, row in MEASURES.items() if row.called}


def prominent(least: int = 1) -> dict[str, str]:
    """Titles of the metrics of at least a prominence, by name.

    Example:
        >>> list(prominent(2))
        ['auroc', 'sensitivity', 'specificity', 'ece']
    """
    return {name: row.title for name, row in MEASURES.items() if row.prominence >= least}


def rises(name: str) -> bool:
    """Whether more of a metric, or of a `loss`, is better; a name of more than two classes is one too.

    Example:
        >>> rises("auroc"), rises("brier"), rises("loss"), rises("class_kappa")
        (True, False, False, True)
    """
    return MEASURES[name].rises if name in MEASURES else not name.endswith("loss")


def measure(counts: Tally, threshold: float, rows: Mapping[str, Measure] = MEASURES) -> dict[str, Floats]:
    """The value of each measure at a threshold, shape () or (r,), NaN where not defined."""
    calls = confusion(counts, threshold)
    return {name: row.value(counts, calls) for name, row in rows.items()}


@dataclass(frozen=True)
class Classification:
    """What is measured without intervals.

    Attributes:
        metrics: Value of every metric by name; None where the data do not define it.
        confusion_matrix: At the threshold.
        threshold: An image is called positive where its probability is at or above it.
        n: Number of images.
        prevalence: Share of positive images.
    """

    metrics: dict[str, float | None]
    confusion_matrix: ConfusionMatrix
    threshold: float
    n: int
    prevalence: float


def classification(label: ArrayLike, probability: ArrayLike, threshold: float = 0.5) -> Classification:
    """Every metric in `MEASURES` at a threshold, without intervals.

    A metric that the data do not define is None, never 0 or 1: with one class only `auroc`, `average_precision`,
    `balanced_accuracy` and `mcc`; without positive images `sensitivity`, without negative ones `specificity`, without
    positive predictions `precision`, without negative ones `npv`, without either kind of prediction `mcc`, and `f1`
    where nothing is positive nor called so.

    Args:
        label: 0 or 1, shape (n,).
        probability: Probability of class 1, shape (n,), in [0, 1].
        threshold: An image is called positive where its probability is at or above it.

    Raises:
        PredictionsError: A label, a probability or the threshold is not possible.

    Example:
        >>> result = classification([0, 0, 1, 1], [0.1, 0.6, 0.4, 0.9], threshold=0.5)
        >>> result.metrics["auroc"], result.metrics["sensitivity"], result.confusion_matrix.fp
        (0.75, 0.5, 1)
    """
    check_threshold(threshold)
    return describe(tally(check_arrays(label, probability)), threshold)


def describe(counts: Tally, threshold: float) -> Classification:
    """`measure` for reading."""
    values = {name: float(value) for name, value in measure(counts, threshold).items()}
    calls = confusion(counts, threshold)
    n = int(sum(calls))
    return Classification(
        {metric: None if math.isnan(value) else value for metric, value in values.items()},
        calls.as_record(),
        float(threshold),
        n,
        int(calls.fn + calls.tp) / n,
    )
