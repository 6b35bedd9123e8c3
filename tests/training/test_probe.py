"""Probes against scikit-learn."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.neighbors import KNeighborsClassifier, NearestCentroid
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from tumortrace import load_model, open_cohort, train
from tumortrace.cohorts.store import open_store
from tumortrace.errors import RecipeError
from tumortrace.training.features import frozen_features
from tumortrace.training.few_shot import feature_map, few_shot
from tumortrace.training.learner import seed_of
from tumortrace.training.probe import ProbeLearner
from tumortrace.training.recipe import load_recipe
from tumortrace.training.task import Patches, Task

pytestmark = pytest.mark.usefixtures("few_replicates")

PROBE = ["weights=random", "model.arguments.body=resnet18", "preprocessing.size=32"]


def probe(tmp_path: Path, patches: Patches, changes: list[str]) -> ProbeLearner:
    recipe = load_recipe("probe", [*PROBE, *changes])
    files = {"checkpoints": tmp_path / "c", "history_file": tmp_path / "history.csv"}
    return ProbeLearner(Task(recipe, patches, patches, seed=1, **files))


@pytest.fixture(scope="module")
def patches() -> Patches:
    """Sixty 32x32 images of noise, the positives a little brighter."""
    random = np.random.default_rng(0)
    labels = (np.arange(60) % 3 == 0).astype(np.float32)
    images = random.integers(0, 150, (60, 32, 32, 3)) + 20 * labels[:, None, None, None].astype(int)
    return Patches(images.astype(np.uint8), np.arange(60), labels)


def test_a_logistic_probe_is_scikit_learns(patches: Patches, tmp_path: Path) -> None:
    """The folded linear layer gives the probabilities of a scaled LogisticRegression on the body's features."""
    fit = probe(tmp_path, patches, ["probe={heads: [logistic], inverse_penalties: [0.05]}"])
    fit.fit()
    network = fit.evaluated.eval()
    steps = fit.task.recipe.preprocessing
    inputs = steps.normalise(steps.pixels(patches.tensor(np.arange(60), torch.device("cpu"))))
    with torch.no_grad():
        features = network.features(inputs).numpy()  # type: ignore[operator]
        found = torch.sigmoid(network(inputs)).numpy()
    reference = make_pipeline(StandardScaler(), LogisticRegression(C=0.05, max_iter=2000)).fit(features, patches.labels)
    np.testing.assert_allclose(found, reference.predict_proba(features)[:, 1], atol=1e-3)


def test_the_best_head_on_validation_is_kept(patches: Patches, tmp_path: Path) -> None:
    """Each candidate has a row; the bundle's network is that of the best one."""
    fit = probe(tmp_path, patches, ["probe={inverse_penalties: [0.001, 1.0], neighbours: [3, 500]}"])
    progress = fit.fit()
    history = pd.read_csv(tmp_path / "history.csv")
    assert list(history["head"]) == ["logistic, C 0.001", "logistic, C 1", "3 neighbours", "60 neighbours"]
    assert progress.best_epoch == history["validation_auroc"].argmax() + 1


def test_a_pooling_that_learns_cannot_be_probed(patches: Patches, tmp_path: Path) -> None:
    """Nor can a plain network."""
    with pytest.raises(RecipeError, match="a probe of backbone"):
        probe(tmp_path, patches, ["model.arguments.pooling=centre"])


def test_a_knn_probe_makes_a_run(tissue: Path, tmp_path: Path) -> None:
    """The bundle, which holds the training features, predicts what the run has on record after reloading."""
    run = train(tissue, recipe="probe", changes=[*PROBE, "probe={heads: [knn], neighbours: [9]}"], out=tmp_path)
    table = pd.read_csv(run / "predictions.csv", dtype={"id": str})
    cohort = open_cohort(tissue)
    rows = cohort.table.reset_index().set_index("id").loc[table["id"], "index"].to_numpy()
    found = load_model(run).predict(open_store(cohort).images, rows)
    np.testing.assert_allclose(found, table["probability"], atol=1e-5)
    assert "9 neighbours" in (run / "history.csv").read_text()
    report = (run / "report.html").read_text()
    assert 'id="few-shot"' in report
    assert "validation images in two dimensions" in report


def test_few_shots_are_scikit_learns_on_drawn_images(patches: Patches) -> None:
    """Balanced draws that differ, more than there are passed over, metrics of an independent regression on them."""
    features = Patches(np.random.default_rng(2).normal(size=(60, 5)).astype(np.float32), np.arange(60), patches.labels)
    table = few_shot(features, features, [1, 10, 50], 3, seed=4)
    assert set(table["head"]) == {"logistic", "prototype", "knn"}
    assert table.groupby("shots").size().to_dict() == {1: 9, 10: 9}  # there are 20 positives
    draw = np.random.default_rng(seed_of(4, 10, 2))
    chosen = np.concatenate([draw.choice(np.flatnonzero(patches.labels == k), 10, replace=False) for k in (0, 1)])
    scaled = StandardScaler().fit(features.images).transform(features.images)
    expected = LogisticRegression(C=1.0, max_iter=2000).fit(scaled[chosen], patches.labels[chosen])
    rows = table[(table["shots"] == 10) & (table["repeat"] == 2)].set_index("head")["auroc"]
    reference = {"logistic": expected.decision_function(scaled)}
    votes = KNeighborsClassifier(5).fit(scaled[chosen], patches.labels[chosen])
    means = NearestCentroid().fit(scaled[chosen], patches.labels[chosen]).centroids_
    distances = ((scaled[:, None] - means) ** 2).sum(2)
    reference |= {"knn": votes.predict_proba(scaled)[:, 1], "prototype": distances[:, 0] - distances[:, 1]}
    for name, said in reference.items():
        assert rows[name] == pytest.approx(roc_auc_score(patches.labels, said), abs=1e-6), name
    assert len(set(table.loc[(table["shots"] == 1) & (table["head"] == "logistic"), "auroc"])) > 1


def test_the_map_keeps_what_is_apart_apart() -> None:
    """Two clouds far from each other stay two; it is the same again from the same seed."""
    labels = (np.arange(80) % 2).astype(np.float32)
    features = np.random.default_rng(0).normal(size=(80, 6)).astype(np.float32) + 30 * labels[:, None]
    places = feature_map(Patches(features, np.arange(80), labels), seed=1)
    nearest = KNeighborsClassifier(3).fit(places[["x", "y"]], places["label"])
    assert nearest.score(places[["x", "y"]], places["label"]) == 1
    pd.testing.assert_frame_equal(places, feature_map(Patches(features, np.arange(80), labels), seed=1))
    assert feature_map(Patches(features[:5], np.arange(5), labels[:5]), seed=1).empty


def test_features_pooled_otherwise_are_not_taken_from_the_cache(patches: Patches, tmp_path: Path) -> None:
    """Class token, and class token beside the mean, have the same tensors."""
    widths = []
    for pooling in ("token", "token+mean"):
        options = "{img_size: 32, embed_dim: 24, depth: 1, num_heads: 2}"
        body = f"model.arguments={{body: vit_tiny_patch16_224, pooling: {pooling}, options: {options}}}"
        fit = probe(tmp_path, patches, [body])
        given = {"device": torch.device("cpu"), "autocast": nullcontext(), "key": "the same"}
        features = frozen_features(fit.network, fit.task.recipe.preprocessing, patches, **given)
        widths.append(features.images.shape[1])
    assert widths == [24, 48]
