"""Classical learners against scikit-learn: probabilities, search, importances; and what the search may see."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.ensemble import BaggingClassifier, HistGradientBoostingClassifier, RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import GridSearchCV, StratifiedKFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.tree import DecisionTreeClassifier

from tumortrace import load_model, open_cohort, train
from tumortrace.cohorts.store import open_store
from tumortrace.errors import RecipeError, SplitError, TumorTraceError
from tumortrace.models.families.texture import Linear, Texture, Trees
from tumortrace.texture.descriptor import choose, describe
from tumortrace.training.classifiers import candidates, column_importances, fit_classifier, keep, shuffled_falls
from tumortrace.training.options import Classifier
from tumortrace.training.recipe import load_recipe
from tumortrace.training.task import Patches, Task
from tumortrace.training.texture import TextureLearner, make_folds

pytestmark = pytest.mark.usefixtures("few_replicates")

DESCRIPTORS = ["lbp-uniform", "stain"]
CHANGES = ["model.arguments.descriptors=[lbp-uniform, stain]"]
SMALL: dict[str, dict[str, Any]] = {
    "logistic": {"C": 0.1},
    "tree": {"max_depth": 4},
    "bagging": {"n_estimators": 6, "max_samples": 0.3, "max_features": 0.5},
    "forest": {"n_estimators": 12, "min_samples_leaf": 2},
    "boosting": {"max_iter": 15, "min_samples_leaf": 5, "max_leaf_nodes": 6},
}
REFERENCE: dict[str, Any] = {
    "logistic": lambda **given: make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000, **given)),
    "tree": DecisionTreeClassifier,
    "bagging": lambda **given: BaggingClassifier(DecisionTreeClassifier(), **given),
    "forest": RandomForestClassifier,
    "boosting": lambda **given: HistGradientBoostingClassifier(early_stopping=False, **given),
}


def noise(count: int, seed: int) -> Patches:
    """Images of noise of 30 slides, the positives a little brighter."""
    random = np.random.default_rng(seed)
    labels = (random.random(count) < 0.4).astype(np.float32)
    images = random.integers(0, 190, (count, 16, 16, 3)) + (20 * labels[:, None, None, None]).astype(int)
    images += random.integers(0, 40, (count, 1, 1, 1))
    groups = np.array([f"slide {row % 30:02}" for row in range(count)])
    return Patches(images.astype(np.uint8), np.arange(count), labels, groups=groups)


@pytest.fixture(scope="module")
def training() -> Patches:
    return noise(240, 0)


@pytest.fixture(scope="module")
def validation() -> Patches:
    return noise(90, 1)


def table(patches: Patches) -> np.ndarray:
    """The descriptors of all images, as scikit-learn would be given them."""
    return describe(patches.images, choose(DESCRIPTORS))[1].astype(np.float32)


def trainer(folder: Path, training: Patches, validation: Patches, learner: str, *more: str) -> TextureLearner:
    recipe = load_recipe("texture-tree", [*CHANGES, f"learner={learner}", *more])
    files = {"checkpoints": folder / "c", "history_file": folder / "history.csv"}
    return TextureLearner(Task(recipe, training, validation, seed=3, **files))


def predicted(fit: TextureLearner, patches: Patches) -> np.ndarray:
    images = patches.tensor(np.arange(len(patches.rows)), torch.device("cpu")) / 255
    with torch.inference_mode():
        return torch.sigmoid(fit.evaluated.eval()(images).double()).numpy()


@pytest.mark.parametrize("name", list(SMALL))
def test_probabilities_are_scikit_learns(name: str, training: Patches, validation: Patches, tmp_path: Path) -> None:
    """The network's probabilities are those of scikit-learn's own classifier, fitted to the table of descriptors."""
    fit = trainer(tmp_path, training, validation, json.dumps({"name": name, "parameters": SMALL[name], "folds": 2}))
    fit.fit()
    given = SMALL[name] if name == "logistic" else SMALL[name] | {"random_state": fit.seed}
    features = table(training).astype(np.float64) if name == "logistic" else table(training)
    reference = REFERENCE[name](**given).fit(features, training.labels.astype(int))
    for patches in (training, validation):
        expected = reference.predict_proba(table(patches))[:, 1]
        if name not in ("logistic", "boosting"):
            bound = 0.5 / len(training.rows)
            expected = expected.clip(bound, 1 - bound)
        np.testing.assert_allclose(predicted(fit, patches), expected, atol=2e-5 if name == "logistic" else 1e-6)


def test_thresholds_part_exactly_as_in_scikit_learn() -> None:
    """Also where features lie next to each other in float32, and thresholds of float64 between them."""
    near = np.nextafter(np.float32(1000), np.float32([0, 2000]))
    features = np.repeat(np.float32([[1000], [near[0]], [near[1]]]), 20, axis=0)
    for marked in range(3):
        labels = (np.arange(60) // 20 == marked).astype(np.float32)
        learner = Classifier(name="forest", parameters={"n_estimators": 5})
        pipeline, _ = fit_classifier(learner, {"n_estimators": 5}, features, labels, balanced=False, seed=0)
        with torch.inference_mode():
            found = torch.sigmoid(keep(pipeline, 60, 1)(torch.from_numpy(features))).view(-1).numpy()
        np.testing.assert_allclose(
            found, pipeline.predict_proba(features)[:, 1].clip(0.5 / 60, 1 - 0.5 / 60), atol=1e-6
        )
        assert (found > 0.5).tolist() == (labels > 0.5).tolist()


def test_grid_search_is_scikit_learns(training: Patches, validation: Patches, tmp_path: Path) -> None:
    """On the same folds, means and standard deviations are those of GridSearchCV, and so is the choice."""
    learner = "{name: forest, folds: 3, parameters: {n_estimators: 12, max_depth: [1, 3], min_samples_leaf: [2, 20]}}"
    fit = trainer(tmp_path, training, validation, learner)
    progress = fit.fit()
    reference = GridSearchCV(
        RandomForestClassifier(n_estimators=12, random_state=fit.seed),
        {"max_depth": [1, 3], "min_samples_leaf": [2, 20]},
        scoring="roc_auc",
        cv=fit.folds,
    ).fit(table(training), training.labels.astype(int))
    history = pd.read_csv(tmp_path / "history.csv")
    np.testing.assert_allclose(history["folds_auroc"], reference.cv_results_["mean_test_score"], atol=1e-4)
    np.testing.assert_allclose(history["folds_auroc_std"], reference.cv_results_["std_test_score"], atol=1e-4)
    told = [
        f"max_depth {each['max_depth']}, min_samples_leaf {each['min_samples_leaf']}"
        for each in reference.cv_results_["params"]
    ]
    assert list(history["head"]) == told
    assert progress.best_epoch == reference.best_index_ + 1
    expected = roc_auc_score(validation.labels, reference.predict_proba(table(validation))[:, 1])
    assert history["validation_auroc"][reference.best_index_] == pytest.approx(expected, abs=1e-4)


def test_a_metric_that_falls_is_minimised(training: Patches, validation: Patches, tmp_path: Path) -> None:
    """By log loss a tree of one split beats one that has learnt its images by heart."""
    learner = "{name: tree, folds: 2, parameters: {max_depth: [null, 1]}}"
    fit = trainer(tmp_path, training, validation, learner, "stopping.metric=loss")
    assert fit.fit().best_epoch == 2
    history = pd.read_csv(tmp_path / "history.csv")
    assert history["folds_loss"][1] < history["folds_loss"][0]


def test_no_slide_stands_in_two_folds(training: Patches, validation: Patches, tmp_path: Path) -> None:
    """Every image is judged once, by a model that has seen no other of its slide; the note says so."""
    fit = trainer(tmp_path, training, validation, "{name: tree, folds: 4}")
    assert sorted(np.concatenate([judged for _, judged in fit.folds])) == list(range(240))
    assert training.groups is not None
    for learnt, judged in fit.folds:
        assert not set(training.groups[learnt]) & set(training.groups[judged])
        assert len(learnt) + len(judged) == 240
    assert "no two share a slide" in fit.notes[0]
    blind = trainer(tmp_path, replace(training, groups=None), validation, "{name: tree, folds: 4}")
    assert "not known" in blind.notes[0]
    shares = [training.labels[judged].mean() for _, judged in blind.folds]
    assert np.ptp(shares) < 0.02


def test_validation_chooses_nothing(training: Patches, validation: Patches, tmp_path: Path) -> None:
    """With other images and labels to validate on, the same candidate is kept, with the same trees."""
    learner = "{name: forest, folds: 2, parameters: {n_estimators: 6, max_depth: [1, 4]}}"
    turned = replace(validation, images=validation.images[::-1], labels=1 - validation.labels)
    kept = []
    for number, patches in enumerate((validation, turned)):
        fit = trainer(tmp_path / str(number), training, patches, learner)
        kept.append((fit.fit().best_epoch, fit.evaluated.top.state_dict()))
    assert kept[0][0] == kept[1][0]
    for name, value in kept[0][1].items():
        assert torch.equal(value, kept[1][1][name])


def test_a_run_learns_from_its_training_split_alone(
    tissue: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All that is ever fitted are rows of the training split: none of validation, calibration or test is among them."""
    seen: list[np.ndarray] = []
    fit_plain = fit_classifier

    def watched(learner: Classifier, values: dict, features: np.ndarray, labels: np.ndarray, **rest: Any) -> Any:
        seen.append(np.array(features))
        return fit_plain(learner, values, features, labels, **rest)

    monkeypatch.setattr("tumortrace.training.texture.fit_classifier", watched)
    monkeypatch.setattr("tumortrace.training.experiment.renew_report", lambda folder: None)
    run = train(tissue, recipe="texture-tree", changes=[*CHANGES, "learner.folds=2"], out=tmp_path)
    cohort = open_cohort(tissue)
    splits = pd.read_csv(run / "splits.csv", dtype=str).set_index("id")["split"]
    features = describe(open_store(cohort).images, choose(DESCRIPTORS))[1].astype(np.float32)
    split = splits.loc[cohort.table["id"]].to_numpy()
    allowed = {row.tobytes() for row in features[split == "train"]}
    others = {row.tobytes() for row in features[split != "train"]} - allowed
    fitted = {row.tobytes() for part in seen for row in part}
    assert fitted <= allowed
    assert len(others) > 50


