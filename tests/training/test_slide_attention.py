"""Slides learnt from their labels alone: attention finds a few tiles, the mean does not, and nothing leaks."""

from __future__ import annotations

import json
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path

import h5py
import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.metrics import roc_auc_score

from tests.slides.bags import write_bags
from tumortrace import load_model, open_cohort, train
from tumortrace.cli.main import run as command
from tumortrace.cohorts.bags import open_bags
from tumortrace.errors import DataError, ModelError, RecipeError
from tumortrace.models.bags.pooling import SlidePooling
from tumortrace.training import experiment, finish, gradient

pytestmark = pytest.mark.usefixtures("few_replicates")

SMALL = ("model.arguments.hidden=32", "model.arguments.attention=16", "optimiser.lr=0.005", "epochs=40")


@pytest.fixture(scope="module", autouse=True)
def quick() -> Iterator[None]:
    """Leave out the bootstrap and the pictures, which other tests cover."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(experiment, "renew_report", lambda folder: None)
        patch.setattr(finish, "split_record", lambda table, threshold, **_: {"n": len(table)})
        patch.setattr(finish, "trust_records", lambda table, model, choice: {})
        patch.setattr(finish, "headline", lambda *_: "")
        yield


@pytest.fixture(scope="module")
def bags(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """40 slides of 20 patients; of a positive slide 2 % of the tiles say so."""
    return write_bags(tmp_path_factory.mktemp("bags") / "few", share=0.02, tiles=150, width=8)


@pytest.fixture(scope="module")
def trained(bags: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of slide-attention on them."""
    return train(bags, recipe="slide-attention", changes=SMALL, out=tmp_path_factory.mktemp("runs"), seed=0)


def unseen_of(run: Path) -> pd.DataFrame:
    table = pd.read_csv(run / "predictions.csv", dtype={"id": str, "group": str})
    return table[table["split"] == "test"]


def test_attention_finds_what_the_mean_loses(bags: Path, trained: Path, tmp_path: Path) -> None:
    """On patients not seen: .95 or more by attention, and less by the mean of all tiles."""
    found = unseen_of(trained)
    assert set(found["group"]) & set(splits_of(trained, "train")["group"]) == set()
    assert roc_auc_score(found["label"], found["logit"]) >= 0.95
    mean = unseen_of(train(bags, recipe="slide-mean", changes=SMALL, out=tmp_path, seed=0))
    assert mean["id"].tolist() == found["id"].tolist()
    assert roc_auc_score(mean["label"], mean["logit"]) < roc_auc_score(found["label"], found["logit"])


def splits_of(run: Path, name: str) -> pd.DataFrame:
    table = pd.read_csv(run / "splits.csv", dtype=str)
    return table[table["split"] == name]


def test_splits_keep_patients_together(trained: Path) -> None:
    """Both slides of each patient stand on one side, and the record says that leakage is ruled out."""
    table = pd.read_csv(trained / "splits.csv", dtype=str)
    assert table.groupby("group")["split"].nunique().max() == 1
    assert json.loads((trained / "run.json").read_text())["leakage"].startswith("ruled out")


def test_what_the_run_says_the_bundle_says_again(bags: Path, trained: Path) -> None:
    """The loaded bundle gives the probabilities of predictions.csv; the padding of a bag changes none."""
    table = pd.read_csv(trained / "predictions.csv", dtype={"id": str}).set_index("id")
    store = open_bags(open_cohort(bags))
    said = load_model(trained, slides=True).assess(store.images)
    known = pd.Series(said.probability, store.ids)[table.index]
    np.testing.assert_allclose(known, table["probability"], atol=1e-9)
    network = load_model(trained, slides=True).network
    rows = np.array([0, 1, 2])
    together = network(store.images.padded(rows))  # type: ignore[attr-defined]
    alone = torch.cat([network(store.images.padded(rows[[row]])) for row in range(3)])  # type: ignore[attr-defined]
    torch.testing.assert_close(together, alone)


