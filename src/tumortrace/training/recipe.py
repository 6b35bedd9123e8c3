"""Recipes: how a model is made, as validated YAML documents.

Shipped ones lie in `tumortrace/recipes/`, one file each; a path to a file of one's own serves as well.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from tumortrace.errors import RecipeError
from tumortrace.evaluation.thresholds import parse_policy
from tumortrace.imaging.augmentation import Augmentation
from tumortrace.imaging.preprocessing import Preprocessing
from tumortrace.models.description import Architecture
from tumortrace.training.distributions import Range, parse_distribution


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Optimiser(_Part):
    """Gradient descent.

    `sgd` with `momentum`; `adam` (Kingma and Ba 2015), whose weight decay is added to the gradient as in `sgd`; `adamw`
    (Loshchilov and Hutter 2019); `muon` (Jordan 2024), which makes the steps of matrices and convolutions orthogonal,
    scaled to AdamW's size so that its rates carry over, and sends vectors through AdamW.

    Attributes:
        name: Which of them.
        lr: Learning rate at its peak.
        weight_decay: Weight decay; biases, normalisations and other vectors are spared.
        momentum: Of `sgd` alone.
        clip_norm: The gradient's largest norm, or None.
        layer_decay: Factor on the learning rate from each layer to the one before it; 1 treats all alike. Clark et al.
            (2020), "ELECTRA".
    """

    name: Literal["sgd", "adam", "adamw", "muon"] = "adamw"
    lr: float = Field(default=1e-3, gt=0)
    weight_decay: float = Field(default=0.0, ge=0)
    momentum: float = Field(default=0.9, ge=0, lt=1)
    clip_norm: float | None = Field(default=None, gt=0)
    layer_decay: float = Field(default=1.0, gt=0, le=1)


Metric = Literal[
    "loss", "auroc", "average_precision", "accuracy", "balanced_accuracy", "sensitivity", "specificity", "precision",
    "npv", "f1", "mcc", "brier", "nll", "ece",
]  # fmt: skip
#: Metrics of which less is better.
FALLING = ("loss", "brier", "nll", "ece")


class Schedule(_Part):
    """Learning rate over the steps of a stage.

    `constant`; `one_cycle` (Smith and Topin 2018); `cosine` down to `floor` (Loshchilov and Hutter 2017); `step`, times
    `factor` every `every` epochs; `plateau`, times `factor` after `patience` epochs without a better `metric`.

    Attributes:
        name: Which of them.
        warmup: Share of the steps over which the rate rises to its peak; None is .25 for `one_cycle`, else 0.
        every: Epochs between two steps.
        factor: Of `step` and `plateau`.
        floor: Smallest learning rate of `cosine`, `step` and `plateau`.
        patience: Epochs without improvement that `plateau` waits.
        metric: What `plateau` watches on the validation split.
    """

    name: Literal["constant", "one_cycle", "cosine", "step", "plateau"] = "constant"
    warmup: float | None = Field(default=None, ge=0, lt=1)
    every: int = Field(default=10, ge=1)
    factor: float = Field(default=0.1, gt=0, lt=1)
    floor: float = Field(default=0.0, ge=0)
    patience: int = Field(default=2, ge=0)
    metric: Metric = "loss"


class Loss(_Part):
    """Binary cross-entropy.

    Attributes:
        label_smoothing: Share s by which labels are drawn to the middle: 0 and 1 become s/2 and 1 - s/2.
        distillation: Share of a teacher's probability in what is learnt, the rest being the label; without a teacher
            of no effect. Hinton et al. (2015), "Distilling the knowledge in a neural network", at temperature 1.
        class_weights: "balanced" weighs each class by the inverse of its share among the training images.
    """

    label_smoothing: float = Field(default=0.0, ge=0, lt=1)
    distillation: float = Field(default=0.5, ge=0, le=1)
    class_weights: Literal["none", "balanced"] = "none"


class Averaging(_Part):
    """Averaged weights.

    `ema`: exponential moving average over the steps. `swa`: plain mean of the weights at the ends of the epochs after
    the share `start` of them (Izmailov et al. 2018); running statistics of batch norm are averaged with them.
    """

    name: Literal["none", "ema", "swa"] = "none"
    decay: float = Field(default=0.998, gt=0, lt=1)
    start: float = Field(default=0.75, ge=0, lt=1)


class Stopping(_Part):
    """Early stopping on a metric of the validation split; the best epoch's weights are kept in any case.

    Attributes:
        metric: `loss` and other errors are the better the smaller, all else the larger.
        patience: Epochs without improvement after which a stage ends.
        least_improvement: What counts as one.
    """

    metric: Metric = "auroc"
    patience: int = Field(default=5, ge=1)
    least_improvement: float = Field(default=0.0, ge=0)


class FineTuning(_Part):
    """A second stage, from the best weights of the first, usually with less frozen and at a lower rate.

    Attributes:
        epochs: At most so many.
        lr: Learning rate at its peak.
        freeze: Parts of the network that stay frozen.
    """

    epochs: int = Field(ge=1)
    lr: float = Field(gt=0)
    freeze: list[str] = Field(default_factory=list)


class Probe(_Part):
    """Instead of gradient descent: simple classifiers on the features of a frozen body, the best on validation kept.

    Attributes:
        heads: `logistic`, L2-regularised logistic regression, and `knn`, nearest neighbours, both on standardised
            features.
        inverse_penalties: Candidates for scikit-learn's C of `logistic`.
        neighbours: Candidates for the number of neighbours of `knn`.
    """

    heads: list[Literal["logistic", "knn"]] = Field(default=["logistic", "knn"], min_length=1)
    inverse_penalties: list[float] = Field(default=[0.0001, 0.001, 0.01, 0.1, 1.0], min_length=1)
    neighbours: list[int] = Field(default=[5, 20, 50], min_length=1)


class Learner(_Part):
    """Instead of gradient descent: a classifier of scikit-learn on the descriptors of model `texture`.

    Candidates for its parameters are compared within folds of the training split, by slide or patient where these are
    known. The one with the best mean of `stopping.metric` over the folds is kept, fitted to the whole split.

    Attributes:
        name: `logistic`, LogisticRegression on standardised features; `tree`, DecisionTreeClassifier; `bagging`,
            BaggingClassifier of such trees; `forest`, RandomForestClassifier; `boosting`,
            HistGradientBoostingClassifier without early stopping.
        parameters: By scikit-learn's names: a value, a list of candidates, or for `random` search also a range as
            spaces write it, `{float: [0.01, 0.3], log: true}` or `{int: [8, 64]}`. `estimator__...` reaches the
            trees of `bagging`.
        search: `grid`, all combinations of the lists; `random`, `trials` of them, drawn.
        trials: Candidates of a random search.
        folds: How many.
    """

    name: Literal["logistic", "tree", "bagging", "forest", "boosting"]
    parameters: dict[str, Any] = Field(default_factory=dict)
    search: Literal["grid", "random"] = "grid"
    trials: int = Field(default=10, ge=1)
    folds: int = Field(default=3, ge=2)

    @model_validator(mode="after")
    def _known_values(self) -> Learner:
        for name, value in self.parameters.items():
            if isinstance(value, dict):
                if self.search == "grid":
                    raise ValueError(f"parameters.{name}: a range needs search: random")
                if not isinstance(parse_distribution(name, value), Range):
                    raise ValueError(f"parameters.{name}: expected {{int: [low, high]}} or {{float: [low, high]}}")
            elif isinstance(value, list) and not value:
                raise ValueError(f"parameters.{name}: no candidate")
        return self


class Calibration(_Part):
    """What is fitted on the calibration split, and on nothing else.

    Attributes:
        method: From the logit to the probability: `temperature`, `platt`, `isotonic`, `none`, or `auto`, the best of
            them by cross-validation within the calibration split, see `choose_calibrator`.
        threshold: Policy that chooses the threshold, see `fit_threshold`.
        coverage: Of each class by its prediction sets, which decide what is referred; None refers nothing.
    """

    method: Literal["auto", "none", "temperature", "platt", "isotonic"] = "auto"
    threshold: str = "f1"
    coverage: float | None = Field(default=0.9, gt=0, lt=1)

    @model_validator(mode="before")
    @classmethod
    def _older_recipes(cls, document: Any) -> Any:
        """Recipes of older runs say `temperature: true` or false."""
        if isinstance(document, dict) and isinstance(document.get("temperature"), bool) and "method" not in document:
            method = "temperature" if document["temperature"] else "none"
            return {name: value for name, value in document.items() if name != "temperature"} | {"method": method}
        return document

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
        batch_size: Images of a step, give or take one.
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
    published: dict[str, Any] = Field(default_factory=dict)
    corrected: list[str] = Field(default_factory=list)
    preprocessing: Preprocessing = Preprocessing()
    augmentation: Augmentation = Augmentation()
    model: Architecture
    weights: str = "random"
    freeze: list[str] = Field(default_factory=list)
    probe: Probe | None = None
    learner: Learner | None = None
    symmetries: bool = False
    epochs: int = Field(ge=1)
    batch_size: int = Field(default=64, ge=2)
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
        return self

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
