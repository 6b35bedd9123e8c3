"""Search spaces: what their files may say, and that every recipe drawn from a shipped one is a recipe."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import optuna
import pytest
import yaml

from tumortrace.errors import RecipeError
from tumortrace.training.documents import shipped
from tumortrace.training.recipe import load_recipe
from tumortrace.training.space import Space, changed, load_space, parse_space

SPACE: dict[str, Any] = {
    "name": "mine",
    "description": "d",
    "recipe": "tumortrace",
    "trials": 4,
    "epochs": 3,
    "parameters": {"optimiser.lr": {"float": [0.001, 0.1], "log": True}},
}


def draws(space: Space, count: int = 60) -> list[dict[str, Any]]:
    """What `count` random trials draw."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    return [space.suggest(study.ask()) for _ in range(count)]


def with_parameter(path: str, form: Any) -> Space:
    return parse_space(SPACE | {"parameters": {path: form}}, "test")


@pytest.mark.parametrize("name", shipped("tumortrace.spaces"))
def test_every_draw_of_a_shipped_space_is_a_recipe(name: str) -> None:
    """Twenty random draws of each shipped space are valid recipes that differ from one another."""
    space = load_space(name)
    base = space.base()
    recipes = {changed(base, values, "test").to_yaml() for values in draws(space, 20)}
    assert len(recipes) == 20
    assert (base.epochs, base.stopping.metric) == (space.epochs, space.objective.metric)


def test_system_d_is_what_was_published() -> None:
    """Two to four convolutions of 32 to 256 filters of 3, 5 or 7 px, dense 64 to 512 by 64, dropout .2 to .6, rates."""
    space = load_space("system-d")
    assert (space.trials, space.objective.metric, space.objective.direction) == (26, "f1", "maximise")
    assert space.pruner.name == "hyperband"
    found = draws(space, 300)
    blocks = [values["model.arguments.blocks"] for values in found]
    assert {len(each) for each in blocks} == {2, 3, 4}
    assert {block["channels"] for each in blocks for block in each} == {32, 64, 128, 256}
    assert {block["kernel"] for each in blocks for block in each} == {3, 5, 7}
    assert {(block["convolutions"], block["pool"]) for each in blocks for block in each} == {(1, True)}
    assert {values["model.arguments.head.0.dense"] for values in found} == set(range(64, 513, 64))
    assert all(0.2 <= values["model.arguments.head.1.dropout"] <= 0.6 for values in found)
    rates = sorted(values["optimiser.lr"] for values in found)
    assert 1e-4 <= rates[0] < 2e-4
    assert 5e-3 < rates[-1] <= 1e-2
    assert rates[150] == pytest.approx(1e-3, rel=0.4), "the middle of a logarithmic scale"


def test_the_published_best_of_system_d_lies_in_its_space() -> None:
    """The recipe cnn-tuned-224 is one of the networks that its space can draw."""
    best, space = load_recipe("cnn-tuned-224"), load_space("system-d")
    arguments = best.model.arguments
    values: dict[str, Any] = {"model.arguments.blocks.length": len(arguments["blocks"])}
    for index, block in enumerate(arguments["blocks"]):
        values |= {f"model.arguments.blocks.{index}.{name}": block[name] for name in ("channels", "kernel")}
    values |= {
        "model.arguments.head.0.dense": arguments["head"][0]["dense"],
        "model.arguments.head.1.dropout": arguments["head"][1]["dropout"],
        "optimiser.lr": best.optimiser.lr,
    }
    drawn = space.suggest(optuna.trial.FixedTrial(values))  # type: ignore[arg-type]
    again = changed(best, drawn, "test").model.arguments
    assert [block | {"pool": True} for block in arguments["blocks"]] == again["blocks"]
    assert again["head"] == arguments["head"]


def test_lists_of_plain_values_and_named_choices() -> None:
    """A list may hold plain numbers; a name may stand for a larger value."""
    lists = [values["model.arguments.widths"] for values in draws(with_parameter(
        "model.arguments.widths", {"list": [1, 3], "of": {"choice": [8, 16]}}
    ))]  # fmt: skip
    assert {len(each) for each in lists} == {1, 2, 3}
    assert {value for each in lists for value in each} == {8, 16}
    named = {"weak": {"stain": 0.01}, "strong": {"stain": 0.1, "symmetries": True}}
    found = [values["augmentation"] for values in draws(with_parameter("augmentation", {"choice": named}))]
    assert {str(value) for value in found} == {str(value) for value in named.values()}


