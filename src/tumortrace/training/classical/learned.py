"""What scikit-learn has fitted, as plain tensors, and what each feature matters to it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from sklearn.ensemble import BaggingClassifier, HistGradientBoostingClassifier, RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline
from sklearn.tree import DecisionTreeClassifier

from tumortrace.models.families.texture import Linear, Trees, TreesSize


def keep(pipeline: Pipeline, images: int, units: int) -> Linear | Trees:
    """The same classifier as a layer of model `texture`: float32 features to logits.

    A threshold becomes the next float32 below, which parts float32 features exactly as scikit-learn does.

    Args:
        pipeline: What `fit_learner` gave.
        images: Training images.
        units: Features D.
    """
    fitted = pipeline["learner"]
    if isinstance(fitted, LogisticRegression):
        linear = Linear(units)
        state = {"mean": pipeline["scale"].mean_, "scale": pipeline["scale"].scale_}
        state |= {"weigh.weight": fitted.coef_, "weigh.bias": fitted.intercept_}
        linear.load_state_dict({name: torch.from_numpy(value).float() for name, value in state.items()})
        return linear
    if isinstance(fitted, HistGradientBoostingClassifier):
        parts = [_boosted(each[0].nodes) for each in fitted._predictors]
        parts[0]["value"] = parts[0]["value"] + float(fitted._baseline_prediction.item())
        depth = max(int(each[0].nodes["depth"].max()) for each in fitted._predictors)
        return _joined(parts, depth, None, units)
    members = _members(fitted, units)
    parts = [_grown(tree, columns) for tree, columns in members]
    return _joined(parts, max(tree.tree_.max_depth for tree, _ in members), images, units)


def column_importances(pipeline: Pipeline, units: int) -> np.ndarray:
    """What each feature matters to a fitted classifier: float64, shape (D,), sum 1 (or all 0).

    Logistic regression: size of the coefficient on the standardised feature. Trees: how much splits on the feature
    lower the Gini impurity, as scikit-learn's `feature_importances_`; of bagging the mean over its trees. Boosting: sum
    of the gain of splits on the feature.
    """
    fitted = pipeline["learner"]
    found = np.zeros(units)
    if isinstance(fitted, LogisticRegression):
        found = np.abs(fitted.coef_[0])
    elif isinstance(fitted, HistGradientBoostingClassifier):
        for (predictor,) in fitted._predictors:
            splits = predictor.nodes[predictor.nodes["is_leaf"] == 0]
            np.add.at(found, splits["feature_idx"], splits["gain"])
    else:
        members = _members(fitted, units)
        for tree, columns in members:
            found[columns] += tree.feature_importances_ / len(members)
    return found / found.sum() if found.sum() > 0 else found


def _members(fitted: Any, units: int) -> list[tuple[DecisionTreeClassifier, np.ndarray]]:
    """The trees of a classifier, each with the columns that it sees."""
    if isinstance(fitted, BaggingClassifier):
        return list(zip(fitted.estimators_, fitted.estimators_features_, strict=True))
    trees = fitted.estimators_ if isinstance(fitted, RandomForestClassifier) else [fitted]
    return [(tree, np.arange(units)) for tree in trees]


def _grown(tree: DecisionTreeClassifier, columns: np.ndarray) -> dict[str, np.ndarray]:
    """Nodes of a tree; a sample of one class alone has made a tree with one column of shares."""
    nodes = tree.tree_
    leaf = nodes.children_left < 0
    own = np.arange(nodes.node_count)
    weight = nodes.value[:, 0, :] * (tree.classes_ == 1)
    return {
        "feature": columns[np.where(leaf, 0, nodes.feature)],
        "threshold": nodes.threshold,
        "left": np.where(leaf, own, nodes.children_left),
        "right": np.where(leaf, own, nodes.children_right),
        "value": weight.sum(1) / nodes.value[:, 0, :].sum(1),
    }


def _boosted(nodes: np.ndarray) -> dict[str, np.ndarray]:
    leaf, own = nodes["is_leaf"] == 1, np.arange(len(nodes))
    return {
        "feature": nodes["feature_idx"],
        "threshold": nodes["num_threshold"],
        "left": np.where(leaf, own, nodes["left"]),
        "right": np.where(leaf, own, nodes["right"]),
        "value": nodes["value"],
    }


def _joined(parts: Sequence[dict[str, np.ndarray]], depth: int, images: int | None, units: int) -> Trees:
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
    trees = Trees(units, TreesSize(trees=len(parts), nodes=len(offset), depth=depth, images=images))
    trees.load_state_dict({name: torch.from_numpy(value) for name, value in state.items()})
    return trees
