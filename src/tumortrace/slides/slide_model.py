"""A slide score that is learnt: a logistic model on features of the map, calibrated as models of patches are."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedGroupKFold
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler

from tumortrace.errors import PredictionsError, RunError
from tumortrace.evaluation.calibration import Calibrator, choose_calibrator
from tumortrace.evaluation.conformal import Conformal, decide, fit_conformal
from tumortrace.evaluation.thresholds import fit_threshold
from tumortrace.records.slides import FittedScore, Weight
from tumortrace.slides.map_features import FEATURES

Floats = NDArray[np.float64]
PENALTIES = tuple(float(10.0**power) for power in np.arange(-3, 1.5, 0.5))
"""Inverse strengths of the L2 penalty that are compared."""
USUAL, FOLDS = 0.1, 5


def fit_score(
    table: pd.DataFrame, *, policy: str = "f1", coverage: float | None = 0.9, method: str = "auto", seed: int = 0
) -> FittedScore:
    """Learn a score from slides.

    Features are standardised and summed with weights that a logistic regression finds under an L2 penalty; its strength
    is the one of least cross-validated log loss, folds keeping patients together, on the training split alone. The
    calibration split then gives calibration, threshold and conformal quantiles.

    Args:
        table: A row for each slide: `label` (0 or 1), `group` (patient), `split` (`train` and `calibration` are used)
            and the columns of `FEATURES`.
        policy: That chooses the threshold; see `fit_threshold`.
        coverage: Of each class by its prediction sets; None refers nothing.
        method: Of calibration; see `choose_calibrator`.
        seed: Of the folds.

    Raises:
        PredictionsError: A split has slides of one class alone.
    """
    train, calibration = (table[table["split"] == name] for name in ("train", "calibration"))
    for name, part in (("training", train), ("calibration", calibration)):
        if part["label"].nunique() < 2:
            raise PredictionsError(
                f"{len(part)} slides of {part['label'].nunique()} class to learn from in the {name} split",
                expected="slides of both classes",
                remedy="give more slides, or say in a column split which serve what (train, calibration, test)",
            )
    features, label = train[list(FEATURES)].to_numpy(np.float64), train["label"].to_numpy(np.int64)
    penalty, why = choose_penalty(features, label, train["group"].to_numpy(), seed)
    model = _model(penalty).fit(features, label)
    scaler, regression = model[0], model[1]
    fitted = FittedScore(
        features=[
            Weight(name=name, mean=float(mean), deviation=float(deviation), weight=float(weight))
            for name, mean, deviation, weight in zip(
                FEATURES, scaler.mean_, scaler.scale_, regression.coef_[0], strict=True
            )
        ],
        intercept=float(regression.intercept_[0]),
        penalty=penalty,
        chosen=why,
        slides=len(train),
        patients=int(train["group"].nunique()),
        threshold=0.5,
    )
    label, group = calibration["label"].to_numpy(np.int64), calibration["group"].to_numpy()
    logit = logits(fitted, calibration)
    wholly = method == "auto" and bool(logit[label == 1].min() > logit[label == 0].max())
    calibrator, choice = choose_calibrator(logit, label, group, method="none" if wholly else method, seed=seed)
    if wholly:  # temperature would sharpen without end, on the word of a few slides
        why = "the calibration slides are told apart wholly, so that nothing says how much surer to be"
        choice = choice.model_copy(update={"asked": method, "why": why})
    probability = calibrator.apply(logit)
    conformal = None if coverage is None else fit_conformal(label, probability, coverage, group)
    found: dict[str, Any] = {
        "calibration": calibrator.model_dump(mode="json"),
        "choice": choice,
        "threshold": fit_threshold(label, probability, policy),
        "threshold_policy": f"{policy} on the calibration split",
        "conformal": None if conformal is None else conformal.model_dump(mode="json"),
    }
    return FittedScore.model_validate(fitted.model_dump() | found)


def choose_penalty(features: Floats, label: NDArray[np.int64], group: NDArray[Any], seed: int = 0) -> tuple[float, str]:
    """The inverse strength of the penalty of least log loss on patients left out, and why; of equals the strongest."""
    patients = pd.DataFrame({"label": label, "group": group}).groupby("label")["group"].nunique()
    folds = min(FOLDS, int(patients.min()))
    if folds < 2:
        return USUAL, f"too few patients to compare penalties ({len(set(group))})"
    cut = StratifiedGroupKFold(folds, shuffle=True, random_state=seed)
    parts = [(fit, held) for fit, held in cut.split(features, label, group) if len(set(label[fit])) == 2 and len(held)]
    if not parts:
        return USUAL, "too few patients of one class to compare penalties"
    losses = [
        np.concatenate(
            [
                _losses(_model(penalty).fit(features[fit], label[fit]), features[held], label[held])
                for fit, held in parts
            ]
        ).mean()
        for penalty in PENALTIES
    ]
    return PENALTIES[int(np.argmin(np.round(losses, 9)))], f"least log loss of patients left out, {len(parts)} folds"


def _losses(model: Pipeline, features: Floats, label: NDArray[np.int64]) -> Floats:
    score = model.decision_function(features)
    return np.logaddexp(0, np.where(label == 1, -score, score))


def _model(penalty: float) -> Pipeline:
    return make_pipeline(StandardScaler(), LogisticRegression(C=penalty, max_iter=10_000))


def logits(fitted: FittedScore, table: pd.DataFrame) -> Floats:
    """The sum of a score for each slide, before calibration.

    Raises:
        RunError: The score has a feature that this version does not know.
    """
    unknown = [row.name for row in fitted.features if row.name not in table]
    if unknown:
        raise RunError(f"a score with the feature {unknown[0]!r}", expected="features of this version's maps")
    total = np.full(len(table), fitted.intercept)
    for row in fitted.features:
        total += row.weight * (table[row.name].to_numpy(np.float64) - row.mean) / row.deviation
    return total


def apply_score(fitted: FittedScore, table: pd.DataFrame) -> pd.DataFrame:
    """The table with `logit`, `probability`, `prediction` and `decision` of each slide."""
    logit = logits(fitted, table)
    probability = Calibrator.model_validate(fitted.calibration).apply(logit)
    conformal = None if fitted.conformal is None else Conformal.model_validate(fitted.conformal)
    return table.assign(
        logit=logit,
        probability=probability,
        prediction=(probability >= fitted.threshold).astype(int),
        decision=decide(probability, fitted.threshold, None if conformal is None else conformal.quantiles),
    )
