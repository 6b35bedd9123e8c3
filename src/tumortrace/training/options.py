"""The parts of a recipe, each with its options and their defaults."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, field_validator, model_validator

from tumortrace.errors import RecipeError
from tumortrace.evaluation.class_measures import WATCHED
from tumortrace.evaluation.measures import MEASURES
from tumortrace.evaluation.thresholds import parse_policy
from tumortrace.training.distributions import Range, parse_distribution
from tumortrace.training.documents import Part


class Optimiser(Part):
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


def _known_metric(name: str) -> str:
    if name not in ("loss", *MEASURES, *WATCHED):
        raise ValueError(f"{name!r} is no metric; expected loss, {', '.join((*MEASURES, *WATCHED))}")
    return name


#: What can be watched on the validation split: the `loss`, a metric by its name, or one of more than two classes.
Metric = Annotated[str, AfterValidator(_known_metric)]


class Schedule(Part):
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


class Loss(Part):
    """Cross-entropy, of two classes or of more.

    Attributes:
        label_smoothing: Share s by which labels are drawn to the middle: 0 and 1 become s/2 and 1 - s/2; of K classes,
            s is spread over all of them.
        distillation: Share of a teacher's probability in what is learnt, the rest being the label; without a teacher
            of no effect. Hinton et al. (2015), "Distilling the knowledge in a neural network", at temperature 1.
        class_weights: "balanced" weighs each class by the inverse of its share among the training images.
    """

    label_smoothing: float = Field(default=0.0, ge=0, lt=1)
    distillation: float = Field(default=0.5, ge=0, le=1)
    class_weights: Literal["none", "balanced"] = "none"


class Averaging(Part):
    """Averaged weights.

    `ema`: exponential moving average over the steps. `swa`: plain mean of the weights at the ends of the epochs after
    the share `start` of them (Izmailov et al. 2018); running statistics of batch norm are averaged with them.
    """

    name: Literal["none", "ema", "swa"] = "none"
    decay: float = Field(default=0.998, gt=0, lt=1)
    start: float = Field(default=0.75, ge=0, lt=1)


class Stopping(Part):
    """Early stopping on a metric of the validation split; the best epoch's weights are kept in any case.

    Attributes:
        metric: `loss` and other errors are the better the smaller, all else the larger. Of more than two classes also
            `class_loss`, `class_macro_auroc`, `class_balanced_accuracy`, `class_macro_f1` and their like.
        patience: Epochs without improvement after which a stage ends.
        least_improvement: What counts as one.
    """

    metric: Metric = "auroc"
    patience: int = Field(default=5, ge=1)
    least_improvement: float = Field(default=0.0, ge=0)


class FineTuning(Part):
    """A second stage, from the best weights of the first, usually with less frozen and at a lower rate.

    Attributes:
        epochs: At most so many.
        lr: Learning rate at its peak.
        freeze: Parts of the network that stay frozen.
    """

    epochs: int = Field(ge=1)
    lr: float = Field(gt=0)
    freeze: list[str] = Field(default_factory=list)


class Probe(Part):
    """Instead of gradient descent: simple classifiers on the features of a frozen body, the best on validation kept.

    Attributes:
        heads: `logistic`, L2-regularised logistic regression, and `knn`, nearest neighbours, both on standardised
            features.
        inverse_penalties: Candidates for scikit-learn's C of `logistic`.
        neighbours: Candidates for the number of neighbours of `knn`.
        shots: Images of each class that a regression is fitted to besides, to see how few labels the features need.
        repeats: How often they are drawn anew.
        centre: Column of the data that names the hospital, across which the features are looked at besides; None takes
            one that is named so.
    """

    heads: list[Literal["logistic", "knn"]] = Field(default=["logistic", "knn"], min_length=1)
    inverse_penalties: list[float] = Field(default=[0.0001, 0.001, 0.01, 0.1, 1.0], min_length=1)
    neighbours: list[int] = Field(default=[5, 20, 50], min_length=1)
    shots: list[Annotated[int, Field(ge=1)]] = Field(default=[1, 5, 10, 50])
    repeats: int = Field(default=10, ge=1)
    centre: str | None = None


class Classifier(Part):
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
    def _known_values(self) -> Classifier:
        for name, value in self.parameters.items():
            if isinstance(value, dict):
                if self.search == "grid":
                    raise ValueError(f"parameters.{name}: a range needs search: random")
                if not isinstance(parse_distribution(name, value), Range):
                    raise ValueError(f"parameters.{name}: expected {{int: [low, high]}} or {{float: [low, high]}}")
            elif isinstance(value, list) and not value:
                raise ValueError(f"parameters.{name}: no candidate")
        return self


class Calibration(Part):
    """What is fitted on the calibration split, and on nothing else.

    Attributes:
        method: From the logit to the probability: `temperature`, `platt`, `isotonic`, `none`, or `auto`, the best of
            them by cross-validation within the calibration split, see `choose_calibrator`.
        threshold: Policy that chooses the threshold, see `fit_threshold`.
        coverage: Of each class by its prediction sets, which decide what is referred; None refers nothing.
        classes: Of more than two classes, how the probability of tumour is parted among them, and the rest among the
            others: `temperature` or `vector` scaling, or `none`, see `fit_class_calibrator`.
        sets: Of more than two classes, how prediction sets are made: `aps` or `lac`, see `strangeness`.
    """

    method: Literal["auto", "none", "temperature", "platt", "isotonic"] = "auto"
    threshold: str = "f1"
    coverage: float | None = Field(default=0.9, gt=0, lt=1)
    classes: Literal["none", "temperature", "vector"] = "temperature"
    sets: Literal["lac", "aps"] = "aps"

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
