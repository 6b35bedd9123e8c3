"""Recipes: how a model is made, as validated YAML documents.

Shipped ones lie in `tumortrace/recipes/`, one file each; a path to a file of one's own serves as well.
"""

from __future__ import annotations

import difflib
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import Field, JsonValue, model_validator

from tumortrace.errors import RecipeError, RunError
from tumortrace.images.augmentation import Augmentation
from tumortrace.images.preprocessing import Preprocessing
from tumortrace.models.architecture import require_arguments, takes_features
from tumortrace.models.description import Architecture
from tumortrace.training.bodies import as_its_body_wants
from tumortrace.training.documents import Part, as_number, read_document, shipped, validate
from tumortrace.training.options import (
    Averaging,
    Calibration,
    Classifier,
    FineTuning,
    Loss,
    Optimiser,
    Probe,
    Schedule,
    Stopping,
)


class Recipe(Part):
    """How a model is made. Every field can be changed with `--set field.field=value`.

    Attributes:
        name: Lower case, digits, dots, dashes.
        description: One line.
        source: The reference system it comes from, or "own".
        published: What was published about it, on which data.
        corrected: What is done otherwise than in the source, and why.
        preprocessing: From a stored patch to the network's input; part of the bundle.
        augmentation: What training images go through.
        model: Registered family and its arguments.
        weights: "random", "imagenet" (published weights of the body, from its hub) or a file; see `load_weights`.
        freeze: Parts of the network that do not learn, as "body"; their batch norm stays in inference mode.
        probe: Instead of gradient descent, on features of a frozen body.
        learner: Instead of gradient descent, on descriptors of model `texture`.
        symmetries: Whether the bundle averages the eight rotations and mirrorings.
        epochs: At most so many.
        least_steps: For so many steps in all, an epoch goes over few images more than once. A change of `epochs`
            alone makes it 0, so that each epoch that was asked for is one pass.
        batch_size: Images of a step, give or take one.
        tiles: Of a slide's tiles, how many at most are drawn for a step; models of slides alone.
        sync_batch_norm: Whether batch norm takes its statistics from all images of a step together, whichever process
            has them; otherwise from those of each process, on CPUs from those of each part.
        compile: Whether torch compiles the steps: `cuda`, on an NVIDIA GPU alone. The first steps take longer then.
        sampling: "balanced" draws both classes equally often, the rarer with repeats.
        loss: What is minimised.
        optimiser: How.
        schedule: Learning rate over the steps.
        averaging: Averaged weights.
        stopping: Early stopping.
        fine_tuning: A second stage.
        calibration: What is fitted on the calibration split.
        leave_out: CSV with a column `id`, such as quarantine.csv of `check`: images that are not used at all.
        splits: Shares of the splits where the data bring none of their own.

    Example:
        >>> recipe = load_recipe("cnn-64", ["optimiser.lr=0.01"])
        >>> recipe.optimiser.lr, recipe.batch_size
        (0.01, 64)
    """

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9._-]*$")
    description: str
    source: str = "own"
    published: dict[str, JsonValue] = Field(default_factory=dict)
    corrected: list[str] = Field(default_factory=list)
    preprocessing: Preprocessing = Preprocessing()
    augmentation: Augmentation = Augmentation()
    model: Architecture
    weights: str = "random"
    freeze: list[str] = Field(default_factory=list)
    probe: Probe | None = None
    learner: Classifier | None = None
    symmetries: bool = False
    epochs: int = Field(ge=1)
    least_steps: int = Field(default=0, ge=0)
    batch_size: int = Field(default=64, ge=2)
    tiles: int | None = Field(default=None, ge=1)
    sync_batch_norm: bool = False
    compile: bool | Literal["cuda"] = False
    sampling: Literal["natural", "balanced"] = "natural"
    loss: Loss = Loss()
    optimiser: Optimiser = Optimiser()
    schedule: Schedule = Schedule()
    averaging: Averaging = Averaging()
    stopping: Stopping = Stopping()
    fine_tuning: FineTuning | None = None
    calibration: Calibration = Calibration()
    splits: dict[str, float] | None = None
    leave_out: str | None = None

    @model_validator(mode="after")
    def _one_way(self) -> Recipe:
        if self.learner and self.probe:
            raise ValueError("a probe and a learner: give one of them")
        if (self.learner is not None) != (self.model.name == "texture"):
            raise ValueError("model texture is fitted by a learner, and a learner fits model texture")
        if self.compile and self.sync_batch_norm:
            raise ValueError("compile and sync_batch_norm: what processes tell each other is not compiled; take one")
        if self.augmentation.fill == "surroundings" and (self.preprocessing.prepares or self.preprocessing.size):
            raise ValueError(
                "augmentation.fill surroundings looks at pixels around preprocessing.crop, which stain, equalisation, "
                "super_resolution and size leave none of: choose nearest, reflect or a grey, or leave these out"
            )
        if self.takes_features:
            changed = [
                name
                for name, changes in (
                    ("preprocessing", self.preprocessing != Preprocessing()),
                    ("augmentation", not self.augmentation.identity),
                    ("symmetries", self.symmetries),
                    ("probe", self.probe is not None),
                )
                if changes
            ]
            if changed:
                raise ValueError(f"a model of slides takes features as they are, and {' and '.join(changed)} nothing")
        return self

    @property
    def takes_features(self) -> bool:
        """Whether it is for slides, of which features of their tiles are known."""
        return takes_features(self.model.name)

    def to_yaml(self) -> str:
        """The whole recipe as YAML, every default spelt out."""
        return yaml.safe_dump(self.model_dump(mode="json"), sort_keys=False, allow_unicode=True, width=110)