@pytest.fixture(scope="module")
def boosted(tissue: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of boosted trees."""
    changes = [*CHANGES, "learner={name: boosting, folds: 2, search: random, trials: 2, parameters: {max_iter: 10, "
               "learning_rate: {float: [0.05, 0.3], log: true}}}"]  # fmt: skip
    return train(tissue, recipe="texture-boosting", changes=changes, out=tmp_path_factory.mktemp("boosted"), seed=1)


def test_a_bundle_predicts_as_its_run(boosted: Path, tissue: Path) -> None:
    """Reloaded, it gives what the run has on record, whatever the size of the batch."""
    recorded = pd.read_csv(boosted / "predictions.csv", dtype={"id": str})
    cohort = open_cohort(tissue)
    rows = cohort.table.reset_index().set_index("id").loc[recorded["id"], "index"].to_numpy()
    images = open_store(cohort).images
    np.testing.assert_allclose(load_model(boosted).predict(images, rows), recorded["probability"], rtol=0, atol=1e-12)
    np.testing.assert_allclose(load_model(boosted).predict(images, rows[:1]), recorded["probability"][:1], atol=1e-12)


def test_a_run_folder_is_complete(boosted: Path) -> None:
    """It says what it was fitted with, how it was folded, and shows what the descriptors matter."""
    record = json.loads((boosted / "run.json").read_text())
    assert record["weights"]["origin"] == "fitted from scratch (scikit-learn)"
    assert any("folds of the training split" in note for note in record["data"]["notes"])
    page = (boosted / "report.html").read_text("utf-8")
    for words in ("2 candidates", "learning_rate", "10 decision trees on 2 hand-made descriptors"):
        assert words in page
    assert "0 parameters" not in page
    assert 'id="importances"' in page
    assert "Learner: 10 decision trees" in (boosted / "model_card.md").read_text("utf-8")
    assert (boosted / "figures" / "importances.svg").stat().st_size > 0


def test_importances_of_a_run(boosted: Path) -> None:
    """Those of the features add up to 1, and those of a descriptor are the sum of its features'."""
    features, whole = (pd.read_csv(boosted / f"{name}.csv") for name in ("feature_importances", "importances"))
    assert features["importance"].sum() == pytest.approx(1)
    assert features["importance"].is_monotonic_decreasing
    sums = features.groupby("descriptor")["importance"].sum()
    np.testing.assert_allclose(whole["importance"], sums.loc[whole["descriptor"]])
    assert list(whole["features"]) == [
        len(describe(np.zeros((1, 8, 8, 3), np.uint8), choose([n]))[0]) for n in whole["descriptor"]
    ]
    assert (whole["auroc_fall_low"] <= whole["auroc_fall"]).all()
    assert (whole["auroc_fall"] <= whole["auroc_fall_high"]).all()


def fitted(name: str, features: np.ndarray, labels: np.ndarray, **given: Any) -> Any:
    learner = Classifier(name=name, parameters=given)  # type: ignore[arg-type]
    return fit_classifier(learner, given, features, labels, balanced=False, seed=0)[0]


def test_column_importances_are_scikit_learns() -> None:
    """Of a tree and a forest `feature_importances_`, of logistic regression the coefficients; of the others by hand."""
    random = np.random.default_rng(2)
    features = random.normal(size=(300, 5)).astype(np.float32) * np.float32([1, 10, 0.1, 1, 1])
    labels = (features[:, 0] + 0.05 * features[:, 1] + random.normal(size=300) > 0).astype(np.float32)
    for name, kind in (("tree", DecisionTreeClassifier), ("forest", RandomForestClassifier)):
        reference = kind(max_depth=4, random_state=0).fit(features, labels).feature_importances_
        np.testing.assert_allclose(column_importances(fitted(name, features, labels, max_depth=4), 5), reference)
    regression = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000)).fit(features.astype(float), labels)
    size = np.abs(regression[-1].coef_[0])
    found = column_importances(fitted("logistic", features, labels), 5)
    np.testing.assert_allclose(found, size / size.sum(), rtol=1e-6)
    bagged = fitted("bagging", features, labels, n_estimators=4, max_features=3)
    expected = np.zeros(5)
    for tree, columns in zip(bagged[-1].estimators_, bagged[-1].estimators_features_, strict=True):
        for column, value in zip(columns, tree.feature_importances_, strict=True):
            expected[column] += value / 4
    np.testing.assert_allclose(column_importances(bagged, 5), expected)
    gains = column_importances(fitted("boosting", features, labels, max_iter=10), 5)
    assert gains.sum() == pytest.approx(1)
    assert gains.argmax() == 0


