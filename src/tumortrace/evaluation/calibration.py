"""Calibration: probabilities that mean what they say, by temperature, Platt's scaling or isotonic regression.

All three are one kind of map: a line from logit to logit with bends, which never falls, and then the sigmoid. So a
calibrated model ranks images exactly as it did before (no ties arise, AUROC stays), no probability is exactly 0 or 1
unless the logit is enormous, and a bundle holds a few plain numbers.
"""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from pydantic import BaseModel, ConfigDict, Field, model_validator

from tumortrace.errors import PredictionsError
from tumortrace.records.metrics import Choice

Floats = NDArray[np.float64]
COLDEST, HOTTEST = 0.05, 20.0
METHODS = ("temperature", "platt", "isotonic")


class Calibrator(BaseModel):
    """A map from the logit of a model to a calibrated probability.

    The calibrated logit is `values[i]` at the logit `knots[i]`, linear in between, and goes on with `slope` on either
    side; its sigmoid is the probability. With one knot that is a straight line.

    Attributes:
        method: How it was fitted; "none" leaves logits as they are.
        slope: Rise of the calibrated logit beyond the outer knots, above 0; 1 / T for a temperature T.
        knots: Logits, strictly rising.
        values: Calibrated logits at the knots, strictly rising.

    Example:
        >>> Calibrator(method="platt", slope=0.5, knots=(0.0,), values=(-1.0,)).apply([2.0]).tolist()
        [0.5]
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    method: Literal["none", "temperature", "platt", "isotonic"] = "none"
    slope: float = Field(default=1.0, gt=0, allow_inf_nan=False)
    knots: tuple[float, ...] = Field(default=(0.0,), min_length=1)
    values: tuple[float, ...] = Field(default=(0.0,), min_length=1)

    @model_validator(mode="after")
    def _rises(self) -> Calibrator:
        if len(self.knots) != len(self.values):
            raise ValueError(f"{len(self.knots)} knots but {len(self.values)} values")
        for name, numbers in (("knots", self.knots), ("values", self.values)):
            if not np.isfinite(numbers).all() or not (np.diff(numbers) > 0).all():
                raise ValueError(f"{name} do not rise strictly")
        return self

    def apply(self, logit: ArrayLike) -> Floats:
        """Calibrated probabilities of class 1.

        Args:
            logit: Log-odds of class 1, shape (n,), finite.

        Returns:
            Shape (n,), float64 in [0, 1].

        Raises:
            PredictionsError: A logit is not finite.
        """
        return _sigmoid(self.calibrated_logit(logit))

    def calibrated_logit(self, logit: ArrayLike) -> Floats:
        """The log-odds of `apply`, shape (n,), float64."""
        x = _checked(logit)
        below, above = np.minimum(x - self.knots[0], 0), np.maximum(x - self.knots[-1], 0)
        return np.asarray(np.interp(x, self.knots, self.values) + self.slope * (below + above), dtype=np.float64)


def temperature_scaling(temperature: float) -> Calibrator:
    """The calibrator that divides logits by a temperature (Guo et al. 2017).

    Raises:
        PredictionsError: The temperature is not above 0.

    Example:
        >>> temperature_scaling(2.0).apply([0.0, 2.0]).round(4)
        array([0.5   , 0.7311])
    """
    if not 0 < temperature < np.inf:
        raise PredictionsError(f"temperature {temperature}", expected="a number above 0", remedy="use 1")
    return Calibrator(method="temperature", slope=1 / temperature)


def fit_calibrator(logit: ArrayLike, label: ArrayLike, method: str) -> Calibrator:
    """Fit one method on the calibration split.

    Args:
        logit: Log-odds of class 1, shape (n,), finite.
        label: 0 or 1, shape (n,).
        method: "none", "temperature", "platt" or "isotonic".

    Raises:
        PredictionsError: A logit or label is not possible, only one class is present, or there is no such method.

    Example:
        >>> fit_calibrator([-2.0, -1.0, 1.0, 2.0], [0, 1, 0, 1], "temperature").method
        'temperature'
    """
    if method == "none":
        return Calibrator()
    if method == "temperature":
        return temperature_scaling(fit_temperature(logit, label))
    if method == "platt":
        slope, intercept = fit_platt(logit, label)
        return Calibrator(method="platt", slope=slope, values=(intercept,))
    if method == "isotonic":
        return fit_isotonic(logit, label)
    raise PredictionsError(
        f"calibration method {method!r}", expected="none, " + ", ".join(METHODS), remedy="use one of these"
    )


def fit_temperature(logit: ArrayLike, label: ArrayLike) -> float:
    """The temperature T at which sigmoid(logit / T) is most likely, on the calibration split. Guo et al. (2017).

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
    logits, labels = _both_classes(logit, label)
    signed = np.where(labels == 1, logits, -logits)

    def loss(log_temperature: float) -> float:
        return float(np.logaddexp(0, -signed / np.exp(log_temperature)).mean())

    from scipy.optimize import minimize_scalar  # here, as calibrated predictions need no fit

    found = minimize_scalar(
        loss, bounds=(np.log(COLDEST), np.log(HOTTEST)), method="bounded", options={"xatol": 1e-9, "maxiter": 200}
    )
    # The bounded search never tries its ends, where separable data have their optimum.
    best = min((1.0, float(np.exp(found.x)), COLDEST, HOTTEST), key=lambda temperature: loss(np.log(temperature)))
    return float(best)


