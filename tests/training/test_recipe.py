"""Recipes load, refuse what is wrong by field, and survive a round trip."""

from __future__ import annotations

from pathlib import Path

import pytest

from tumortrace.errors import RecipeError
from tumortrace.training.recipe import Recipe, load_recipe, parse_recipe, recipe_names


@pytest.mark.parametrize("name", recipe_names())
def test_contract_of_every_recipe(name: str) -> None:
    """Its file bears its name, it validates, and its resolved form loads to the same recipe."""
    recipe = load_recipe(name)
    assert recipe.name == name
    assert recipe.description
    assert parse_recipe(recipe.to_yaml(), "here") == recipe


def test_cnn_64_is_the_published_one() -> None:
    """Adam at .001, batches of 64, 64x64 px in [0, 1], three epochs, no augmentation."""
    recipe = load_recipe("cnn-64")
    assert (recipe.optimiser.name, recipe.optimiser.lr, recipe.optimiser.weight_decay) == ("adam", 0.001, 0)
    assert (recipe.batch_size, recipe.epochs, recipe.schedule.name) == (64, 3, "constant")
    assert (recipe.preprocessing.size, recipe.preprocessing.crop) == (64, None)
    assert recipe.preprocessing.normalisation == "unit"
    assert not recipe.augmentation.symmetries
    assert not recipe.augmentation.stain


@pytest.mark.parametrize(
    ("change", "check"),
    [
        ("optimiser.lr=1e-3", lambda r: r.optimiser.lr == 0.001),
        ("epochs=7", lambda r: r.epochs == 7),
        ("model.arguments.blocks=[8]", lambda r: r.model.arguments["blocks"] == [8]),
        ("calibration.coverage=null", lambda r: r.calibration.coverage is None),
        ("calibration.threshold=sensitivity>=0.95", lambda r: r.calibration.threshold == "sensitivity>=0.95"),
        ("schedule.name=one_cycle", lambda r: r.schedule.name == "one_cycle"),
    ],
)
def test_one_value_can_be_changed(change: str, check: object) -> None:
    """`--set` reaches every depth, and 1e-3 is a number."""
    assert check(load_recipe("cnn-64", [change]))  # type: ignore[operator]


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ("optimiser.learning=1", "optimiser.learning"),
        ("epochs=0", "field epochs"),
        ("epochs=many", "field epochs"),
        ("optimiser.lr=-1", "optimiser.lr"),
        ("epochs", "key=value"),
        ("=3", "key=value"),
        ("name.first=3", "holds no further fields"),
        ("calibration.threshold=best", "calibration.threshold"),
        ("augmentation.stain=[", "not valid YAML"),
        ("fine_tuning={epochs:5, lr:0.1}", "no space after a colon"),
        ("optimiser.name=lion", "optimiser.name"),
        ("augmentation.fill=surroundings", "size leave none of"),
    ],
)
def test_a_wrong_change_is_refused_by_field(change: str, named: str) -> None:
    """The message names the field, in one line."""
    with pytest.raises(RecipeError) as refused:
        load_recipe("cnn-64", [change])
    assert named in str(refused.value)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("content", ["", "[1]", "a: [", "name: x", "\x00"])
def test_a_file_that_is_no_recipe_is_refused(tmp_path: Path, content: str) -> None:
    """Empty, a list, broken YAML, too little: a line each."""
    file = tmp_path / "mine.yaml"
    file.write_text(content)
    with pytest.raises(RecipeError, match=r"mine\.yaml"):
        load_recipe(file)


def test_unknown_recipes_list_the_known(tmp_path: Path) -> None:
    """A misspelt name answers with the names there are; so does a missing file with its path."""
    with pytest.raises(RecipeError, match="tumortrace"):
        load_recipe("tumourtrace")
    with pytest.raises(RecipeError, match=r"none\.yaml"):
        load_recipe(tmp_path / "none.yaml")


def test_a_recipe_of_ones_own(tmp_path: Path) -> None:
    """The resolved YAML of a shipped recipe, saved and changed, is a recipe."""
    text = load_recipe("cnn-64").to_yaml().replace("name: cnn-64", "name: mine", 1)
    (tmp_path / "mine.yaml").write_text(text)
    recipe = load_recipe(tmp_path / "mine.yaml", ["epochs=1"])
    assert isinstance(recipe, Recipe)
    assert (recipe.name, recipe.epochs) == ("mine", 1)
