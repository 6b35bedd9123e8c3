"""What makes the probabilities of more than two classes believable: their calibration, and prediction sets.

The probability of all tumour classes together is calibrated as that of any model of two classes is. What is fitted here
parts it among them, and the rest among the other classes, so that the classes always add up to it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray
from pydantic import BaseModel, ConfigDict, Field

from tumortrace.errors import PredictionsError
from tumortrace.evaluation.calibration import COLDEST, HOTTEST
from tumortrace.evaluation.conformal import ROUNDING, quantiles_of

Floats = NDArray[np.float64]
Sides = Sequence[bool]
FARTHEST = 10.0  # of a bias, which a class without images would send to infinity


class ClassCalibrator(BaseModel):
    """From the logits of K classes, and the calibrated probability of the positive ones together, to K probabilities.

    Attributes:
        method: How it was fitted; "none" leaves logits as they are.
        slope: Factor on the logits of each class, above 0; all 1 / T for a temperature T.
        bias: Added to them.

    Example:
        >>> parted = ClassCalibrator().apply([[0.0, 0.0, 0.0]], [0.6], [False, True, True])
        >>> parted.round(2).tolist()
        [[0.4, 0.3, 0.3]]
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    method: Literal["none", "temperature", "vector"] = "none"
    slope: tuple[float, ...] | None = None
    bias: tuple[float, ...] | None = None

    def apply(self, logits: ArrayLike, probability: ArrayLike, positive: Sides) -> Floats:
        """Probabilities of the classes, shape (n, K), float64, sum 1.

        Args:
            logits: Of the classes, shape (n, K), finite.
            probability: Calibrated, of the positive classes together, shape (n,), in [0, 1].
            positive: Which of the classes are.
        """
        scaled, total = self.scaled(logits), np.asarray(probability, dtype=np.float64)
        shares = np.empty_like(scaled)
        for side, whole in ((True, total), (False, 1 - total)):
            columns = np.asarray(positive) == side
            raised = np.exp(scaled[:, columns] - scaled[:, columns].max(1, keepdims=True))
            shares[:, columns] = raised / raised.sum(1, keepdims=True) * whole[:, None]
        return shares

    def scaled(self, logits: ArrayLike) -> Floats:
        """Calibrated logits, shape (n, K)."""
        values = np.asarray(logits, dtype=np.float64)
        if self.slope is None or self.bias is None:
            return values
        return np.asarray(values * self.slope + self.bias)


def fit_class_calibrator(
    logits: ArrayLike, label: ArrayLike, positive: Sides, method: str = "temperature"
) -> ClassCalibrator:
    """Temperature or vector scaling (Guo et al. 2017) of the classes of either side, on the calibration split.

    What is made most likely is the class of each image among those of its side, tumour or not.

    Args:
        logits: Shape (n, K), finite.
        label: Shape (n,), in [0, K).
        positive: Which of the K classes are.
        method: "none"; "temperature", one factor for all classes; "vector", a factor and a bias for each.

    Raises:
        PredictionsError: There is no such method, or a logit is not finite.

    Example:
        >>> logits = [[9.0, 2.0, 0.0], [9.0, 2.0, 0.0], [9.0, 2.0, 0.0], [9.0, 2.0, 0.0]]
        >>> fitted = fit_class_calibrator(logits, [1, 1, 1, 2], [False, True, True])
        >>> fitted.apply(logits[:1], [0.8], [False, True, True]).round(2).tolist()  # three quarters of .8
        [[0.2, 0.6, 0.2]]
    """
    values, labels, sides = np.asarray(logits, dtype=np.float64), np.asarray(label), np.asarray(positive, dtype=bool)
    if not np.isfinite(values).all():
        raise PredictionsError("logits that are not finite", remedy="look whether training diverged")
    if method == "none":
        return ClassCalibrator()
    if method not in ("temperature", "vector"):
        expected = "none, temperature or vector"
        raise PredictionsError(f"calibration method {method!r}", expected=expected, remedy="use one of these")
    classes = values.shape[1]
    from scipy.optimize import minimize  # here, as calibrated predictions need no fit
    from scipy.special import log_softmax

    other = sides[labels][:, None] != sides  # classes of the other side are out of the question
    scale = max(float(np.abs(values).mean()), 1e-12)  # the search goes best about 1
    slopes = classes if method == "vector" else 1

    def taken(numbers: Floats) -> tuple[Floats, Floats]:
        slope = np.broadcast_to(numbers[:slopes] / scale, classes)
        return slope, numbers[slopes:] if method == "vector" else np.zeros(classes)

    def loss(numbers: Floats) -> tuple[float, Floats]:
        slope, bias = taken(numbers)
        likely = log_softmax(np.where(other, -np.inf, values * slope + bias), axis=1)
        excess = np.exp(likely)
        excess[np.arange(len(labels)), labels] -= 1
        excess /= len(labels)
        towards = (excess * values).sum(0) / scale
        gradient = np.concatenate([towards, excess.sum(0)]) if method == "vector" else towards.sum(keepdims=True)
        return -float(likely[np.arange(len(labels)), labels].mean()), gradient

    bounds = [(scale / HOTTEST, scale / COLDEST)] * slopes + [(-FARTHEST, FARTHEST)] * (classes * (slopes > 1))
    start = np.array([scale] * slopes + [0.0] * (classes * (slopes > 1)))
    best = minimize(loss, start, jac=True, method="L-BFGS-B", bounds=bounds, options={"maxiter": 500}).x
    slope, bias = taken(best)
    return ClassCalibrator.model_validate({"method": method, "slope": slope.tolist(), "bias": bias.tolist()})


