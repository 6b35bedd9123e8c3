"""The decision curve: what a model is worth to those who act on it (Vickers & Elkin 2006)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tumortrace.evaluation.metrics import Tally

#: Probabilities from which on one acts, .025 apart.
THRESHOLDS: NDArray[np.float64] = np.round(np.arange(1, 40) / 40, 3)
BENEFIT_NAMES: tuple[tuple[str, float], ...] = tuple((kind, float(t)) for kind in ("model", "all") for t in THRESHOLDS)


def net_benefit(counts: Tally) -> NDArray[np.float64]:
    """Net benefit of acting on the model, and of acting on every image, at each of `THRESHOLDS`.

    Whoever acts at a probability of t or more holds a missed tumour to be (1 - t) / t times as bad as a needless
    action. Net benefit is true positives less false positives at that rate, as a share of all images:
    tp / n - fp / n * t / (1 - t). Acting on no image has net benefit 0.

    Returns:
        In the order of `BENEFIT_NAMES`: first of the model, then of acting on all.

    Example:
        >>> from tumortrace.evaluation.metrics import tally
        >>> from tumortrace.evaluation.table import check_arrays
        >>> benefit = net_benefit(tally(check_arrays([0, 0, 1, 1], [0.1, 0.6, 0.4, 0.9])))
        >>> places = [BENEFIT_NAMES.index(name) for name in (("model", 0.5), ("model", 0.2), ("all", 0.2))]
        >>> benefit[places].round(4).tolist()
        [0.0, 0.4375, 0.375]
    """
    below = np.searchsorted(counts.probability, THRESHOLDS, side="left")
    positives, negatives = np.append(0, np.cumsum(counts.positive)), np.append(0, np.cumsum(counts.negative))
    n, odds = positives[-1] + negatives[-1], THRESHOLDS / (1 - THRESHOLDS)
    model = (positives[-1] - positives[below] - (negatives[-1] - negatives[below]) * odds) / n
    return np.concatenate([model, (positives[-1] - negatives[-1] * odds) / n])


def decision_curve(entries: Mapping[tuple[str, float], dict[str, Any]]) -> list[dict[str, Any]]:
    """One record per threshold, `{"threshold": t, "model": entry, "all": entry}`, of entries by `BENEFIT_NAMES`."""
    return [{"threshold": t, "model": entries["model", t], "all": entries["all", t]} for t in THRESHOLDS.tolist()]
