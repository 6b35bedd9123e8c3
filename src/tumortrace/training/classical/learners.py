"""Classifiers of scikit-learn by the names that recipes give them, and the candidates of a search."""

from __future__ import annotations

import math
import warnings
from typing import Any

import numpy as np
from joblib import cpu_count, parallel_config
from sklearn.ensemble import BaggingClassifier, HistGradientBoostingClassifier, RandomForestClassifier
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import ParameterGrid, ParameterSampler
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.tree import DecisionTreeClassifier

from tumortrace.errors import RecipeError
from tumortrace.training.distributions import Range, parse_distribution
from tumortrace.training.options import Learner

#: Parameters that do not belong to a recipe: the seed is the run's, and features are numbers.
_OURS = {"random_state", "n_jobs", "verbose", "warm_start", "categorical_features", "estimator"}


def build_learner(name: str, seed: int) -> Pipeline:
    """An unfitted pipeline whose last step, `learner`, is the classifier.

    Example:
        >>> build_learner("logistic", 0).named_steps["learner"]
        LogisticRegression(max_iter=1000, random_state=0)
    """
    if name == "logistic":
        classifier = LogisticRegression(max_iter=1000, random_state=seed)
        return Pipeline([("scale", StandardScaler()), ("learner", classifier)])
    trees = {
        "tree": DecisionTreeClassifier(random_state=seed),
        "bagging": BaggingClassifier(DecisionTreeClassifier(), random_state=seed),
        "forest": RandomForestClassifier(random_state=seed),
        "boosting": HistGradientBoostingClassifier(random_state=seed, early_stopping=False),
    }
    return Pipeline([("learner", trees[name])])


def candidates(learner: Learner, seed: int) -> list[dict[str, Any]]:
    """The parameters of each candidate of a search.

    Raises:
        RecipeError: The classifier has no such parameter.

    Example:
        >>> candidates(Learner(name="tree", parameters={"max_depth": [2, 4], "min_samples_leaf": 5}), 0)
        [{'max_depth': 2, 'min_samples_leaf': 5}, {'max_depth': 4, 'min_samples_leaf': 5}]
    """
    known = sorted(set(build_learner(learner.name, 0)["learner"].get_params()) - _OURS)
    for name in learner.parameters:
        if name not in known:
            raise RecipeError(
                f"{learner.name} has no parameter {name!r}", where="learner.parameters", expected=", ".join(known)
            )
    given = {name: value if isinstance(value, list | dict) else [value] for name, value in learner.parameters.items()}
    if learner.search == "grid":
        return list(ParameterGrid(given))
    drawn = {name: _Drawn(name, value) if isinstance(value, dict) else value for name, value in given.items()}
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="The total space of parameters")  # then all of it is tried
        return list(ParameterSampler(drawn, learner.trials, random_state=seed))


class _Drawn:
    """A range as scikit-learn draws from it."""

    def __init__(self, name: str, form: dict[str, Any]) -> None:
        found = parse_distribution(name, form)
        assert isinstance(found, Range)
        self.range = found

    def rvs(self, random_state: np.random.RandomState) -> float:
        low, high, step = self.range.low, self.range.high, self.range.step or (1 if self.range.whole else None)
        if self.range.log:
            value = math.exp(random_state.uniform(math.log(low), math.log(high)))
            return round(value) if self.range.whole else value
        if step is not None:
            value = low + step * random_state.randint(int((high - low) / step + 1e-9) + 1)
            return int(value) if self.range.whole else value
        return float(random_state.uniform(low, high))


def fit_learner(
    learner: Learner, values: dict[str, Any], features: np.ndarray, labels: np.ndarray, *, balanced: bool, seed: int
) -> tuple[Pipeline, bool]:
    """A fitted pipeline, and whether its iterations converged. It computes on all cores.

    Args:
        learner: Which classifier.
        values: Its parameters.
        features: float32, shape (N, D).
        labels: 0 or 1, shape (N,).
        balanced: Whether both classes weigh alike.
        seed: Of what it draws.

    Raises:
        RecipeError: A parameter's value is not valid.
    """
    pipeline = build_learner(learner.name, seed)
    share = labels.mean()
    exact = features.astype(np.float64) if learner.name == "logistic" else features
    weights = np.where(labels == 1, 0.5 / share, 0.5 / (1 - share)) if balanced else None
    with warnings.catch_warnings(record=True) as caught, parallel_config("threading", n_jobs=cpu_count()):
        warnings.simplefilter("always", ConvergenceWarning)
        try:
            pipeline.set_params(**{f"learner__{name}": value for name, value in values.items()})
            pipeline.fit(exact, labels.astype(np.int64), learner__sample_weight=weights)
        except (ValueError, TypeError) as error:
            reason = str(error).strip().splitlines()[0]
            raise RecipeError(reason, where="learner.parameters", remedy=f"give other values than {values}") from error
    return pipeline, not any(issubclass(each.category, ConvergenceWarning) for each in caught)
