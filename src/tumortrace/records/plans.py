"""What several trainings say together: cross-validation, learning curve, search."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field, JsonValue

from tumortrace.records.metrics import Estimate, SplitMetrics
from tumortrace.records.record import Open, Part, Record


class Spread(Part):
    """Mean and standard deviation over `n` trainings; the interval of the mean is None with too few."""

    mean: float | None = None
    sd: float | None = None
    n: int = 0
    ci95: tuple[float | None, float | None] | None = None


class FoldResult(Part):
    """One fold of one repeat; `metric` gives what was measured on it.

    Attributes:
        run: Its run folder, from that of the cross-validation.
        trained_on: Number of images.
        groups_shared: Slides or patients with images outside of the fold.
        seconds: Of its training.
    """

    repeat: int
    fold: int
    n: int = 0
    n_groups: int | None = None
    run: str = ""
    seed: int | None = None
    trained_on: int | None = None
    threshold: float | None = None
    epochs: int | None = None
    best_epoch: int | None = None
    seconds: float = 0.0
    device: str | None = None
    groups_shared: int = 0

    def metric(self, name: str) -> float | None:
        """The value of a metric, None where it is not defined."""
        value = self.extra.get(name)
        return float(value) if isinstance(value, int | float) else None


class RecipeResult(Part):
    """One recipe: its folds, the spread of each metric over them, and all out-of-fold predictions taken together."""

    folds: list[FoldResult] = []
    summary: dict[str, Spread | None] = {}
    pooled: SplitMetrics = Field(default_factory=SplitMetrics)


class FoldTest(Part):
    """A corrected resampled t-test; `p_holm` is corrected for the number of tests too."""

    t: float | None = None
    p: float | None = None
    p_holm: float | None = None


class RecipeComparison(Part):
    """Two recipes on the same folds, second minus first, by metric."""

    first: str
    second: str
    differences: dict[str, Spread | None] = {}
    tests: dict[str, FoldTest] = {}


class CrossvalRecord(Record):
    """`crossval.json`: what the folds of a cross-validation say together.

    Attributes:
        folds: How many; `repeats` how often they were drawn.
        split: group or random.
        groups_on_both_sides: Slides or patients that stand in several folds.
        copies: Images with a copy in another fold.
        ratio: Test images to the rest, for the corrected interval.
        method: How intervals and tests were made.
    """

    FILE: ClassVar[str] = "crossval.json"
    WHOSE: ClassVar[str] = "the folder of a finished cross-validation"

    folds: int = 0
    repeats: int = 1
    split: str = ""
    images: int = 0
    groups: int | None = None
    groups_on_both_sides: int = 0
    copies: int = 0
    leakage: str = ""
    recipes: dict[str, RecipeResult] = {}
    comparisons: list[RecipeComparison] = []
    ratio: float | None = None
    method: dict[str, str] = {}
    research_use: str = ""


class CurveRun(Part):
    """One model of a learning curve; `groups` and `positives` are of its part of the training split."""

    repeat: int
    fraction: float
    images: int
    groups: int | None = None
    positives: int = 0
    run: str = ""
    seed: int = 0
    seconds: float = 0.0
    metrics: dict[str, Estimate] = {}


class CurveSize(Part):
    """All models of one share of the training split."""

    fraction: float
    images: float
    repeats: int = 1
    metrics: dict[str, Spread] = {}


class CurvePoint(Part):
    """The AUROC that the law gives for a number of images; `times` the largest that was trained on."""

    images: float
    auroc: float
    range95: tuple[float, float] | None = None
    times: int | None = None


class Law(Part):
    """1 - AUROC = floor + scale n^-exponent."""

    floor: float
    scale: float
    exponent: float
    curve: list[CurvePoint] = []
    ahead: list[CurvePoint] = []


class LearningCurveRecord(Record):
    """`learning_curve.json`: models on growing parts of the training split; `law` is None where none can be fitted."""

    FILE: ClassVar[str] = "learning_curve.json"
    WHOSE: ClassVar[str] = "the folder of a finished learning curve"

    runs: list[CurveRun] = []
    sizes: list[CurveSize] = []
    law: Law | None = None
    method: dict[str, str] = {}
    research_use: str = ""


class BestTrial(Part):
    """The trial that a search chose."""

    number: int
    value: float | None = None
    parameters: dict[str, JsonValue] = {}


class StudyRecord(Record):
    """`study.json`: what a search found.

    Attributes:
        space: Name of what was searched.
        objective: As the space has it.
        counts: Trials by state.
        train_command: That trains the best recipe.
        importances: Share of each parameter in the differences between trials, by method; empty where there are few.
        logarithmic: Parameters that are drawn on a logarithmic axis.
    """

    FILE: ClassVar[str] = "study.json"
    WHOSE: ClassVar[str] = "the folder of a finished search"

    space: str = ""
    objective: Open = {}
    counts: dict[str, int] = {}
    best: BestTrial | None = None
    train_command: str = ""
    importances: dict[str, dict[str, float]] = {}
    logarithmic: list[str] = []
