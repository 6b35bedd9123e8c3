"""Classifiers of scikit-learn: by name, as candidates of a search, as tensors, and what features matter to them."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from joblib import cpu_count, parallel_config
from sklearn.ensemble import BaggingClassifier, HistGradientBoostingClassifier, RandomForestClassifier
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import ParameterGrid, ParameterSampler
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.tree import DecisionTreeClassifier

from tumortrace.errors import RecipeError
from tumortrace.models.families.texture import Linear, Texture, Trees, TreesSize
from tumortrace.records.progress import track
from tumortrace.records.tables import FEATURE_IMPORTANCES, IMPORTANCES
from tumortrace.training.distributions import Range, parse_distribution
from tumortrace.training.learner import Row
from tumortrace.training.options import Classifier

#: Parameters that do not belong to a recipe: the seed is the run's, and features are numbers.
_OURS = {"random_state", "n_jobs", "verbose", "warm_start", "categorical_features", "estimator"}


def build_classifier(name: str, seed: int) -> Pipeline:
    """An unfitted pipeline whose last step, `learner`, is the classifier.

    Example:
        >>> build_classifier("logistic", 0).named_steps["learner"]
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


def candidates(learner: Classifier, seed: int) -> list[Row]:
    """The parameters of each candidate of a search.

    Raises:
        RecipeError: The classifier has no such parameter.

    Example:
        >>> candidates(Classifier(name="tree", parameters={"max_depth": [2, 4], "min_samples_leaf": 5}), 0)
        [{'max_depth': 2, 'min_samples_leaf': 5}, {'max_depth': 4, 'min_samples_leaf': 5}]
    """
    known = sorted(set(build_classifier(learner.name, 0)["learner"].get_params()) - _OURS)
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

    def __init__(self, name: str, form: Row) -> None:
        drawn = parse_distribution(name, form)
        assert isinstance(drawn, Range)
        self.range = drawn

    def rvs(self, random_state: np.random.RandomState) -> float:
        low, high, step = self.range.low, self.range.high, self.range.step or (1 if self.range.whole else None)
        if self.range.log:
            value = math.exp(random_state.uniform(math.log(low), math.log(high)))
            return round(value) if self.range.whole else value
        if step is not None:
            value = low + step * random_state.randint(int((high - low) / step + 1e-9) + 1)
            return int(value) if self.range.whole else value
        return float(random_state.uniform(low, high))


def fit_classifier(
    learner: Classifier, values: Row, features: np.ndarray, labels: np.ndarray, *, balanced: bool, seed: int
) -> tuple[Pipeline, bool]:
    """A fitted pipeline, and whether its iterations converged. It computes on all cores.

    Args:
        learner: Which classifier.
        values: Its parameters.
        features: float32, shape (N, D).
        labels: The class of each image, whole numbers from 0, shape (N,).
        balanced: Whether all classes weigh alike.
        seed: Of what it draws.

    Raises:
        RecipeError: A parameter's value is not valid.
    """
    pipeline = build_classifier(learner.name, seed)
    kinds = labels.astype(np.int64)
    shares = np.bincount(kinds) / len(kinds)
    exact = features.astype(np.float64) if learner.name == "logistic" else features
    weights = (1 / (len(shares) * shares))[kinds] if balanced else None
    with warnings.catch_warnings(record=True) as caught, parallel_config("threading", n_jobs=cpu_count()):
        warnings.simplefilter("always", ConvergenceWarning)
        try:
            pipeline.set_params(**{f"learner__{name}": value for name, value in values.items()})
            pipeline.fit(exact, kinds, learner__sample_weight=weights)
        except (ValueError, TypeError) as error:
            reason = str(error).strip().splitlines()[0]
            raise RecipeError(reason, where="learner.parameters", remedy=f"give other values than {values}") from error
    return pipeline, not any(issubclass(warning.category, ConvergenceWarning) for warning in caught)


