"""Figures of more than two classes, and which of them can be watched while a model is being made."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from tumortrace.evaluation.tally import Floats, ratio
from tumortrace.records.metrics import ClassMetrics, Estimate

TINY = 1e-12  # least probability of which the log-likelihood is taken


@dataclass(frozen=True)
class ClassMeasure:
    """A metric of all classes together that follows from how often each is taken for each.

    Attributes:
        name: In records.
        title: For people.
        value: Of counts, shape (..., K, K), rows the true class and columns the predicted one: shape (...), NaN where
            it is not defined.
        bounds: Least and greatest value.
        ordered: Whether it is of classes that have an order alone.
    """

    name: str
    title: str
    value: Callable[[Floats], Floats]
    bounds: tuple[float, float] = (0.0, 1.0)
    ordered: bool = False


def balanced_accuracy(counts: Floats) -> Floats:
    """Mean over the classes that have images of the share called rightly."""
    return _nanmean(ratio(diagonal(counts), counts.sum(-1)))


def macro_f1(counts: Floats) -> Floats:
    """Mean F1 over the classes that are there or were predicted."""
    return _nanmean(_f1(counts))


def weighted_f1(counts: Floats) -> Floats:
    """F1 weighted by how many images each class has."""
    support = counts.sum(-1)
    return ratio((support * np.nan_to_num(_f1(counts))).sum(-1), support.sum(-1))


def kappa(counts: Floats, power: int = 0) -> Floats:
    """Agreement beyond chance (Cohen 1960), disagreement weighing 1, or with `power` 2 the square of its distance.

    Example:
        >>> float(kappa(np.array([[20.0, 5.0], [10.0, 15.0]])).round(3))
        0.4
    """
    places = np.arange(counts.shape[-1])
    apart = np.abs(places[:, None] - places)
    weight = (apart > 0).astype(np.float64) if not power else apart.astype(np.float64) ** power
    total = counts.sum((-2, -1))
    chance = counts.sum(-1)[..., :, None] * counts.sum(-2)[..., None, :]
    return 1 - ratio((weight * counts).sum((-2, -1)) * total, (weight * chance).sum((-2, -1)))


CLASS_MEASURES = {
    row.name: row
    for row in (
        ClassMeasure("balanced_accuracy", "Balanced accuracy", balanced_accuracy),
        ClassMeasure("macro_f1", "F1, mean of classes", macro_f1),
        ClassMeasure("weighted_f1", "F1, weighted by images", weighted_f1),
        ClassMeasure("kappa", "Cohen's kappa", kappa, (-1.0, 1.0)),
        ClassMeasure(
            "quadratic_kappa", "Quadratic kappa", lambda counts: kappa(counts, power=2), (-1.0, 1.0), ordered=True
        ),
    )
}

BOUNDS = {row.name: row.bounds for row in CLASS_MEASURES.values()}

#: Titles of what `evaluate_classes` gives beside `CLASS_MEASURES`.
TITLES = {
    "accuracy": "Accuracy",
    "macro_auroc": "AUROC one against the rest, mean of classes",
    "nll": "Log loss",
    "top_label_ece": "Calibration error of the predicted class",
    "classwise_ece": "Calibration error, mean of classes",
    "set_coverage": "Prediction sets that hold the true class",
    "set_size": "Classes in a prediction set",
} | {name: row.title for name, row in CLASS_MEASURES.items()}

PREFIX = "class_"
#: What can be watched on a validation split of more than two classes, by its name, with its title.
WATCHED = {"class_loss": "Log loss of all classes"} | {
    f"{PREFIX}{name}": TITLES[name]
    for name in ("accuracy", "macro_auroc", *(row.name for row in CLASS_MEASURES.values() if not row.ordered))
}


def watched(classes: ClassMetrics) -> dict[str, Estimate]:
    """What is measured of K classes with intervals, under the names of `WATCHED`."""
    return {name: classes["nll" if name == "class_loss" else name.removeprefix(PREFIX)] for name in WATCHED}


def class_scores(probability: Floats, kinds: NDArray[np.int64]) -> dict[str, float | None]:
    """What `WATCHED` names, without intervals; the predicted class is the likeliest.

    Args:
        probability: Of each of K classes, shape (N, K), sum 1.
        kinds: The class of each, in [0, K), shape (N,).

    Returns:
        By name; None where one is not defined.

    Example:
        >>> scores = class_scores(np.array([[0.6, 0.3, 0.1], [0.2, 0.5, 0.3], [0.5, 0.1, 0.4]]), np.array([0, 1, 2]))
        >>> scores["class_accuracy"], scores["class_macro_auroc"]
        (0.6666666666666666, 1.0)
    """
    counts = np.zeros((probability.shape[1],) * 2)
    np.add.at(counts, (kinds, probability.argmax(1)), 1)
    likelihood = probability[np.arange(len(kinds)), kinds]
    values = {"loss": -np.log(np.clip(likelihood, TINY, 1)).mean(), "accuracy": accuracy(counts)}
    values["macro_auroc"] = np.mean([_auroc(column, kinds == kind) for kind, column in enumerate(probability.T)])
    values |= {row.name: row.value(counts) for row in CLASS_MEASURES.values() if not row.ordered}
    numbers = {f"{PREFIX}{name}": float(value) for name, value in values.items()}
    return {name: number if np.isfinite(number) else None for name, number in numbers.items()}


def accuracy(counts: Floats) -> Floats:
    """Share called rightly."""
    return ratio(diagonal(counts).sum(-1), counts.sum((-2, -1)))


def _auroc(values: Floats, positive: NDArray[np.bool_]) -> float:
    """Of one class against the rest; NaN without both (Mann & Whitney 1947)."""
    number, rest = int(positive.sum()), int((~positive).sum())
    if not number or not rest:
        return float("nan")
    return float((pd.Series(values).rank().to_numpy()[positive].sum() - number * (number + 1) / 2) / (number * rest))


def diagonal(counts: Floats) -> Floats:
    """How often each class is taken for itself."""
    return np.asarray(np.diagonal(counts, axis1=-2, axis2=-1))


def _f1(counts: Floats) -> Floats:
    """Of each class, NaN where it is neither there nor predicted."""
    return ratio(2 * diagonal(counts), counts.sum(-1) + counts.sum(-2))


def _nanmean(values: Floats) -> Floats:
    defined = ~np.isnan(values)
    return ratio(np.where(defined, values, 0).sum(-1), defined.sum(-1))