def fit_platt(logit: ArrayLike, label: ArrayLike) -> tuple[float, float]:
    """Slope and intercept of the most likely sigmoid(slope * logit + intercept). Platt (1999), without his priors.

    Returns:
        The slope in [1/20, 20], so that the order of images stays and separable data end somewhere; the intercept.

    Raises:
        PredictionsError: A logit or label is not possible, or only one class is present.

    Example:
        >>> [round(number, 3) for number in fit_platt([-1.0, -1.0, -1.0, -1.0, 1.0, 1.0], [0, 0, 0, 1, 0, 1])]
        [0.549, -0.549]
    """
    logits, labels = _both_classes(logit, label)
    scale = max(float(np.abs(logits).mean()), 1e-12)  # the search goes best about 1
    scaled = logits / scale

    def loss(numbers: Floats) -> tuple[float, Floats]:
        line = numbers[0] * scaled + numbers[1]
        excess = (_sigmoid(line) - labels) / len(line)
        gradient = np.array([excess @ scaled, excess.sum()])
        return float((np.logaddexp(0, line) - labels * line).mean()), gradient

    from scipy.optimize import minimize

    found = minimize(
        loss,
        np.array([scale / fit_temperature(logits, labels), 0.0]),
        jac=True,
        method="L-BFGS-B",
        bounds=[(scale / HOTTEST, scale / COLDEST), (None, None)],
        options={"ftol": 1e-15, "gtol": 1e-9, "maxiter": 1000},
    )
    return float(np.clip(found.x[0] / scale, 1 / HOTTEST, 1 / COLDEST)), float(found.x[1])


