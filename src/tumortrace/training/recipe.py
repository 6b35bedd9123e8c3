"""Recipes: how a model is made, as validated YAML documents.

Shipped ones lie in `tumortrace/recipes/`, one file each; a path to a file of one's own serves as well.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from tumortrace.errors import RecipeError
from tumortrace.evaluation.thresholds import parse_policy
from tumortrace.imaging.augmentation import Augmentation
from tumortrace.imaging.preprocessing import Preprocessing
from tumortrace.models.bundle import Architecture


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Optimiser(_Part):
    """Gradient descent: `adam` (Kingma and Ba 2015), `adamw` (Loshchilov and Hutter 2019), or `muon` (Jordan 2024).

    Muon makes the steps of matrices and convolutions orthogonal, scaled to AdamW's size so that its rates carry over;
    vectors go through AdamW. Weight decay spares biases, normalisations and other vectors.
    """

    name: Literal["adam", "adamw", "muon"] = "adamw"
    lr: float = Field(default=1e-3, gt=0)
    weight_decay: float = Field(default=0.0, ge=0)


class Schedule(_Part):
    """Learning rate over the steps: `constant`, or `one_cycle` (Smith and Topin 2018) with a share of warm-up."""

    name: Literal["constant", "one_cycle"] = "constant"
    warmup: float = Field(default=0.25, ge=0, lt=1)


class Averaging(_Part):
    """Averaged weights: `none`, or `ema`, an exponential moving average over the steps."""

    name: Literal["none", "ema"] = "none"
    decay: float = Field(default=0.998, gt=0, lt=1)


class Stopping(_Part):
    """Early stopping; the best epoch's weights are kept in any case.

    `metric` is measured on the validation split: `loss` (smaller is better) or a metric's name (larger is better).
    """

    metric: Literal["loss", "auroc", "average_precision", "accuracy", "balanced_accuracy", "f1", "mcc"] = "auroc"
    patience: int = Field(default=5, ge=1)
    least_improvement: float = Field(default=0.0, ge=0)


class Calibration(_Part):
    """What is fitted on the calibration split, and on nothing else."""

    temperature: bool = True
    threshold: str = "f1"
    coverage: float | None = Field(default=0.9, gt=0, lt=1)

    @field_validator("threshold")
    @classmethod
    def _known_policy(cls, policy: str) -> str:
        try:
            parse_policy(policy)
        except RecipeError as error:
            raise ValueError(str(error)) from error
        return policy


class Recipe(_Part):
    """How a model is made. Every field can be changed with `--set field.field=value`.

    Example:
        >>> recipe = load_recipe("cnn-64", ["optimiser.lr=0.01"])
        >>> recipe.optimiser.lr, recipe.batch_size
        (0.01, 64)
    """

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9._-]*$")
    description: str
    source: str = "own"
    published: dict[str, Any] = Field(default_factory=dict)
    corrected: list[str] = Field(default_factory=list)
    preprocessing: Preprocessing = Preprocessing()
    augmentation: Augmentation = Augmentation()
    model: Architecture
    symmetries: bool = False
    epochs: int = Field(ge=1)
    batch_size: int = Field(default=64, ge=2)
    optimiser: Optimiser = Optimiser()
    schedule: Schedule = Schedule()
    averaging: Averaging = Averaging()
    stopping: Stopping = Stopping()
    calibration: Calibration = Calibration()
    splits: dict[str, float] | None = None

    def to_yaml(self) -> str:
        """The whole recipe as YAML, every default spelt out."""
        return yaml.safe_dump(self.model_dump(mode="json"), sort_keys=False, allow_unicode=True, width=110)


def recipe_names() -> list[str]:
    """Names of the shipped recipes.

    Example:
        >>> "tumortrace" in recipe_names()
        True
    """
    folder = files("tumortrace.recipes")
    return sorted(file.name.removesuffix(".yaml") for file in folder.iterdir() if file.name.endswith(".yaml"))


def load_recipe(name: str | Path, changes: Sequence[str] = ()) -> Recipe:
    """Load a shipped recipe by name, or one of your own by path, and change values in it.

    Args:
        name: Name of a shipped recipe, or path of a YAML file.
        changes: `key=value` each; keys are dotted paths, values are YAML.

    Raises:
        RecipeError: There is no such recipe, or a field of it is not valid; the field is named.
    """
    if str(name) in recipe_names():
        text, where = (files("tumortrace.recipes") / f"{name}.yaml").read_text(encoding="utf-8"), f"recipe {name}"
    elif str(name).endswith((".yaml", ".yml")):
        where = str(name)
        try:
            text = Path(name).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise RecipeError(f"not readable ({error})", where=where, remedy="name an existing YAML file") from error
    else:
        raise RecipeError(
            f"no recipe named {str(name)!r}",
            expected="one of " + ", ".join(recipe_names()) + ", or a path ending in .yaml",
            remedy="see `tumortrace recipes`",
        )
    try:
        document = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise RecipeError(f"not valid YAML ({' '.join(str(error).split())})", where=where) from error
    if not isinstance(document, dict):
        raise RecipeError("not a recipe", where=where, expected="a YAML mapping with name, description, model, epochs")
    for change in changes:
        _apply(document, change)
    return _validated(document, where)


def parse_recipe(text: str, where: str) -> Recipe:
    """Read back a recipe that `Recipe.to_yaml` wrote."""
    return _validated(yaml.safe_load(text), where)


def _apply(document: dict[str, Any], change: str) -> None:
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
        place[last] = _number(yaml.safe_load(value))
    except yaml.YAMLError as error:
        raise RecipeError(f"the value in --set {change!r} is not valid YAML", remedy="quote it") from error


def _number(value: Any) -> Any:
    """YAML 1.1 takes 1e-3 for text, which nobody means."""
    if isinstance(value, str):
        try:
            return float(value)
        except ValueError:
            return value
    return value


def _validated(document: Any, where: str) -> Recipe:
    try:
        return Recipe.model_validate(document)
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(str(part) for part in first["loc"])
        found = "no such field" if first["type"] == "extra_forbidden" else f"{first['msg']} (found {first['input']!r})"
        raise RecipeError(
            found, where=f"{where}, field {field}", remedy="compare with `tumortrace recipes NAME`"
        ) from error