def test_shuffling_finds_what_decides() -> None:
    """A tree that looks at one feature alone loses all with that feature's descriptor, nothing with others."""
    random = np.random.default_rng(0)
    labels = (np.arange(400) % 2).astype(np.float32)
    features = np.stack([labels, random.normal(size=400), random.normal(size=400)], axis=1).astype(np.float32)
    tree = fitted("tree", features, labels, max_depth=1)
    falls = shuffled_falls(
        lambda each: tree.predict_proba(each)[:, 1], features, labels, np.array(["one", "two", "two"]), 0
    )
    assert falls.loc["one", "auroc_fall"] == pytest.approx(0.5, abs=0.03)
    assert falls.loc["one", "auroc_fall_low"] < falls.loc["one", "auroc_fall"] < falls.loc["one", "auroc_fall_high"]
    assert (falls.loc["two"] == 0).all()


def test_balanced_classes_weigh_alike(training: Patches, validation: Patches, tmp_path: Path) -> None:
    """With balanced weights a leaf alone says one half; without, the share of positives."""
    told = []
    for weights in ("none", "balanced"):
        learner = "{name: tree, folds: 2, parameters: {max_leaf_nodes: 2, min_samples_leaf: 120}}"
        fit = trainer(tmp_path, training, validation, learner, f"loss.class_weights={weights}")
        fit.fit()
        leaf = fit.evaluated.top.get_buffer("value")
        told.append(float(leaf[0]))
    assert told[0] == pytest.approx(training.labels.mean())
    assert told[1] == pytest.approx(0.5)