def keep(pipeline: Pipeline, images: int, units: int) -> Linear | Trees:
    """The same classifier as a layer of model `texture`: float32 features to logits.

    A threshold becomes the next float32 below, which parts float32 features exactly as scikit-learn does.

    Args:
        pipeline: What `fit_classifier` gave.
        images: Training images.
        units: Features D.
    """
    fitted = pipeline["learner"]
    classes = len(fitted.classes_) if len(fitted.classes_) > 2 else 0
    if isinstance(fitted, LogisticRegression):
        linear = Linear(units, len(fitted.coef_))
        state = {"mean": pipeline["scale"].mean_, "scale": pipeline["scale"].scale_}
        state |= {"weigh.weight": fitted.coef_, "weigh.bias": fitted.intercept_}
        linear.load_state_dict({name: torch.from_numpy(value).float() for name, value in state.items()})
        return linear
    if isinstance(fitted, HistGradientBoostingClassifier):
        parts = [_boosted(tree.nodes) for trees in fitted._predictors for tree in trees]
        for index, start in enumerate(np.ravel(fitted._baseline_prediction)):
            parts[index]["value"] = parts[index]["value"] + float(start)
        if classes:  # the trees of a round are one for each class, whose logit alone they change
            for index, part in enumerate(parts):
                part["value"] = part["value"][:, None] * np.eye(classes)[index % classes]
        depth = max(int(tree.nodes["depth"].max()) for trees in fitted._predictors for tree in trees)
        return _joined(parts, depth, None, units, classes)
    members = _members(fitted, units)
    parts = [_grown(tree, columns, classes) for tree, columns in members]
    return _joined(parts, max(tree.tree_.max_depth for tree, _ in members), images, units, classes)


def column_importances(pipeline: Pipeline, units: int) -> np.ndarray:
    """What each feature matters to a fitted classifier: float64, shape (D,), sum 1 (or all 0).

    Logistic regression: size of the coefficient on the standardised feature, of more than two classes their mean.
    Trees: how much splits on the feature lower the Gini impurity, as scikit-learn's `feature_importances_`; of bagging
    the mean over its trees. Boosting: sum of the gain of splits on the feature.
    """
    fitted = pipeline["learner"]
    weights = np.zeros(units)
    if isinstance(fitted, LogisticRegression):
        weights = np.abs(fitted.coef_).mean(0)
    elif isinstance(fitted, HistGradientBoostingClassifier):
        for predictor in (tree for trees in fitted._predictors for tree in trees):
            splits = predictor.nodes[predictor.nodes["is_leaf"] == 0]
            np.add.at(weights, splits["feature_idx"], splits["gain"])
    else:
        members = _members(fitted, units)
        for tree, columns in members:
            weights[columns] += tree.feature_importances_ / len(members)
    return weights / weights.sum() if weights.sum() > 0 else weights


def _members(fitted: Any, units: int) -> list[tuple[DecisionTreeClassifier, np.ndarray]]:
    """The trees of a classifier, each with the columns that it sees."""
    if isinstance(fitted, BaggingClassifier):
        return list(zip(fitted.estimators_, fitted.estimators_features_, strict=True))
    trees = fitted.estimators_ if isinstance(fitted, RandomForestClassifier) else [fitted]
    return [(tree, np.arange(units)) for tree in trees]


def _grown(tree: DecisionTreeClassifier, columns: np.ndarray, classes: int) -> dict[str, np.ndarray]:
    """Nodes of a tree, with shares of positives, or of each class; a sample that lacks a class has no column of it."""
    nodes = tree.tree_
    leaf = nodes.children_left < 0
    itself = np.arange(nodes.node_count)
    weight = nodes.value[:, 0, :]
    share = weight / weight.sum(1, keepdims=True)
    if classes:
        value = np.zeros((len(share), classes))
        value[:, tree.classes_.astype(int)] = share
    else:
        value = (weight * (tree.classes_ == 1)).sum(1) / weight.sum(1)
    return {
        "feature": columns[np.where(leaf, 0, nodes.feature)],
        "threshold": nodes.threshold,
        "left": np.where(leaf, itself, nodes.children_left),
        "right": np.where(leaf, itself, nodes.children_right),
        "value": value,
    }


def _boosted(nodes: np.ndarray) -> dict[str, np.ndarray]:
    leaf, itself = nodes["is_leaf"] == 1, np.arange(len(nodes))
    return {
        "feature": nodes["feature_idx"],
        "threshold": nodes["num_threshold"],
        "left": np.where(leaf, itself, nodes["left"]),
        "right": np.where(leaf, itself, nodes["right"]),
        "value": nodes["value"],
    }


def _joined(parts: Sequence[dict[str, np.ndarray]], depth: int, images: int | None, units: int, classes: int) -> Trees:
    """The nodes of all trees in one row."""
    sizes = [len(part["value"]) for part in parts]
    starts = np.cumsum([0, *sizes[:-1]])
    whole = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    offset = np.repeat(starts, sizes)
    threshold = whole["threshold"].astype(np.float32)
    below = np.nextafter(threshold, np.float32(-np.inf))
    state = {
        "roots": starts.astype(np.int32),
        "feature": whole["feature"].astype(np.int32),
        "left": (whole["left"] + offset).astype(np.int32),
        "right": (whole["right"] + offset).astype(np.int32),
        "threshold": np.where(threshold > whole["threshold"], below, threshold),
        "value": whole["value"].astype(np.float32),
    }
    trees = Trees(units, TreesSize(trees=len(parts), nodes=len(offset), depth=depth, images=images), classes)
    trees.load_state_dict({name: torch.from_numpy(value) for name, value in state.items()})
    return trees