def fit_isotonic(logit: ArrayLike, label: ArrayLike) -> Calibrator:
    """Isotonic regression of the label on the logit, centred so that it rises everywhere.

    Plain isotonic regression is a staircase: it gives all images of a step one probability, and 0 or 1 to the outer
    ones. Here each step keeps its share of positives at the mean of its logits, with straight lines in between
    (Oron & Flournoy 2017, "Centered isotonic regression"), and an outer step of n images all alike has the share
    0.5 / (n + 1) or 1 - that. Beyond the outer steps the logit goes on as temperature scaling of the same data would.

    Raises:
        PredictionsError: A logit or label is not possible, or only one class is present.

    Example:
        >>> fitted = fit_isotonic([-3.0, -2.0, -1.0, 1.0, 2.0, 3.0], [0, 0, 1, 0, 1, 1])
        >>> fitted.knots, fitted.apply(fitted.knots).round(3).tolist()
        ((-2.5, 0.0, 2.5), [0.167, 0.5, 0.833])
    """
    from scipy.optimize import isotonic_regression
    from scipy.special import logit as log_odds

    logits, labels = _both_classes(logit, label)
    levels, level = np.unique(logits, return_inverse=True)
    images = np.bincount(level).astype(np.float64)
    steps = isotonic_regression(np.bincount(level, weights=labels) / images, weights=images).x
    starts = np.concatenate(([0], np.flatnonzero(np.diff(steps) > 1e-12) + 1))
    size = np.add.reduceat(images, starts)
    centre = np.add.reduceat(images * levels, starts) / size
    share = np.asarray(steps, dtype=np.float64)[starts]
    if share[0] == 0:
        share[0] = min(0.5 / (size[0] + 1), share[1] / 2)
    if share[-1] == 1:
        share[-1] = 1 - min(0.5 / (size[-1] + 1), (1 - share[-2]) / 2)
    return Calibrator(
        method="isotonic",
        slope=1 / fit_temperature(logits, labels),
        knots=tuple(centre.tolist()),
        values=tuple(np.asarray(log_odds(share)).tolist()),
    )


def _sigmoid(logit: Floats) -> Floats:
    """1 / (1 + exp(-x)) without overflow; scipy.special has it too, but takes a fifth of a second to import."""
    small = np.exp(-np.abs(logit))
    return np.where(logit >= 0, 1, small) / (1 + small)


def _both_classes(logit: ArrayLike, label: ArrayLike) -> tuple[Floats, NDArray[np.int64]]:
    """Checked logits and labels."""
    logits, labels = _checked(logit), np.asarray(label)
    if labels.shape != logits.shape or not np.isin(labels, (0, 1)).all() or len(np.unique(labels)) < 2:
        raise PredictionsError(
            f"labels of shape {labels.shape} with values {', '.join(map(str, np.unique(labels)[:5])) or 'none'}",
            expected=f"both 0 and 1, one for each of the {len(logits)} logits",
            remedy="give the calibration split images of both classes",
        )
    return logits, labels.astype(np.int64)


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


# Which calibration to take, decided on the calibration split alone.


FOLDS = 5
#: Images, and images of the rarer class, from which on a method is worth trying. Isotonic regression overfits smaller
#: sets: Niculescu-Mizil & Caruana (2005), "Predicting good probabilities with supervised learning".
LEAST = {"temperature": (0, 0), "platt": (100, 20), "isotonic": (1000, 100)}


def choose_calibrator(
    logit: ArrayLike, label: ArrayLike, group: ArrayLike | None = None, *, method: str = "auto", seed: int = 0
) -> tuple[Calibrator, Choice]:
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
        The calibrator, fitted to all images, and for the record how it was chosen; the likelihoods are None unless
        compared.

    Raises:
        PredictionsError: A logit or label is not possible, or only one class is present.

    Example:
        >>> fitted, choice = choose_calibrator([-1.0, 2.0, -2.0, 1.0], [0, 0, 1, 1])
        >>> fitted.method, choice.why
        ('temperature', 'too few images to compare methods (4, of the rarer class 2)')
    """
    logits, labels = np.asarray(logit, dtype=np.float64), np.asarray(label)
    known = None if group is None else pd.Series(np.asarray(group, dtype=object))
    groups = None if known is None or known.isna().any() else known.factorize()[0]
    n_groups = None if groups is None else len(np.unique(groups))
    asked, compared, why = method, None, "the recipe asks for it"
    if method == "auto":
        method, compared, why = _compare(logits, labels, groups, seed)
    fitted = fit_calibrator(logits, labels, method)
    n = len(logits)
    return fitted, Choice(asked=asked, method=method, n=n, n_groups=n_groups, cross_validated_nll=compared, why=why)


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
    from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold  # takes long, and predicting needs none

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
