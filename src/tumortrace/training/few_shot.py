"""What the features of a frozen body are worth: how few labels they need, and how they lie beside each other."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
import torch
from sklearn.decomposition import PCA
from sklearn.linear_model import LogisticRegression
from sklearn.manifold import TSNE
from sklearn.preprocessing import StandardScaler
from torch import nn

from tumortrace.models.layers import build_head, with_classes
from tumortrace.training.learner import Row, measure, seed_of
from tumortrace.training.task import Patches

MAPPED = 1000  # images in the map
LEAST_MAPPED = 10
NEAREST = 5  # images that vote, of a few


def few_shot(training: Patches, validation: Patches, shots: Sequence[int], repeats: int, seed: int) -> pd.DataFrame:
    """Simple classifiers on a few images of each class, drawn anew each time, measured on the validation split.

    `logistic` regression; `prototype`, the nearest mean of a class (Snell et al. 2017); `knn`, the nearest 5 images, or
    as many as there are of a class. Features are standardised by all training images, whose labels that takes none of.
    Nothing is chosen by it.

    Args:
        training: Features of the training split.
        validation: Of the validation split.
        shots: Images of each class; more than there are of any are passed over.
        repeats: How often to draw.
        seed: Of the draws.

    Returns:
        A row for each draw and classifier: `shots`, `repeat`, `head`, and the metrics by name.
    """
    features = training.images.astype(np.float32)
    scale = StandardScaler().fit(features)
    kinds = training.kinds
    classes = [np.flatnonzero(kinds == kind) for kind in range(kinds.max() + 1)]
    rows = []
    for count in (count for count in shots if count <= min(map(len, classes))):
        for repeat in range(1, repeats + 1):
            draw = np.random.default_rng(seed_of(seed, count, repeat))
            chosen = np.concatenate([draw.choice(members, count, replace=False) for members in classes])
            drawn, known, positive = features[chosen], kinds[chosen], training.positive
            steps: list[Row] = [{"neighbours": min(NEAREST, count), "images": len(chosen)}]
            heads = {
                "logistic": fitted_logistic(scale, drawn, known, 1.0, positive),
                "prototype": prototypes(scale, drawn, known, positive),
                "knn": neighbours(scale, drawn, known, positive, steps),
            }
            for name, head in heads.items():
                row = {"shots": count, "repeat": repeat, "head": name}
                rows.append(row | measure(head, validation.images, validation.labels, validation.kinds))
    return pd.DataFrame(rows)


def feature_map(patches: Patches, seed: int) -> pd.DataFrame:
    """Images laid out in two dimensions so that those with like features lie close: `x`, `y`, `label`, `group`.

    Standardised features, their first 50 principal components, then t-SNE. van der Maaten and Hinton (2008). A sample
    of 1,000 images; empty for fewer than 10. Distances between far groups mean nothing. Labels may be NaN.

    Args:
        patches: Their features.
        seed: Of sample and layout.
    """
    count = len(patches.rows)
    if count < LEAST_MAPPED:
        return pd.DataFrame()
    rows = np.sort(np.random.default_rng(seed).choice(count, min(count, MAPPED), replace=False))
    features = StandardScaler().fit_transform(np.asarray(patches.images[rows], np.float32))
    parts = PCA(min(50, *features.shape), random_state=seed).fit_transform(features)
    layout = TSNE(perplexity=min(30, (len(rows) - 1) / 3), init="pca", random_state=seed).fit_transform(parts)
    groups = [None] * len(rows) if patches.groups is None else patches.groups[rows]
    x, y = layout.T.round(3)
    label = pd.Series(patches.labels[rows]).astype("Int64")
    return pd.DataFrame({"x": x, "y": y, "label": label if label.isna().any() else label.astype(int), "group": groups})


def fitted_logistic(
    scale: StandardScaler, features: np.ndarray, kinds: np.ndarray, penalty: float, positive: Sequence[bool] = ()
) -> nn.Module:
    """The regression on standardised features as one linear layer on plain ones.

    Args:
        scale: Of the features.
        features: float32, shape (N, D).
        kinds: The class of each, whole numbers from 0, shape (N,).
        penalty: scikit-learn's C.
        positive: Which of more than two classes are positive.
    """
    fitted = LogisticRegression(C=penalty, max_iter=2000).fit(scale.transform(features), kinds)
    return _linear(scale, fitted.coef_, fitted.intercept_, positive)


def prototypes(
    scale: StandardScaler, features: np.ndarray, kinds: np.ndarray, positive: Sequence[bool] = ()
) -> nn.Module:
    """The nearest mean of a class, whose logit is minus half the mean squared distance; see `fitted_logistic`."""
    scaled = scale.transform(features)
    means = np.stack([scaled[kinds == kind].mean(0) for kind in range(kinds.max() + 1)]) / np.sqrt(scaled.shape[1])
    weight, bias = means / np.sqrt(scaled.shape[1]), -(means**2).sum(1) / 2
    if not positive:
        weight, bias = weight[1:] - weight[:1], bias[1:] - bias[:1]
    return _linear(scale, weight, bias, positive)


def neighbours(
    scale: StandardScaler, features: np.ndarray, kinds: np.ndarray, positive: Sequence[bool], steps: list[Row]
) -> nn.Module:
    """The share of positives, or of each class, among the nearest; `steps` as `build_head` takes them."""
    head, layer = empty_head(features.shape[1], steps, positive)
    learnt = {"features": features, "labels": kinds, "mean": scale.mean_, "scale": scale.scale_}
    layer.load_state_dict({name: torch.from_numpy(np.asarray(value)) for name, value in learnt.items()})
    return head


def _linear(scale: StandardScaler, weight: np.ndarray, bias: np.ndarray, positive: Sequence[bool]) -> nn.Module:
    """A linear layer on standardised features as one on plain ones."""
    weight = weight / scale.scale_
    head, layer = empty_head(weight.shape[1], [], positive)
    layer.load_state_dict({"weight": torch.from_numpy(weight), "bias": torch.from_numpy(bias - weight @ scale.mean_)})
    return head


def empty_head(units: int, steps: list[Row], positive: Sequence[bool]) -> tuple[nn.Sequential, nn.Module]:
    """A head as `build_head` makes it, or of more than two classes, and its layer to be filled."""
    head = build_head(units, steps)
    if not positive:
        return head, head[-1]
    head = with_classes(head, positive)
    return head, head[-2]