def test_random_search_stays_in_its_ranges() -> None:
    """Ends included, whole numbers whole, the same candidates from the same seed, others from another."""
    ranges = {
        "learning_rate": {"float": [0.01, 1.0], "log": True},
        "max_leaf_nodes": {"int": [2, 5]},
        "max_iter": [5, 7],
    }
    learner = Classifier(name="boosting", search="random", trials=60, parameters=ranges)
    drawn = pd.DataFrame(candidates(learner, 0))
    assert len(drawn) == 60
    assert drawn["learning_rate"].between(0.01, 1).all()
    assert 0.2 < (drawn["learning_rate"] < 0.1).mean() < 0.8  # half of them on a logarithmic scale
    assert set(drawn["max_leaf_nodes"]) == {2, 3, 4, 5}
    assert set(drawn["max_iter"]) == {5, 7}
    assert candidates(learner, 0) == candidates(learner, 0) != candidates(learner, 1)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ("learner.parameters={n_trees: 5}", "no parameter 'n_trees'"),
        ("learner.parameters={max_depth: deep}", "max_depth"),
        ("learner.parameters={random_state: 5}", "no parameter 'random_state'"),
        ("learner.parameters={max_depth: {int: [2, 5]}}", "search: random"),
        ("learner={name: tree, search: random, parameters: {max_depth: {integer: [2, 5]}}}", "is none of"),
        ("learner.parameters={max_depth: []}", "no candidate"),
        ("learner=null", "texture is fitted by a learner"),
        ("probe={}", "a probe and a learner"),
        ("preprocessing.normalisation=imagenet", "normalisation"),
        ("augmentation.symmetries=true", "augmentation"),
        ("weights=imagenet", "weights imagenet"),
    ],
)
def test_wrong_recipes_are_refused_in_one_line(change: str, says: str, training: Patches, tmp_path: Path) -> None:
    """What no learner does is not left out without a word."""
    with pytest.raises(RecipeError) as refused:
        trainer(tmp_path, training, training, "{name: tree, folds: 2}", change).fit()
    assert says in str(refused.value)
    assert "\n" not in str(refused.value)