def test_ranges_include_both_ends_and_keep_their_step() -> None:
    """A whole range with a step draws exactly its steps; 1e-3, which YAML takes for text, is a number."""
    found = {values["batch_size"] for values in draws(with_parameter("batch_size", {"int": [8, 32, 8]}))}
    assert found == {8, 16, 24, 32}
    form = yaml.safe_load("{float: [1e-3, 1e-2], log: true}")
    assert all(0.001 <= values["optimiser.lr"] <= 0.01 for values in draws(with_parameter("optimiser.lr", form)))


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"parameters": {}}, "parameters"),
        ({"parameters": {"optimiser.lr": 0.1}}, "optimiser.lr: 0.1 is none of"),
        ({"parameters": {"optimiser.lr": {"float": [1, 0.1]}}}, "impossible range"),
        ({"parameters": {"optimiser.lr": {"float": [0, 1], "log": True}}}, "impossible range on a logarithmic scale"),
        ({"parameters": {"batch_size": {"int": [1.5, 3]}}}, "no range of whole numbers"),
        ({"parameters": {"batch_size": {"int": [1, 3], "lgo": True}}}, "is none of"),
        ({"parameters": {"augmentation": {"choice": [{"stain": 0.1}]}}}, "need names"),
        ({"parameters": {"model.arguments.widths": {"list": [3, 1], "of": {"choice": [8]}}}}, "3 to 1 items"),
        ({"parameters": {"splits.test": {"float": [0.1, 0.2]}}}, "splits.test is not searched over"),
        ({"parameters": {"epochs": {"int": [1, 3]}}}, "epochs is not searched over"),
        ({"objective": {"metric": "f2"}}, "objective.metric"),
        ({"objective": {"metric": "loss", "direction": "maximise"}}, "one can only minimise it"),
        ({"trails": 5}, "field trails: no such field"),
        ({"pruner": {"name": "hyperbrand"}}, "pruner.name"),
    ],
)
def test_what_a_space_may_not_say_is_refused_in_one_line(change: dict[str, Any], told: str) -> None:
    """Each mistake is told in one line that names the field."""
    with pytest.raises(RecipeError) as caught:
        parse_space(SPACE | change, "space mine")
    assert told in str(caught.value)
    assert "\n" not in str(caught.value)


def test_direction_follows_from_the_metric() -> None:
    """Errors are minimised, everything else is maximised, without being told."""
    for metric, direction in {"loss": "minimise", "ece": "minimise", "brier": "minimise", "mcc": "maximise"}.items():
        assert parse_space(SPACE | {"objective": {"metric": metric}}, "test").objective.direction == direction


@pytest.mark.parametrize(
    ("path", "told"),
    [
        ("optimiser.rate", "optimiser.rate"),
        ("model.arguments.widths.7", "no '7' on the way to model.arguments.widths.7"),
        ("model.arguments.widths.first", "no 'first' on the way"),
        ("batch_size.0", "nothing can be set at batch_size.0"),
        ("name.first.second", "no 'first' on the way"),
    ],
)
def test_a_path_that_leads_nowhere_is_refused(path: str, told: str) -> None:
    """A path that the recipe does not have is named."""
    with pytest.raises(RecipeError, match=told):
        changed(load_recipe("tumortrace"), {path: 1}, "test")


def test_a_file_of_ones_own(tmp_path: Path) -> None:
    """A space survives being written and read; unknown names and broken files are refused in one line."""
    space = parse_space(SPACE, "test")
    (tmp_path / "mine.yaml").write_text(space.to_yaml())
    assert load_space(tmp_path / "mine.yaml") == space
    (tmp_path / "broken.yaml").write_text("a: [")
    for name, told in {
        "none": "system-d",
        tmp_path / "no.yaml": "not readable",
        tmp_path / "broken.yaml": "YAML",
    }.items():
        with pytest.raises(RecipeError, match=told) as caught:
            load_space(name)
        assert "\n" not in str(caught.value)