class ClassConformal(BaseModel):
    """Prediction sets of K classes with the same coverage for each; see `fit_class_conformal`.

    Attributes:
        method: How strange an image is to a class, see `strangeness`.
        coverage: Share of images of each class whose set holds it.
        quantiles: Of each class; None where there were too few images to calibrate by, which puts it into every set.
        n: Calibration images of each class.
        unit: What is exchangeable: images, or slides and patients with their images.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    method: Literal["lac", "aps"] = "aps"
    coverage: float = Field(gt=0, lt=1)
    quantiles: tuple[float | None, ...]
    n: tuple[int, ...]
    unit: Literal["image", "group"] = "image"

    def sets(self, probability: ArrayLike) -> NDArray[np.bool_]:
        """Which classes the set of each image holds, bool, shape (n, K), of probabilities of that shape."""
        limits = np.array([np.inf if quantile is None else quantile + ROUNDING for quantile in self.quantiles])
        return np.asarray(strangeness(probability, self.method) <= limits)


def strangeness(probability: ArrayLike, method: str) -> Floats:
    """How strange each image is to each class, shape (n, K), in [0, 1].

    "lac": 1 less the class's probability (Sadinle, Lei & Wasserman 2019), which makes the smallest sets. "aps": the
    probability of the class and of all that are more likely (Romano, Sesia & Candès 2020, without the random share), by
    which hard images get larger sets than easy ones.

    Example:
        >>> strangeness([[0.5, 0.2, 0.3]], "aps").round(2).tolist()
        [[0.5, 1.0, 0.8]]
    """
    values = np.asarray(probability, dtype=np.float64)
    if method == "lac":
        return 1 - values
    order = np.argsort(-values, axis=1, kind="stable")
    total = np.cumsum(np.take_along_axis(values, order, 1), axis=1)
    scores = np.empty_like(values)
    np.put_along_axis(scores, order, np.minimum(total, 1), 1)
    return scores


def fit_class_conformal(
    label: ArrayLike, probability: ArrayLike, coverage: float = 0.9, group: ArrayLike | None = None, method: str = "aps"
) -> ClassConformal:
    """The conformal quantile of each class, from the calibration split, as `fit_conformal` finds those of two.

    Args:
        label: Shape (n,), in [0, K).
        probability: Shape (n, K), sum 1.
        coverage: Share of images of each class whose set holds it, in (0, 1).
        group: Slide or patient of each image, or None.
        method: "lac" or "aps", see `strangeness`.

    Raises:
        PredictionsError: The coverage or the method is not possible.

    Example:
        >>> fitted = fit_class_conformal([0, 1, 2], [[0.8, 0.1, 0.1], [0.3, 0.6, 0.1], [0.2, 0.2, 0.6]], 0.5)
        >>> fitted.sets([[0.7, 0.2, 0.1]]).tolist()
        [[True, False, False]]
    """
    if method not in ("lac", "aps"):
        raise PredictionsError(f"prediction sets {method!r}", expected="lac or aps", remedy="use one of these")
    labels, shares = np.asarray(label, dtype=np.int64), np.asarray(probability, dtype=np.float64)
    scores = strangeness(shares, method)[np.arange(len(labels)), labels]
    quantiles, n, by_group, _ = quantiles_of(scores, labels, shares.shape[1], coverage, group)
    unit = "group" if by_group else "image"
    return ClassConformal.model_validate(
        {"method": method, "coverage": coverage, "quantiles": quantiles, "n": n, "unit": unit}
    )