def test_folds_that_cannot_be_made_are_refused(training: Patches, validation: Patches, tmp_path: Path) -> None:
    """Fewer slides than folds, or a fold without a class."""
    few = replace(training, groups=np.array(["a", "b"] * 120))
    with pytest.raises(SplitError, match="2 slides or patients"):
        trainer(tmp_path, few, validation, "{name: tree, folds: 3}")
    parted = replace(training, groups=np.where(training.labels == 1, "a", "b"))
    with pytest.raises(TumorTraceError, match="lacks a class"):
        trainer(tmp_path, parted, validation, "{name: tree, folds: 2}")
    assert isinstance(Texture((16, 16), DESCRIPTORS).top, Linear)
    assert not isinstance(Texture((16, 16), DESCRIPTORS).top, Trees)


def test_copies_stay_in_one_fold_where_no_slide_is_known(training: Patches) -> None:
    """No candidate is judged by a picture that it has learnt from; where all differ, folds are scikit-learn's."""
    training = replace(training, groups=None)
    twice = Patches(training.images, np.repeat(training.rows[:90], 2), np.repeat(training.labels[:90], 2))
    folds, note = make_folds(twice, 3, 0)
    for learnt, judged in folds:
        assert not set(twice.rows[learnt]) & set(twice.rows[judged])
    assert sorted(np.concatenate([judged for _, judged in folds])) == list(range(180))
    assert "too kind" in note
    plain = StratifiedKFold(3, shuffle=True, random_state=0).split(training.labels, training.labels)
    for (learnt, judged), (expected, other) in zip(make_folds(training, 3, 0)[0], plain, strict=True):
        assert learnt.tolist() == expected.tolist()
        assert judged.tolist() == other.tolist()
