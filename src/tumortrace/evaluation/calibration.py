"""Temperature scaling: probabilities that mean what they say (Guo et al. 2017)."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import minimize_scalar
from scipy.special import expit

from tumortrace.errors import PredictionsError

Floats = NDArray[np.float64]
COLDEST, HOTTEST = 0.05, 20.0


def fit_temperature(logit: ArrayLike, label: ArrayLike) -> float:
    """The temperature T at which sigmoid(logit / T) is most likely, on the calibration split.

    Args:
        logit: Log-odds of class 1, shape (n,), finite.
        label: 0 or 1, shape (n,).

    Returns:
        T in [0.05, 20]; the bounds hold where the likelihood grows without end, as on separable data (0.05), or
        where the logits say nothing or the opposite (20). Exactly 1 where no temperature is better.

    Raises:
        PredictionsError: A logit or label is not possible, or only one class is present.

    Example:
        >>> round(fit_temperature([-2.0, -2.0, -2.0, 2.0, 2.0, 2.0], [0, 0, 1, 1, 1, 0]), 3)  # right 2 times in 3
        2.885
    """
    logits, labels = _checked(logit), np.asarray(label)
    if labels.shape != logits.shape or not np.isin(labels, (0, 1)).all() or len(np.unique(labels)) < 2:
        raise PredictionsError(
            f"labels of shape {labels.shape} with values {', '.join(map(str, np.unique(labels)[:5])) or 'none'}",
            expected=f"both 0 and 1, one for each of the {len(logits)} logits",
            remedy="give the calibration split images of both classes",
        )
    signed = np.where(labels == 1, logits, -logits)

    def loss(log_temperature: float) -> float:
        return float(np.logaddexp(0, -signed / np.exp(log_temperature)).mean())

    found = minimize_scalar(
        loss, bounds=(np.log(COLDEST), np.log(HOTTEST)), method="bounded", options={"xatol": 1e-9, "maxiter": 200}
    )
    # The bounded search never tries its ends, where separable data have their optimum.
    best = min((1.0, float(np.exp(found.x)), COLDEST, HOTTEST), key=lambda temperature: loss(np.log(temperature)))
    return float(best)


def apply_temperature(logit: ArrayLike, temperature: float) -> Floats:
    """Calibrated probabilities, sigmoid(logit / temperature).

    Args:
        logit: Log-odds of class 1, shape (n,), finite.
        temperature: Above 0; 1 changes nothing.

    Returns:
        Probability of class 1, shape (n,), float64 in [0, 1].

    Raises:
        PredictionsError: A logit is not finite or the temperature is not above 0.

    Example:
        >>> apply_temperature([0.0, 2.0], temperature=2.0).round(4)
        array([0.5   , 0.7311])
    """
    if not 0 < temperature < np.inf:
        raise PredictionsError(f"temperature {temperature}", expected="a number above 0", remedy="use 1")
    return np.asarray(expit(_checked(logit) / temperature), dtype=np.float64)


def _checked(logit: ArrayLike) -> Floats:
    logits = np.asarray(logit, dtype=np.float64)
    if logits.ndim != 1:
        raise PredictionsError(
            f"logits of shape {logits.shape}", expected="a flat array", remedy="give one logit per image"
        )
    if not np.isfinite(logits).all():
        row = int((~np.isfinite(logits)).argmax())
        raise PredictionsError(
            f"found {logits[row]}",
            where=f"logits, row {row + 1}",
            expected="a finite number",
            remedy="look whether training diverged",
        )
    return logits
