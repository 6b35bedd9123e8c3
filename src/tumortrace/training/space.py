"""Search spaces: which values of a recipe are tried, and how, as validated YAML documents.

Shipped ones lie in `tumortrace/spaces/`, one file each; a path to a file of one's own serves as well. Parameters are
dotted paths into the recipe (`optimiser.lr`, `model.arguments.head.0.dense`), each with a form that
`tumortrace.training.distributions` knows.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import yaml
from pydantic import Field, field_validator, model_validator

from tumortrace.errors import RecipeError
from tumortrace.evaluation.measures import rises
from tumortrace.training.distributions import parse_distribution
from tumortrace.training.documents import Part, read_document, validate
from tumortrace.training.options import Metric
from tumortrace.training.recipe import Recipe, load_recipe, parse_recipe

if TYPE_CHECKING:
    from optuna import Trial


#: Fields of a recipe that are no matter of search: the study sets them, or validation does not measure them.
UNSEARCHABLE = (
    "name",
    "description",
    "source",
    "published",
    "corrected",
    "splits",
    "epochs",
    "stopping",
    "calibration",
)


class Objective(Part):
    """What the search improves, measured on the validation split, as `Stopping.metric` names it."""

    metric: Metric = "f1"
    direction: Literal["maximise", "minimise"] = "maximise"

    @model_validator(mode="before")
    @classmethod
    def _natural_direction(cls, value: Any) -> Any:
        if not isinstance(value, dict):
            return value
        metric = value.get("metric", "f1")
        natural = "maximise" if rises(str(metric)) else "minimise"
        if value.get("direction", natural) != natural:
            raise ValueError(f"{metric}: one can only {natural} it")
        return value | {"direction": natural}


class Sampler(Part):
    """`tpe` (Bergstra et al. 2011), of which the first `startup` trials are random, or `random`."""

    name: Literal["tpe", "random"] = "tpe"
    startup: int = Field(default=10, ge=1)


class Pruner(Part):
    """`hyperband` (Li et al. 2018; asynchronous, as in Optuna), `median`, or `none`.

    `reduction` is Hyperband's eta; no trial ends before `least_epochs`; `startup` trials are never cut by the median.
    """

    name: Literal["hyperband", "median", "none"] = "hyperband"
    reduction: int = Field(default=3, ge=2)
    least_epochs: int = Field(default=1, ge=1)
    startup: int = Field(default=5, ge=1)


class Space(Part):
    """What is searched over.

    Example:
        >>> space = load_space("system-d")
        >>> space.objective.metric, space.trials, list(space.parameters)[-1]
        ('f1', 26, 'optimiser.lr')
    """

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9._-]*$")
    description: str
    source: str = "own"
    recipe: str
    objective: Objective = Objective()
    trials: int = Field(ge=1)
    epochs: int = Field(ge=1)
    sampler: Sampler = Sampler()
    pruner: Pruner = Pruner()
    parameters: dict[str, Any] = Field(min_length=1)

    @field_validator("parameters")
    @classmethod
    def _known_forms(cls, parameters: dict[str, Any]) -> dict[str, Any]:
        for path, form in parameters.items():
            if path.partition(".")[0] in UNSEARCHABLE:
                raise ValueError(f"{path} is not searched over")
            parse_distribution(path, form)
        return parameters

    def to_yaml(self) -> str:
        """The whole space as YAML, every default spelt out."""
        document = self.model_dump(mode="json")
        return yaml.safe_dump(document, sort_keys=False, allow_unicode=True, width=110, default_flow_style=None)

    def suggest(self, trial: Trial) -> dict[str, Any]:
        """What the trial draws: dotted path to value."""
        return {path: parse_distribution(path, form).suggest(trial, path) for path, form in self.parameters.items()}

    def base(self, changes: Sequence[str] = ()) -> Recipe:
        """The recipe that trials start from: it stops on the objective, after the space's number of epochs at most."""
        ours = [f"epochs={self.epochs}", f"stopping.metric={self.objective.metric}"]
        return load_recipe(self.recipe, [*ours, *changes])


def load_space(name: str | Path) -> Space:
    """Load a shipped space by name, or one of your own by the path of its YAML file.

    Raises:
        RecipeError: There is no such space, or a field of it is not valid; the field is named.
    """
    return parse_space(*read_document(name, "tumortrace.spaces", "space", "choose one of these"))


def parse_space(document: object, where: str) -> Space:
    """A space from the content of its file.

    Raises:
        RecipeError: A field is not valid; it is named.
    """
    return validate(Space, document, where, "mend it")


def changed(recipe: Recipe, values: dict[str, Any], where: str) -> Recipe:
    """The recipe with the values of some dotted paths replaced; indices go into lists.

    Raises:
        RecipeError: A path or a value does not fit the recipe.

    Example:
        >>> changed(load_recipe("tumortrace"), {"model.arguments.widths.1": 96}, "mine").model.arguments["widths"]
        [48, 96, 128]
    """
    document = recipe.model_dump(mode="json")
    for path, value in values.items():
        *parents, last = path.split(".")
        place: Any = document
        for parent in parents:
            place = _child(place, parent, path, where)
        if isinstance(place, list):
            _child(place, last, path, where)
            place[int(last)] = value
        elif isinstance(place, dict):
            place[last] = value
        else:
            raise RecipeError(f"nothing can be set at {path}", where=where, remedy="see `tumortrace recipes NAME`")
    return parse_recipe(yaml.safe_dump(document), where)


def _child(place: Any, key: str, path: str, where: str) -> Any:
    try:
        return place[int(key)] if isinstance(place, list) else place.setdefault(key, {})
    except (ValueError, IndexError, AttributeError) as error:
        raise RecipeError(
            f"the recipe has no {key!r} on the way to {path}", where=where, remedy="see `tumortrace recipes NAME`"
        ) from error
