"""The recipe that was asked for, with all changes in it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from tumortrace.errors import RunError
from tumortrace.models.architecture import require_arguments
from tumortrace.training.recipe import Recipe, load_recipe


def chosen_recipe(
    recipe: str | Path | Recipe,
    changes: Sequence[str] = (),
    epochs: int | None = None,
    weights: str | Path | None = None,
) -> tuple[Recipe, list[str]]:
    """The recipe, and the changes to it that a record has to name.

    Args:
        recipe: Name of a shipped recipe, path of a YAML file, or a recipe.
        changes: `key=value` each, as `--set` takes them.
        epochs: Instead of the recipe's number of epochs.
        weights: Instead of the recipe's: "random", "imagenet", or a file.

    Raises:
        RunError: There are changes to a finished recipe.
        RecipeError: The recipe is not valid.
        ModelError: It names a network that is not there, or arguments that the network does not take.

    Example:
        >>> recipe, changes = chosen_recipe("cnn-64", epochs=1)
        >>> recipe.epochs, changes
        (1, ['epochs=1'])
    """
    changes = [*changes, *([] if epochs is None else [f"epochs={epochs}"])]
    changes += [] if weights is None else [f"weights={json.dumps(str(weights))}"]
    if not isinstance(recipe, Recipe):
        recipe = load_recipe(recipe, changes)
    elif changes:
        raise RunError(
            "changes besides a finished recipe", remedy="give the recipe's name, or change the recipe itself"
        )
    require_arguments(recipe.model.name, recipe.model.arguments)
    return with_whole_paths(recipe), changes


def with_whole_paths(recipe: Recipe) -> Recipe:
    """Files that a recipe names by whole paths, so that a run is resumed from anywhere."""
    if recipe.leave_out is not None:
        recipe = recipe.model_copy(update={"leave_out": str(Path(recipe.leave_out).expanduser().resolve())})
    if recipe.weights not in ("random", "imagenet"):
        recipe = recipe.model_copy(update={"weights": str(Path(recipe.weights).expanduser().resolve())})
    enlarger = recipe.preprocessing.super_resolution
    if enlarger is not None and enlarger.weights:
        enlarger = enlarger.model_copy(update={"weights": str(Path(enlarger.weights).expanduser().resolve())})
        steps = recipe.preprocessing.model_copy(update={"super_resolution": enlarger})
        recipe = recipe.model_copy(update={"preprocessing": steps})
    return recipe