SHUFFLES = 20
_IMAGES = 2000  # shuffled at most: more of them sharpen the means no further than can be seen


def write_importances(
    folder: Path,
    pipeline: Pipeline,
    network: Texture,
    features: np.ndarray,
    labels: np.ndarray,
    positive: Sequence[bool] = (),
    *,
    seed: int,
) -> None:
    """Write `importances.csv`, a row per descriptor, and `feature_importances.csv`, a row per feature.

    `importance` is the feature's share of what `column_importances` finds, or the descriptor's, a sum over its
    features. `auroc_fall` is how much the AUROC falls where a descriptor's features are shuffled among the images, all
    in the same order (Breiman 2001, "Random forests"): mean of 20 shuffles, with the range of the middle 95 % of them.
    Descriptors that say the same can stand in for each other, and then all of them fall little.

    Args:
        folder: Where to.
        pipeline: As scikit-learn fitted it.
        network: Whose descriptors the features are.
        features: float32, shape (N, D): of the validation split.
        labels: 0 or 1, shape (N,).
        positive: Of more than two classes those that label 1 stands for.
        seed: Of the shuffles.
    """
    chosen = np.array(positive or (False, True))
    owner = [name for name, columns in network.body.columns.items() for _ in columns]
    names = [name for columns in network.body.columns.values() for name in columns]
    share = column_importances(pipeline, len(names))
    table = pd.DataFrame({"feature": names, "descriptor": owner, "importance": share})
    FEATURE_IMPORTANCES.write(folder, table.sort_values("importance", ascending=False, kind="stable"))

    def predict(rows: np.ndarray) -> np.ndarray:
        return np.asarray(pipeline.predict_proba(rows)[:, chosen].sum(1))

    falls = shuffled_falls(predict, features, labels, np.array(owner), seed)
    whole = table.groupby("descriptor", sort=False)["importance"].agg(features="size", importance="sum")
    whole = whole.join(falls).reset_index()
    IMPORTANCES.write(folder, whole.sort_values("auroc_fall", ascending=False, kind="stable"))


def shuffled_falls(
    predict: Callable[[np.ndarray], np.ndarray], features: np.ndarray, labels: np.ndarray, owner: np.ndarray, seed: int
) -> pd.DataFrame:
    """How much the AUROC falls where all features of one owner are shuffled among the images.

    Args:
        predict: From features, shape (n, D), to scores, shape (n,), larger for positives.
        features: float32, shape (N, D).
        labels: 0 or 1, shape (N,), both of them there.
        owner: Descriptor of each feature, shape (D,).
        seed: Of the shuffles.

    Returns:
        A row per descriptor: `auroc_fall`, `auroc_fall_low`, `auroc_fall_high`.

    Example:
        >>> features, labels = np.array([[0.0, 5.0], [1.0, 5.0]]), np.array([0, 1])
        >>> falls = shuffled_falls(lambda rows: rows[:, 0], features, labels, np.array(["one", "other"]), 0)
        >>> float(falls.loc["other", "auroc_fall"]), bool(falls.loc["one", "auroc_fall"] > 0)
        (0.0, True)
    """
    random = np.random.default_rng(seed)
    rows = np.sort(random.permutation(len(labels))[:_IMAGES])
    features, labels = np.array(features[rows]), labels[rows]
    orders = [random.permutation(len(rows)) for _ in range(SHUFFLES)]
    before = roc_auc_score(labels, predict(features))
    changes = {}
    for name in track(list(dict.fromkeys(owner)), "importances"):
        columns = np.flatnonzero(owner == name)
        kept = features[:, columns].copy()
        falls = []
        for order in orders:
            features[:, columns] = kept[order]
            falls.append(before - roc_auc_score(labels, predict(features)))
        features[:, columns] = kept
        changes[name] = (np.mean(falls), *np.quantile(falls, (0.025, 0.975)))
    return pd.DataFrame.from_dict(
        changes, orient="index", columns=["auroc_fall", "auroc_fall_low", "auroc_fall_high"], dtype=float
    )
