"""Foundation models as people have them: in a hub's cache, by a short name, on a recipe that says nothing of them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.models.hubs import publish
from tests.models.test_foundation import FORMS
from tests.situations.situation import situation
from tumortrace import load_model, synthesise
from tumortrace.cli.main import run as command
from tumortrace.records.run import Run
from tumortrace.reports import report
from tumortrace.training import bodies
from tumortrace.training.recipe import choose_recipe


def probe(data: Path, out: Path, *changes: str) -> Path:
    """The run of a probe, by its command."""
    words = [word for change in changes for word in ("--set", change)]
    assert command(["train", str(data), "--recipe", "probe", *words, "--out", str(out)]) == 0
    (folder,) = out.iterdir()
    return folder


@situation(
    "runs",
    there="H0-mini in the hub's cache, no connection, patches of 1 um/px",
    typed="tumortrace train DATA --recipe probe --set model.arguments.body=h0-mini",
    right="built, normalised and pooled as its authors do; its licence on record",
)
def test_a_name_is_enough(hub_cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tumortrace.training.experiment.renew_report", lambda _: None)
    architecture, options, classes = FORMS["h0-mini"]
    publish(
        hub_cache, "bioptimus/H0-mini", architecture, {**options, "img_size": 224, "patch_size": 56}, classes=classes
    )
    data = synthesise("patches", tmp_path / "patches", count=120, seed=5)
    run = probe(data, tmp_path / "runs", "model.arguments.body=h0-mini", "probe={heads: [knn], neighbours: [5]}")
    record = Run(run).record
    assert record.weights.licence == "CC-BY-NC-ND-4.0, bioptimus/H0-mini"
    assert any("1 um/px" in note and "trained at 0.5" in note for note in record.data.notes)
    model = load_model(run)
    steps = model.info.preprocessing
    assert (steps.size, steps.filter) == (224, "bicubic")
    assert steps.normalisation.mean == (0.707223, 0.578729, 0.703617)  # type: ignore[union-attr]
    assert model.info.architecture.arguments["pooling"] == "token+mean"
    assert model.info.architecture.arguments["options"]["mlp_layer"] == "SwiGLUPacked"
    report.renew_report(run)
    assert "CC-BY-NC-ND-4.0" in (run / "model_card.md").read_text()


@situation(
    "runs",
    there="a recipe of one's own that normalises by other figures than its body was trained with",
    typed="tumortrace train DATA --recipe RECIPE",
    right="the recipe's figures are used, and a note says so",
)
def test_a_recipe_that_wants_another_says_so() -> None:
    changes = ["model.arguments.body=h-optimus-0", "preprocessing.normalisation=imagenet", "preprocessing.size=112"]
    recipe, _ = choose_recipe("probe", changes)
    assert (recipe.preprocessing.normalisation, recipe.preprocessing.size) == ("imagenet", 112)
    notes = bodies.notes_on_body(recipe, 0.5, (224, 224))
    assert any("normalises by imagenet" in note and "0.7072 0.5787 0.7036" in note for note in notes)
    assert any("size is 112" in note for note in notes)
    assert not any("um/px" in note for note in notes)
    plain, _ = choose_recipe("probe", ["model.arguments.body=h-optimus-0"])
    assert bodies.notes_on_body(plain, 0.5, (224, 224)) == []
    assert bodies.notes_on_body(plain, 0.25, (448, 448)) == []  # halved on its way in
    assert "0.97 um/px" in bodies.notes_on_body(plain, 0.97, (96, 96))[0]


@situation(
    "runs",
    there="options of a body in a recipe, with 1e-5 as timm's examples write it",
    typed="tumortrace train DATA --set 'model.arguments.options={init_values: 1e-5}'",
    right="a number, as meant",
)
def test_numbers_within_options_are_numbers(tmp_path: Path) -> None:
    changes = ["model.arguments={body: vit_tiny_patch16_224, options: {init_values: 1e-5}}"]
    recipe, _ = choose_recipe("probe", changes)
    assert recipe.model.arguments["options"]["init_values"] == 1e-5
    file = tmp_path / "mine.yaml"
    file.write_text(recipe.to_yaml().replace("init_values: 1.0e-05", "init_values: 1e-5"))
    assert "init_values: 1e-5" in file.read_text()
    again, _ = choose_recipe(file)
    assert json.dumps(again.model.arguments) == json.dumps(recipe.model.arguments)
