"""How far probabilities can be taken at their word: calibration errors, and the Brier score taken apart."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd

from tumortrace.evaluation.intervals import estimate_measures
from tumortrace.evaluation.measures import MEASURES, Measure, brier, gaps
from tumortrace.evaluation.replicates import Replicates
from tumortrace.evaluation.tally import BINS, Floats, Tally, by_replicate, sum_bins
from tumortrace.records.metrics import CalibrationRecord


def before_and_after(table: pd.DataFrame, *, replicates: int = 1000, seed: int = 0) -> CalibrationRecord:
    """Every measure in `CALIBRATION` without and with calibration, with 95 % intervals.

    Args:
        table: Columns `label`, `probability` and, for what was before, `logit`; optionally `group`.
        replicates: As for `evaluate_table`, like `seed`.

    Returns:
        `before` and `after`, estimates by name; `before` is None without logits.

    Raises:
        PredictionsError: The table cannot be used.

    Example:
        >>> record = before_and_after(pd.DataFrame({"label": [0, 1], "probability": [0.2, 0.6]}), replicates=9)
        >>> record.before, round(record.after["brier"].value, 3)
        (None, 0.1)
    """
    after = Replicates(table, replicates, seed)
    before = None
    if "logit" in table and table["logit"].notna().all():
        from scipy.special import expit

        before = after.of(table.assign(probability=expit(table["logit"].to_numpy(dtype=np.float64))))
    return CalibrationRecord(
        before=None if before is None else estimate_measures(before, 0.5, CALIBRATION),
        after=estimate_measures(after, 0.5, CALIBRATION),
    )


@by_replicate
def recalibrated(counts: Tally) -> float:
    """The Brier score of the rising curve that fits the labels best, in place of the probabilities.

    With it the Brier score is reliability - resolution + uncertainty, exactly. Reliability is what the score loses
    through probabilities that do not mean what they say, resolution what it gains by telling images apart, uncertainty
    the score of the prevalence. Murphy (1973) compares each distinct probability with the share of positives at it,
    which says nothing where every image has a probability of its own; here the shares come from isotonic regression, as
    in the CORP decomposition of Dimitriadis, Gneiting & Jordan (2021), "Stable reliability diagrams for probabilistic
    classifiers". Where the shares rise with the probability, the two agree. Without bins there is nothing to choose.

    Example:
        >>> from tumortrace.evaluation.table import check_arrays
        >>> from tumortrace.evaluation.tally import tally
        >>> counts = tally(check_arrays([0, 1, 1, 1], [0.5, 0.5, 0.9, 0.9]))
        >>> fit, base = recalibrated(counts), uncertainty(counts)
        >>> [round(float(part), 4) for part in (brier(counts) - fit, base - fit, base)]
        [0.005, 0.0625, 0.1875]
    """
    there = counts.total > 0  # a replicate has no image at some levels
    positive, total = counts.positive[there], counts.total[there]
    from scipy.optimize import isotonic_regression

    share = isotonic_regression(positive / total, weights=total).x
    return float((positive * (1 - share) ** 2 + (total - positive) * share**2).sum() / total.sum())


def uncertainty(counts: Tally) -> Floats:
    """The Brier score of the prevalence in place of the probabilities."""
    prevalence = counts.positive.sum(-1) / counts.total.sum(-1)
    return np.asarray(prevalence * (1 - prevalence))


def by_confidence(counts: Tally) -> Tally:
    """The tally of the confidence in the likelier class, "positive" being that it is the true one."""
    likelier = counts.probability >= 0.5
    levels, level = np.unique(np.where(likelier, counts.probability, 1 - counts.probability), return_inverse=True)
    right = sum_bins(np.where(likelier, counts.positive, counts.negative), level, len(levels))
    wrong = sum_bins(np.where(likelier, counts.negative, counts.positive), level, len(levels))
    return Tally(levels, right, wrong)


def adaptive_gaps(counts: Tally, whole: Tally) -> Floats:
    """Confidence less the share in which it is right, of each bin of confidences, as `gaps`."""
    return gaps(by_confidence(counts), by_confidence(whole))


def classwise_gaps(counts: Tally, whole: Tally) -> Floats:
    """Probability less observed share of each class by bins of equal width, halved, weighted: (..., 2 * bins)."""
    sides = []
    for probability, images in ((whole.probability, counts.positive), (1 - whole.probability, counts.negative)):
        place = np.minimum((probability * BINS).astype(np.int64), BINS - 1)
        sides.append(sum_bins(counts.total * probability - images, place))
    return np.concatenate(sides, axis=-1) / 2 / counts.total.sum(-1)[..., None]


def _falling(name: str, title: str, source: str, value: Callable[[Tally], Floats], **more: Any) -> Measure:
    return Measure(name, title, source, lambda counts, _: value(counts), rises=False, **more)


# fmt: off
#: Measures of calibration, in the order of tables.
CALIBRATION: dict[str, Measure] = {row.name: row for row in (
    replace(MEASURES["ece"], title="Calibration error, bins of equal mass (ECE)"),
    _falling("adaptive_ece", "The same of the likelier class (adaptive ECE)",
             "mean gap between confidence in the likelier class and the share in which it is the true one (Mukhoti et "
             'al. 2020, "Calibrating deep neural networks using focal loss")',
             lambda counts: np.abs(adaptive_gaps(counts, counts)).sum(-1), interval="gaps", gaps=adaptive_gaps),
    _falling("classwise_ece", "The same by class, bins of equal width (classwise ECE)",
             'mean gap of each class by its own probability (Kull et al. 2019, "Beyond temperature scaling")',
             lambda counts: np.abs(classwise_gaps(counts, counts)).sum(-1), interval="gaps", gaps=classwise_gaps),
    MEASURES["nll"],
    MEASURES["brier"],
    _falling("brier_reliability", "… of it lost through miscalibration (reliability)", "see `recalibrated`",
             lambda counts: np.maximum(brier(counts) - recalibrated(counts), 0.0), interval="brier_reliability"),
    # noise pushes the resolution upwards, in the data and once more in every replicate of them
    Measure("brier_resolution", "… gained by telling them apart (resolution)", "see `recalibrated`",
            lambda counts, _: np.maximum(uncertainty(counts) - recalibrated(counts), 0.0), interval="mirrored"),
    _falling("brier_uncertainty", "… due to the prevalence (uncertainty)", "score of the prevalence", uncertainty),
)}
# fmt: on