def recipe_names() -> list[str]:
    """Names of the shipped recipes.

    Example:
        >>> "tumortrace" in recipe_names()
        True
    """
    return shipped("tumortrace.recipes")


def load_recipe(name: str | Path, changes: Sequence[str] = ()) -> Recipe:
    """Load a shipped recipe by name, or one of your own by path, and change values in it.

    Args:
        name: Name of a shipped recipe, or path of a YAML file.
        changes: `key=value` each; keys are dotted paths, values are YAML.

    Raises:
        RecipeError: There is no such recipe, or a field of it is not valid; the field is named.
    """
    document, where = read_document(name, "tumortrace.recipes", "recipe", "see `tumortrace recipes`")
    if not isinstance(document, dict):
        raise RecipeError("not a recipe", where=where, expected="a YAML mapping with name, description, model, epochs")
    for change in changes:
        _apply(document, change)
    changed = {change.partition("=")[0].strip() for change in changes}
    if "epochs" in changed and "least_steps" not in changed:
        document["least_steps"] = 0
    return _validated(document, where)


def parse_recipe(text: str, where: str) -> Recipe:
    """Read back a recipe that `Recipe.to_yaml` wrote."""
    return _validated(yaml.safe_load(text), where)


def _apply(document: Any, change: str) -> None:
    key, equals, value = change.partition("=")
    if not equals or not key:
        raise RecipeError(f"--set {change!r}", expected="key=value, as in optimiser.lr=0.01", remedy="write it so")
    *parents, last = key.strip().split(".")
    place = document
    for parent in parents:
        place = place.setdefault(parent, {})
        if not isinstance(place, dict):
            raise RecipeError(
                f"{parent!r} in --set {change!r} holds no further fields", remedy="see `tumortrace recipes NAME`"
            )
    try:
        place[last] = as_number(yaml.safe_load(value))
    except yaml.YAMLError as error:
        raise RecipeError(f"the value in --set {change!r} is not valid YAML", remedy="quote it") from error
    if isinstance(place[last], dict) and any(":" in str(name) for name in place[last]):
        raise RecipeError(
            f"no space after a colon in --set {change!r}",
            expected="YAML, as in {epochs: 5, lr: 0.001}",
            remedy="add it",
        )


def _validated(document: object, where: str) -> Recipe:
    if isinstance(document, dict) and isinstance(model := document.get("model"), dict):
        document = document | {"model": as_number(model)}  # 1e-5 within a body's options
    return validate(Recipe, document, where, "compare with `tumortrace recipes NAME`", _nearest_field)


def _nearest_field(name: str) -> str | None:
    return next(iter(difflib.get_close_matches(name, _field_names(), 1)), None)


def _field_names() -> list[str]:
    """Names of all fields of a recipe, at whatever depth."""
    schema = Recipe.model_json_schema()
    parts = [schema, *schema.get("$defs", {}).values()]
    return sorted({name for part in parts for name in part.get("properties", {})})


def choose_recipe(
    recipe: str | Path | Recipe,
    changes: Sequence[str] = (),
    epochs: int | None = None,
    weights: str | Path | None = None,
) -> tuple[Recipe, list[str]]:
    """The recipe, and the changes to it that a record has to name.

    Args:
        recipe: Name of a shipped recipe, path of a YAML file, or a recipe; what the preprocessing of a probe does not
            say, its body says.
        changes: `key=value` each, as `--set` takes them.
        epochs: Instead of the recipe's number of epochs.
        weights: Instead of the recipe's: "random", "imagenet", or a file.

    Raises:
        RunError: There are changes to a finished recipe.
        RecipeError: The recipe is not valid.
        ModelError: It names a network that is not there, or arguments that the network does not take.

    Example:
        >>> recipe, changes = choose_recipe("cnn-64", epochs=1)
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
    return as_its_body_wants(with_whole_paths(recipe)), changes


def with_whole_paths(recipe: Recipe) -> Recipe:
    """Files that a recipe names by whole paths, so that a run is resumed from anywhere."""
    if recipe.leave_out is not None:
        recipe = recipe.model_copy(update={"leave_out": str(Path(recipe.leave_out).expanduser().resolve())})
    if recipe.weights not in ("random", "imagenet"):
        # not resolved: in a hub's cache files are links to others whose names say nothing
        recipe = recipe.model_copy(update={"weights": os.path.abspath(Path(recipe.weights).expanduser())})
    enlarger = recipe.preprocessing.super_resolution
    if enlarger is not None and enlarger.weights:
        enlarger = enlarger.model_copy(update={"weights": str(Path(enlarger.weights).expanduser().resolve())})
        steps = recipe.preprocessing.model_copy(update={"super_resolution": enlarger})
        recipe = recipe.model_copy(update={"preprocessing": steps})
    return recipe
