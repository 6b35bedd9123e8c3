"""Contract of every shipped recipe: it trains, predicts, reloads, and leaves its history."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from tumortrace import load_model, open_cohort, train
from tumortrace.cohorts.store import open_store
from tumortrace.models.architecture import build_network, count_parameters, freeze
from tumortrace.training import experiment, finish
from tumortrace.training.recipe import load_recipe, recipe_names

LARGEST = {"plain-cnn": 112, "backbone": 48}  # px; what the networks are made of does not depend on it

#: Parameters of small learners.
FEW = {
    "bagging": {"n_estimators": 5},
    "forest": {"n_estimators": 5},
    "boosting": {"max_iter": 5, "min_samples_leaf": 2, "learning_rate": {"float": [0.05, 0.2], "log": True}},
}


@pytest.fixture(scope="module")
def few(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Forty-eight synthetic patches."""
    from tumortrace import synthesise

    return synthesise("patches", tmp_path_factory.mktemp("few") / "patches", count=48, seed=5)


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave out the bootstrap, the pictures and the HTML, which other tests cover."""
    monkeypatch.setattr(experiment, "renew_report", lambda folder: None)
    monkeypatch.setattr(finish, "split_record", lambda table, threshold, **_: {"n": len(table)})
    monkeypatch.setattr(finish, "trust_records", lambda table, model, choice: {})
    monkeypatch.setattr(finish, "write_examples", lambda *given: None)
    monkeypatch.setattr(finish, "headline", lambda *_: "")


def small(name: str) -> list[str]:
    recipe = load_recipe(name)
    changes = ["weights=random", "batch_size=16", "epochs=1"]
    largest = LARGEST.get(recipe.model.name, 96)
    if (recipe.preprocessing.size or 0) > largest:
        changes.append(f"preprocessing.size={largest}")
    if (recipe.preprocessing.crop or 0) > 32:
        changes.append("preprocessing.crop=32")
    if recipe.fine_tuning:
        changes.append("fine_tuning.epochs=1")
    if "hf-hub" in str(recipe.model.arguments.get("body")) or recipe.probe:
        changes.append("model.arguments.body=resnet18")
    if recipe.learner:
        parameters = FEW.get(recipe.learner.name, {})
        learner = recipe.learner.model_dump() | {"folds": 2, "trials": 2, "parameters": parameters}
        changes += ["model.arguments.descriptors=[glcm, stain, lbp-uniform]", f"learner={json.dumps(learner)}"]
    return changes


@pytest.mark.parametrize("name", [name for name in recipe_names() if not load_recipe(name).takes_features])
def test_every_recipe_trains_predicts_and_reloads(name: str, few: Path, tmp_path: Path, quick: None) -> None:
    """One epoch on a small cohort; the reloaded bundle predicts what the run has on record."""
    run = train(few, recipe=name, changes=small(name), out=tmp_path)
    record = json.loads((run / "run.json").read_text())
    assert record["status"] == "finished"
    history = pd.read_csv(run / "history.csv")
    assert len(history) >= 1
    assert {"validation_loss", "validation_f1", "validation_auroc", "train_accuracy", "seconds"} <= set(history)
    table = pd.read_csv(run / "predictions.csv", dtype={"id": str})
    cohort = open_cohort(few)
    rows = cohort.table.reset_index().set_index("id").loc[table["id"], "index"].to_numpy()
    found = load_model(run).assess(open_store(cohort).images, rows)
    np.testing.assert_allclose(found.probability, table["probability"], atol=2e-5)
    np.testing.assert_allclose(found.ood_score, table["ood_score"], rtol=1e-2)


#: Keras' counts as published, total and trainable, less what the architecture does not have: 26,560 biases of ResNet50
#: before batch norm, 7 numbers of EfficientNetB0's input normalisation.
PUBLISHED = {
    "cnn-64": (1_401_617, 1_401_617),
    "cnn-bn-64": (2_799_073, 2_798_817),
    "vgg16-frozen-64": (14_755_841, 37_041),
    "vgg16-64": (14_755_841, None),
    "vgg19-64": (20_065_537, None),
    "resnet50-64": (23_751_745 - 26_560, None),
    "cnn-96": (1_731_905, 1_731_905),
    "cnn-centre-32": (159_170, 159_170),
    "cnn-224": (227_265, 226_817),
    "resnet50-frozen-224": (25_686_913 - 26_560, 2_099_201),
    "efficientnet-b0-frozen-224": (5_362_340 - 7, 1_312_769),
    "cnn-tuned-224": (3_402_241, 3_400_897),
}


@pytest.mark.parametrize(("name", "published"), PUBLISHED.items())
def test_parameters_are_the_published_ones(name: str, published: tuple[int, int | None]) -> None:
    """Total and trainable parameters of the recipes, counted as Keras does."""
    recipe = load_recipe(name)
    network = build_network(recipe.model.name, recipe.preprocessing.output_size((96, 96)), recipe.model.arguments)
    freeze(network, recipe.freeze)
    total, trainable = published
    counted = count_parameters(network)
    assert counted["total"] == total
    if trainable is not None:
        assert counted["trainable"] == trainable


def test_frozen_heads_have_the_published_size_whether_or_not_the_body_is_frozen() -> None:
    """VGG19 and ResNet50 of System A: 37,041 and 147,633 parameters above the body."""
    for name, head in (("vgg19-64", 37_041), ("resnet50-64", 147_633)):
        recipe = load_recipe(name)
        network = build_network(recipe.model.name, (64, 64), recipe.model.arguments)
        freeze(network, ["body"])
        assert count_parameters(network)["trainable"] == head


def test_system_c_has_about_2_3_million() -> None:
    """2.3 million parameters and 9 MB, as published."""
    recipe = load_recipe("cnn-crop-32")
    count = count_parameters(build_network(recipe.model.name, (32, 32), recipe.model.arguments))["total"]
    assert round(count / 1e6, 1) == 2.3
    assert round(4 * count / 1e6) == 9


def keras_layers_of_efficientnet_b0() -> list[str]:
    """The stage and block to which each of the first layers of Keras' EfficientNetB0 belongs, in its order."""
    layers = ["stem"] * 7  # input, rescaling, normalisation, padding, convolution, batch norm, activation
    squeeze = 5
    repeats = [(1, 1, False), (2, 2, True), (2, 2, True), (3, 2, True), (3, 1, True)]
    for stage, (blocks, stride, expands) in enumerate(repeats):
        for block in range(blocks):
            count = (3 if expands else 0) + 3 + squeeze + 2
            count += 1 if stride == 2 and block == 0 else 0  # padding
            count += 2 if block else 0  # dropout and addition around a shortcut
            layers += [f"blocks.{stage}.{block}"] * count
    return layers


def test_first_hundred_layers_of_keras_in_timms_blocks() -> None:
    """The frozen parts of efficientnet-b0-96 are those in which Keras' first hundred layers lie."""
    touched = list(dict.fromkeys(keras_layers_of_efficientnet_b0()[:100]))
    recipe = load_recipe("efficientnet-b0-96")
    assert recipe.fine_tuning is not None
    network = build_network(recipe.model.name, (96, 96), recipe.model.arguments)
    freeze(network, recipe.fine_tuning.freeze)
    frozen = {name for name, parameter in network.named_parameters() if not parameter.requires_grad}
    places = {".".join(name.split(".")[1:4]) if name.startswith("body.blocks") else "stem" for name in frozen}
    assert places == set(touched)


def test_histories_hold_both_sides(few: Path, tmp_path: Path, quick: None) -> None:
    """Every metric is there for training and validation, per epoch."""
    run = train(few, recipe="cnn-64", changes=["batch_size=16"], epochs=2, out=tmp_path)
    history = pd.read_csv(run / "history.csv")
    assert list(history["epoch"]) == [1, 2]
    sides = [{c.removeprefix(side) for c in history if c.startswith(side)} for side in ("train_", "validation_")]
    assert sides[0] == sides[1]
