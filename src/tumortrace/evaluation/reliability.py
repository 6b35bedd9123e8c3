"""How far probabilities can be taken at their word: calibration errors, and the Brier score taken apart."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.optimize import isotonic_regression
from scipy.special import expit

from tumortrace.evaluation.intervals import with_intervals
from tumortrace.evaluation.metrics import ECE_BINS, Tally, bin_edges, expected_calibration_error, tally
from tumortrace.evaluation.reliability_intervals import (
    binned_gaps,
    brier_reliability_interval,
    ece_interval,
    gap_interval,
)
from tumortrace.evaluation.table import Predictions, check_table

MEASURES = (
    "ece",
    "adaptive_ece",
    "classwise_ece",
    "brier",
    "brier_reliability",
    "brier_resolution",
    "brier_uncertainty",
    "nll",
)
#: Measures that noise pushes upwards, in the data and once more in every replicate of them.
UPWARDS = ("brier_resolution",)
Floats = NDArray[np.float64]


def before_and_after(table: pd.DataFrame, *, replicates: int = 1000, seed: int = 0) -> dict[str, Any]:
    """Every measure in `MEASURES` without and with calibration, with 95 % intervals.

    Args:
        table: Columns `label`, `probability` and, for what was before, `logit`; optionally `group`.
        replicates: Number of bootstrap replicates, of whole groups where every image has one.
        seed: Of the replicates.

    Returns:
        `{"before": {measure: {"value", "ci95"}}, "after": ...}`, ready for JSON; `before` is None without logits.

    Raises:
        PredictionsError: The table cannot be used.

    Example:
        >>> found = before_and_after(pd.DataFrame({"label": [0, 1], "probability": [0.2, 0.6]}), replicates=9)
        >>> found["before"], round(found["after"]["brier"]["value"], 3)
        (None, 0.1)
    """
    sides: dict[str, Any] = {"before": None, "after": table}
    if "logit" in table and table["logit"].notna().all():
        sides["before"] = table.assign(probability=expit(table["logit"].to_numpy(dtype=np.float64)))
    return {
        name: None if side is None else _with_intervals(check_table(side), replicates, seed)
        for name, side in sides.items()
    }


def _with_intervals(predictions: Predictions, replicates: int, seed: int) -> dict[str, Any]:
    found = with_intervals(
        predictions,
        MEASURES,
        lambda counts: list(reliability(counts).values()),
        replicates=replicates,
        seed=seed,
        mirrored=UPWARDS,
    )
    found["ece"]["ci95"] = ece_interval(predictions, replicates=replicates, seed=seed)  # as among the metrics
    found["brier_reliability"]["ci95"] = brier_reliability_interval(predictions, replicates=replicates, seed=seed)
    edges = bin_edges(_by_confidence(tally(predictions)))
    sums: dict[str, Callable[[Tally], Floats]] = {
        "adaptive_ece": partial(_adaptive_gaps, edges=edges),
        "classwise_ece": _classwise_gaps,
    }
    for name, gaps in sums.items():
        found[name]["ci95"] = gap_interval(predictions, gaps, replicates=replicates, seed=seed)
    return found


def reliability(counts: Tally) -> dict[str, float]:
    """Every measure in `MEASURES` of a tally.

    - `ece`: mean distance between probability and observed share over 15 bins of equally many images.
    - `adaptive_ece`: the same of the confidence in the likelier class (probability of it, and the share in which it is
      the true one), as in Mukhoti et al. (2020), "Calibrating deep neural networks using focal loss".
    - `classwise_ece`: over 15 bins of equal width, for each class by its own probability, mean of both (Kull et al.
      2019, "Beyond temperature scaling").
    - `brier`, `brier_reliability`, `brier_resolution`, `brier_uncertainty`: see `brier_decomposition`.
    - `nll`: mean negative log-likelihood in nats.

    Example:
        >>> from tumortrace.evaluation.metrics import tally
        >>> from tumortrace.evaluation.table import check_arrays
        >>> found = reliability(tally(check_arrays([0, 1, 1, 1], [0.5, 0.5, 0.9, 0.9])))
        >>> round(found["ece"], 3), round(found["brier_reliability"], 3)
        (0.05, 0.005)
    """
    surprise = counts.negative @ counts.surprise[0] + counts.positive @ counts.surprise[1]
    return {
        "ece": expected_calibration_error(counts),
        "adaptive_ece": expected_calibration_error(_by_confidence(counts)),
        "classwise_ece": float(np.abs(_classwise_gaps(counts)).sum()),
        **brier_decomposition(counts),
        "nll": float(surprise / counts.total.sum()),
    }


def brier_decomposition(counts: Tally) -> dict[str, float]:
    """The Brier score as reliability - resolution + uncertainty, exactly.

    Reliability is what the score loses through probabilities that do not mean what they say, resolution what it gains
    by telling images apart, uncertainty the score of the prevalence. Murphy (1973) compares each distinct probability
    with the share of positives at it, which says nothing where every image has a probability of its own; here the
    shares come from isotonic regression, as in the CORP decomposition of Dimitriadis, Gneiting & Jordan (2021),
    "Stable reliability diagrams for probabilistic classifiers". Where the shares rise with the probability, the two
    agree. Without bins there is nothing to choose.

    Returns:
        `brier, brier_reliability, brier_resolution, brier_uncertainty`, all at least 0.

    Example:
        >>> from tumortrace.evaluation.metrics import tally
        >>> from tumortrace.evaluation.table import check_arrays
        >>> found = brier_decomposition(tally(check_arrays([0, 1, 1, 1], [0.5, 0.5, 0.9, 0.9])))
        >>> [round(value, 4) for value in found.values()]
        [0.13, 0.005, 0.0625, 0.1875]
    """
    there = counts.total > 0  # a replicate has no image at some levels
    positive, total, forecast = counts.positive[there], counts.total[there], counts.probability[there]
    n = total.sum()
    shares = isotonic_regression(positive / total, weights=total).x
    prevalence = positive.sum() / n

    def score(probability: Floats | float) -> float:
        return float((positive * (1 - probability) ** 2 + (total - positive) * probability**2).sum() / n)

    brier, recalibrated, uncertainty = score(forecast), score(shares), score(prevalence)
    return {
        "brier": brier,
        "brier_reliability": max(brier - recalibrated, 0.0),
        "brier_resolution": max(uncertainty - recalibrated, 0.0),
        "brier_uncertainty": uncertainty,
    }


def _by_confidence(counts: Tally) -> Tally:
    """The tally of the confidence in the likelier class, "positive" being that it is the true one."""
    likelier = counts.probability >= 0.5
    confidence = np.where(likelier, counts.probability, 1 - counts.probability)
    levels, level = np.unique(confidence, return_inverse=True)
    right = np.bincount(level, weights=np.where(likelier, counts.positive, counts.negative), minlength=len(levels))
    wrong = np.bincount(level, weights=np.where(likelier, counts.negative, counts.positive), minlength=len(levels))
    return Tally(levels, right.astype(np.float64), wrong.astype(np.float64), np.zeros((2, len(levels))))


def _adaptive_gaps(counts: Tally, edges: NDArray[np.int64]) -> Floats:
    """Confidence less the share in which it is right, of each bin of confidences, as in `binned_gaps`."""
    return binned_gaps(_by_confidence(counts), edges)


def _classwise_gaps(counts: Tally, bins: int = ECE_BINS) -> Floats:
    """Probability less observed share of each class in each bin, halved and weighted, shape (2 * bins,)."""
    sides = ((counts.probability, counts.positive), (1 - counts.probability, counts.negative))
    gaps = []
    for probability, own in sides:
        place = np.minimum((probability * bins).astype(np.int64), bins - 1)
        gaps.append(np.bincount(place, weights=counts.total * probability - own, minlength=bins))
    return np.concatenate(gaps) / 2 / counts.total.sum()
