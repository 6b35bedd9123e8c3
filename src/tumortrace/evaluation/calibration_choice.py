"""Which calibration to take, decided on the calibration split alone."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold

from tumortrace.evaluation.calibration import METHODS, Calibrator, fit_calibrator

FOLDS = 5
#: Images, and images of the rarer class, from which on a method is worth trying. Isotonic regression overfits smaller
#: sets: Niculescu-Mizil & Caruana (2005), "Predicting good probabilities with supervised learning".
LEAST = {"temperature": (0, 0), "platt": (100, 20), "isotonic": (1000, 100)}


def choose_calibrator(
    logit: ArrayLike, label: ArrayLike, group: ArrayLike | None = None, *, method: str = "auto", seed: int = 0
) -> tuple[Calibrator, dict[str, Any]]:
    """Fit the calibration that is asked for; "auto" compares the methods by cross-validation first.

    The comparison is of the negative log-likelihood of images outside the fold's fit, folds keeping slides or patients
    together where all are known. Temperature, the method with the fewest numbers to fit, gives way to Platt's scaling,
    and that to isotonic regression, only where the gain is larger than its standard error; so chance, few images or
    few slides leave it at temperature.

    Args:
        logit: Log-odds of class 1 on the calibration split, shape (n,), finite.
        label: 0 or 1, shape (n,).
        group: Slide or patient of each image, or None; missing ones make all count as not known.
        method: "auto", "none", "temperature", "platt" or "isotonic".
        seed: Of the folds.

    Returns:
        The calibrator, fitted to all images, and for the record `{"asked", "method", "n", "n_groups",
        "cross_validated_nll", "why"}`; the likelihoods are None unless compared.

    Raises:
        PredictionsError: A logit or label is not possible, or only one class is present.

    Example:
        >>> fitted, record = choose_calibrator([-1.0, 2.0, -2.0, 1.0], [0, 0, 1, 1])
        >>> fitted.method, record["why"]
        ('temperature', 'too few images to compare methods (4, of the rarer class 2)')
    """
    logits, labels = np.asarray(logit, dtype=np.float64), np.asarray(label)
    known = None if group is None else pd.Series(np.asarray(group, dtype=object))
    groups = None if known is None or known.isna().any() else known.factorize()[0]
    n_groups = None if groups is None else len(np.unique(groups))
    record: dict[str, Any] = {"asked": method, "method": method, "n": len(logits), "n_groups": n_groups}
    compared, why = None, "the recipe asks for it"
    if method == "auto":
        method, compared, why = _compare(logits, labels, groups, seed)
    fitted = fit_calibrator(logits, labels, method)
    return fitted, record | {"method": method, "cross_validated_nll": compared, "why": why}


def _compare(
    logit: NDArray[np.float64], label: NDArray[Any], group: NDArray[np.int64] | None, seed: int
) -> tuple[str, dict[str, float] | None, str]:
    rarer = min(int((label == 0).sum()), int((label == 1).sum()))
    names = [name for name in METHODS if len(label) >= LEAST[name][0] and rarer >= LEAST[name][1]]
    if len(names) == 1:
        return names[0], None, f"too few images to compare methods ({len(label):,}, of the rarer class {rarer})"
    if group is not None and len(np.unique(group)) < FOLDS:
        return names[0], None, f"too few slides or patients to compare methods ({len(np.unique(group))})"
    losses = _held_out(logit, label, group, names, seed)
    if losses is None:
        return names[0], None, "too few slides or patients of one class to compare methods"
    best = names[0]
    for name in names[1:]:
        gain, error = _mean_and_error(losses[best] - losses[name], group)
        if gain > error:
            best = name
    told = {name: float(loss.mean()) for name, loss in losses.items()}
    why = f"least cross-validated negative log-likelihood over {FOLDS} folds" + (
        "" if group is None else " that keep slides or patients together"
    )
    if best == names[0]:
        why = f"no other method gains more than chance may over {FOLDS} folds"
    return best, told, why


def _held_out(
    logit: NDArray[np.float64], label: NDArray[Any], group: NDArray[np.int64] | None, names: list[str], seed: int
) -> dict[str, NDArray[np.float64]] | None:
    """Loss of each image under each method fitted without its fold; None where a fold leaves one class alone."""
    kind = StratifiedKFold if group is None else StratifiedGroupKFold
    losses = {name: np.empty(len(label)) for name in names}
    for fit, held in kind(FOLDS, shuffle=True, random_state=seed).split(logit[:, None], label, group):
        if len(np.unique(label[fit])) < 2:
            return None
        for name in names:
            score = fit_calibrator(logit[fit], label[fit], name).calibrated_logit(logit[held])
            losses[name][held] = np.logaddexp(0, np.where(label[held] == 1, -score, score))
    return losses


def _mean_and_error(gain: NDArray[np.float64], group: NDArray[np.int64] | None) -> tuple[float, float]:
    """Mean gain and its standard error, by group where these are known."""
    mean = float(gain.mean())
    off = gain - mean if group is None else np.bincount(group, weights=gain - mean)
    return mean, float(np.sqrt(len(off) / (len(off) - 1) * (off @ off)) / len(gain))