def test_attention_lies_on_the_tiles_that_decide(bags: Path, trained: Path) -> None:
    """In positive slides of the test split the tiles with the signal have most of the weight; evidence adds up."""
    store, model = open_bags(open_cohort(bags)), load_model(trained, slides=True)
    network = model.network
    assert isinstance(network, SlidePooling)
    for name in unseen_of(trained).query("label == 1")["id"]:
        row = store.ids.index(name)
        features = store.images[row]
        padded = store.images.padded(np.array([row]))  # type: ignore[attr-defined]
        weights, evidence = network.attention_of(padded)
        signal = features[:, :2].min(1) > np.sort(features[:, :2].min(1))[-3]
        assert weights[0].numpy()[signal].sum() > 10 * signal.mean()
        constant = float(list(network.top.modules())[-1].bias.detach())  # type: ignore[operator, union-attr]
        assert float(evidence.sum()) + constant == pytest.approx(float(network(padded)), abs=1e-4)


@pytest.mark.parametrize("way", ["attention", "dual", "mean", "max"])
def test_pooling_is_what_it_says(way: str) -> None:
    """A bag's vector and each tile's evidence, in numpy without what fills the bag up; "dual" is half of each."""
    torch.manual_seed(3)
    network = SlidePooling((1, 5), way, hidden=6, attention=4).eval()
    network.standardise(torch.arange(5.0), torch.tensor([1.0, 2.0, 0.0, 4.0, 5.0]))
    tiles = np.random.default_rng(3).normal(size=(7, 5)).astype(np.float32)
    bag = torch.zeros(1, 9, 6)
    bag[0, :7, :5], bag[0, :7, 5] = torch.from_numpy(tiles), 1
    state = {name: value.numpy().astype(float) for name, value in network.state_dict().items()}
    part = {name.removeprefix("top.0."): value for name, value in state.items()}
    linear = lambda name, x: x @ part[f"{name}.weight"].T + part[f"{name}.bias"]  # noqa: E731
    h = np.maximum(linear("embed.0", (tiles - np.arange(5)) / [1, 2, 1, 4, 5]), 0)
    weights = np.full((7, 1), 1 / 7)
    if way in ("attention", "dual"):
        scores = linear(
            "attention.weigh", np.tanh(linear("attention.what", h)) / (1 + np.exp(-linear("attention.gate", h)))
        )
        weights = np.exp(scores) / np.exp(scores).sum()
    expected = {"max": h.max(0), "dual": ((weights * h).sum(0) + h.max(0)) / 2}.get(way, (weights * h).sum(0))
    np.testing.assert_allclose(network.pooling(bag)[0].detach(), expected, atol=1e-6)
    if way == "max":
        with pytest.raises(ModelError, match="maximum"):
            network.attention_of(bag)
        return
    last = [layer for layer in network.top.modules() if isinstance(layer, torch.nn.Linear)][-1]  # type: ignore[union-attr]
    w = last.weight[0].detach().numpy().astype(float)
    evidence = weights[:, 0] * (h @ w)
    if way == "dual":
        first = np.array([[tile == h[:, number].argmax() for number in range(6)] for tile in range(7)])
        evidence = (evidence + (first * h) @ w) / 2
    told_weights, told = network.attention_of(bag)
    np.testing.assert_allclose(told_weights[0, :7], weights[:, 0], atol=1e-6)
    np.testing.assert_allclose(told[0], [*evidence, 0, 0], atol=1e-6)
    assert float(told.sum() + last.bias.detach()) == pytest.approx(float(network(bag).detach()), abs=1e-5)


def test_shuffled_labels_teach_nothing(tmp_path: Path) -> None:
    """With the patients' labels dealt anew, .5 lies within the interval of the AUROC over the patients not seen."""
    data = write_bags(tmp_path / "shuffled", share=0.1, tiles=20, width=4, patients=40, shuffled=True)
    found = unseen_of(
        train(data, recipe="slide-attention", changes=[*SMALL, "epochs=20"], out=tmp_path / "runs", seed=1)
    )
    random, areas = np.random.default_rng(0), []
    parts = [part for _, part in found.groupby("group")]
    while len(areas) < 300:
        drawn = pd.concat([parts[number] for number in random.integers(0, len(parts), len(parts))])
        if drawn["label"].nunique() == 2:
            areas.append(roc_auc_score(drawn["label"], drawn["logit"]))
    low, high = np.quantile(areas, [0.025, 0.975])
    assert low <= 0.5 <= high


