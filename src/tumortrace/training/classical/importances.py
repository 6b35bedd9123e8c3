"""What the features matter to a fitted learner, by its own account and by shuffling whole descriptors."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
from sklearn.metrics import roc_auc_score
from sklearn.pipeline import Pipeline

from tumortrace.models.families.texture import Texture
from tumortrace.records.files import write_csv
from tumortrace.records.progress import track
from tumortrace.training.classical.learned import column_importances

REPEATS = 20
_IMAGES = 2000  # shuffled at most: more of them sharpen the means no further than can be seen


def write_importances(
    folder: Path, pipeline: Pipeline, network: Texture, features: np.ndarray, labels: np.ndarray, *, seed: int
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
        seed: Of the shuffles.
    """
    owner = [name for name, columns in network.body.columns.items() for _ in columns]
    names = [each for columns in network.body.columns.values() for each in columns]
    share = column_importances(pipeline, len(names))
    table = pd.DataFrame({"feature": names, "descriptor": owner, "importance": share})
    write_csv(folder / "feature_importances.csv", table.sort_values("importance", ascending=False, kind="stable"))
    falls = shuffled_falls(lambda each: pipeline.predict_proba(each)[:, 1], features, labels, np.array(owner), seed)
    whole = table.groupby("descriptor", sort=False)["importance"].agg(features="size", importance="sum")
    whole = whole.join(falls).reset_index()
    write_csv(folder / "importances.csv", whole.sort_values("auroc_fall", ascending=False, kind="stable"))


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
        >>> falls = shuffled_falls(lambda each: each[:, 0], features, labels, np.array(["one", "other"]), 0)
        >>> float(falls.loc["other", "auroc_fall"]), bool(falls.loc["one", "auroc_fall"] > 0)
        (0.0, True)
    """
    random = np.random.default_rng(seed)
    rows = np.sort(random.permutation(len(labels))[:_IMAGES])
    features, labels = np.array(features[rows]), labels[rows]
    orders = [random.permutation(len(rows)) for _ in range(REPEATS)]
    before = roc_auc_score(labels, predict(features))
    found = {}
    for name in track(list(dict.fromkeys(owner)), "importances"):
        columns = np.flatnonzero(owner == name)
        own = features[:, columns].copy()
        falls = []
        for order in orders:
            features[:, columns] = own[order]
            falls.append(before - roc_auc_score(labels, predict(features)))
        features[:, columns] = own
        found[name] = (np.mean(falls), *np.quantile(falls, (0.025, 0.975)))
    return pd.DataFrame.from_dict(
        found, orient="index", columns=["auroc_fall", "auroc_fall_low", "auroc_fall_high"], dtype=float
    )