def test_a_killed_training_ends_with_the_same_bytes(
    bags: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Ctrl-C in the third epoch is one line; resumed: the weights and predictions of an undisturbed training."""
    changes = [*SMALL, "epochs=5", "tiles=50"]
    whole = train(bags, recipe="slide-attention", changes=changes, out=tmp_path / "whole")
    step, calls = gradient.GradientLearner._step, list[int]()

    def torn(learner: gradient.GradientLearner, batch: np.ndarray) -> float:
        calls.append(1)
        if len(calls) == 12:
            signal.default_int_handler(signal.SIGINT, None)
        return step(learner, batch)

    monkeypatch.setattr(gradient.GradientLearner, "_step", torn)
    words = ["train", str(bags), "--recipe", "slide-attention", "-o", str(tmp_path / "torn")]
    assert command([*words, *(word for change in changes for word in ("--set", change))]) == 1
    (run,) = (tmp_path / "torn").iterdir()
    last = " ".join(capsys.readouterr().err.splitlines()[-1:])
    assert "interrupted" in last
    assert f"--resume {run}" in last
    monkeypatch.setattr(gradient.GradientLearner, "_step", step)
    assert command(["train", "--resume", str(run)]) == 0
    for name in ("model/weights.safetensors", "predictions.csv"):
        assert (run / name).read_bytes() == (whole / name).read_bytes()


def test_the_wrong_kind_is_refused_in_a_line(
    bags: Path, trained: Path, tissue: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Images for slides, slides for images, other bodies' features, and verbs that take images."""
    with pytest.raises(RecipeError, match="embed-slides"):
        train(tissue, recipe="slide-attention", out=tmp_path)
    with pytest.raises(RecipeError, match="--recipe slide-attention"):
        train(bags, recipe="cnn-64", out=tmp_path)
    with pytest.raises(RecipeError, match="preprocessing"):
        train(bags, recipe="slide-attention", changes=["preprocessing.size=64"], out=tmp_path)
    with pytest.raises(ModelError, match="model of slides"):
        load_model(trained)
    assert command(["predict", str(trained), str(tissue), "-o", str(tmp_path / "p.csv")]) != 0
    assert "features" in capsys.readouterr().err
    others = write_bags(tmp_path / "others", patients=2, width=5)
    assert command(["predict", str(trained), str(others), "-o", str(tmp_path / "p.csv")]) != 0
    assert "5 numbers a tile" in capsys.readouterr().err
    shutil.copy(next(others.glob("*.h5")), tmp_path / "mixed.h5")
    shutil.copytree(bags, tmp_path / "mixed")
    shutil.copy(tmp_path / "mixed.h5", tmp_path / "mixed" / "p00-0.h5")
    assert command(["check", str(tmp_path / "mixed")]) != 0
    assert "features of several bodies" in capsys.readouterr().err


def test_predict_and_evaluate_take_slides(bags: Path, trained: Path, tmp_path: Path) -> None:
    """New slides are predicted, one without tiles is told; a moved run is not evaluated on slides that it has used."""
    fresh = write_bags(tmp_path / "fresh", patients=6, share=0.02, tiles=150, width=8, seed=9)
    with h5py.File(fresh / "p99-0.h5", "w") as file:
        file["features"], file["coords"] = np.empty((0, 8), np.float32), np.empty((0, 2), int)
    with open(fresh / "slides.csv", "a") as table:
        table.write("p99-0.svs,normal,p99\n")
    assert command(["predict", str(trained), str(fresh), "-o", str(tmp_path / "p.csv")]) == 1
    said = pd.read_csv(tmp_path / "p.csv").set_index("id")
    assert "no tissue" in said.loc["p99-0", "reason"]
    assert said["probability"].notna().sum() == 12
    moved, features = shutil.copytree(trained, tmp_path / "moved" / "run"), shutil.copytree(bags, tmp_path / "there")
    assert command(["evaluate", str(moved), str(features), "-o", str(tmp_path / "evaluated")]) == 0
    again = pd.read_csv(tmp_path / "evaluated" / "predictions.csv", dtype={"id": str}).set_index("id")["probability"]
    before = unseen_of(trained).set_index("id")["probability"]
    assert again.to_dict() == pytest.approx(before.to_dict())


def test_slides_without_tiles_are_not_learnt_from(bags: Path, tmp_path: Path) -> None:
    """A training names them."""
    data = shutil.copytree(bags, tmp_path / "with")
    with h5py.File(data / "p00-0.h5", "w") as file:
        file["features"], file["coords"] = np.empty((0, 8), np.float32), np.empty((0, 2), int)
    with pytest.raises(DataError, match="1 of 40 slides have no tile: p00-0"):
        train(data, recipe="slide-attention", out=tmp_path)
