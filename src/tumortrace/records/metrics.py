"""What was measured of predictions: metrics, calibration, abstention, distance from the training images."""

from __future__ import annotations

from collections.abc import ItemsView, Iterator
from typing import Annotated, Any, ClassVar, Literal

from pydantic import BeforeValidator, Field, JsonValue, RootModel

from tumortrace.records.record import OnDisk, Open, Part, Record


def _both_ends(ends: Any) -> Any:
    """An interval of which an end is not a number is none."""
    return None if isinstance(ends, list | tuple) and None in ends else ends


class Estimate(Part):
    """A number and its 95 % interval; each is None where it is not defined.

    Example:
        >>> Estimate(value=0.9, ci95=(0.85, 0.94)).ci95
        (0.85, 0.94)
    """

    value: float | None = None
    ci95: Annotated[tuple[float, float] | None, BeforeValidator(_both_ends)] = None


class Mean(Estimate):
    """A mean over `n` images, with its interval."""

    n: int = 0


class Estimates(Part):
    """Named estimates beside other fields; `part["auroc"]` is one of them."""

    __pydantic_extra__: dict[str, Annotated[Estimate | JsonValue, Field(union_mode="left_to_right")]] = Field(
        init=False
    )

    def __getitem__(self, name: str) -> Estimate:
        """The estimate of a name.

        Raises:
            KeyError: There is none.
        """
        entry = self.get(name)
        if entry is None:
            raise KeyError(name)
        return entry

    def get(self, name: str) -> Estimate | None:
        """The estimate of a name, or None where there is none."""
        entry = getattr(self, name) if name in type(self).model_fields else (self.model_extra or {}).get(name)
        return entry if isinstance(entry, Estimate) else None

    def __contains__(self, name: object) -> bool:
        """Whether there is an estimate of that name."""
        return isinstance(name, str) and self.get(name) is not None

    @property
    def estimates(self) -> dict[str, Estimate]:
        """All of them, in the order of the file."""
        return {name: entry for name, entry in (self.model_extra or {}).items() if isinstance(entry, Estimate)}


class ConfusionMatrix(Part):
    """Images by label and call."""

    tn: int
    fp: int
    fn: int
    tp: int


class Called(Estimates):
    """Metrics of calls at one threshold."""

    confusion_matrix: ConfusionMatrix | None = None
    threshold: float | None = None


class ClassScores(Part):
    """A row of the classification report."""

    precision: Estimate
    recall: Estimate
    f1: Estimate
    support: int


class OperatingPoints(Part):
    """What is reached where the other of the two is held at a value, which is the key, as in "0.95"."""

    sensitivity_at_specificity: dict[str, Estimate] = {}
    specificity_at_sensitivity: dict[str, Estimate] = {}


class Benefit(Part):
    """Net benefit at one threshold, of the model and of acting on all."""

    threshold: float
    model: Estimate
    all: Estimate


class GroupMetrics(Estimates):
    """The main figures of one slide or patient."""

    group: str
    n: int = 0
    positives: int = 0
    prevalence: float | None = None


class ClassEstimates(Estimates):
    """The figures of one of several classes against the rest; `support` images have it."""

    support: int = 0


class ClassMetrics(Estimates):
    """What was measured of more than two classes, beside tumour against the rest; see `evaluation.classes`.

    Attributes:
        names: The classes, in their order.
        n: Images whose class is known.
        ordered: Whether the order means something.
        confusion_matrix: Images by class (rows) and predicted class.
        by_class: Each class against the rest.
    """

    names: list[str] = []
    n: int = 0
    ordered: bool = False
    confusion_matrix: list[list[int]] = []
    by_class: dict[str, ClassEstimates] = {}


class SplitMetrics(Called):
    """Everything that is measured on one split: `metrics["auroc"].value`, and what stands beside the metrics.

    Attributes:
        n: Images; `n_groups` slides or patients, None where not known.
        prevalence: Share of positive images.
        intervals: How they were made, in a sentence.
        at_half: The metrics of calls, at the threshold .5.
        classification_report: By `negative`, `positive`, `macro` and `weighted`.
        decision_curve: Net benefit by threshold.
        groups: Each slide or patient; None where that was not asked.
        subgroups: `{column: {level: metrics}}`.
        classes: Of the classes themselves, where there are more than two.
    """

    n: int = 0
    n_groups: int | None = None
    prevalence: float | None = None
    intervals: str = ""
    at_half: Called | None = None
    classification_report: dict[str, ClassScores] = {}
    operating_points: OperatingPoints | None = None
    decision_curve: list[Benefit] = []
    groups: list[GroupMetrics] | None = None
    subgroups: dict[str, dict[str, SplitMetrics]] = {}
    classes: ClassMetrics | None = None


class Metrics(OnDisk, RootModel[dict[str, SplitMetrics]]):
    """`metrics.json`: what was measured, by split.

    Example:
        >>> metrics = Metrics.model_validate({"test": {"n": 9, "auroc": {"value": 0.9, "ci95": None}}})
        >>> metrics["test"]["auroc"].value, "validation" in metrics
        (0.9, False)
    """

    FILE: ClassVar[str] = "metrics.json"
    WHOSE: ClassVar[str] = "the folder of a run or of an evaluation"

    def __getitem__(self, split: str) -> SplitMetrics:
        """What was measured on a split."""
        return self.root[split]

    def get(self, split: str) -> SplitMetrics | None:
        """The same, or None where nothing was."""
        return self.root.get(split)

    def __contains__(self, split: object) -> bool:
        """Whether anything was measured on a split."""
        return split in self.root

    def __iter__(self) -> Iterator[str]:  # type: ignore[override]
        """The splits."""
        return iter(self.root)

    def __len__(self) -> int:
        """How many splits there are."""
        return len(self.root)

    def items(self) -> ItemsView[str, SplitMetrics]:
        """Splits and what was measured on them."""
        return self.root.items()


class Choice(Part):
    """How the calibration was chosen; see `choose_calibrator`."""

    asked: str = ""
    method: str = ""
    n: int = 0
    n_groups: int | None = None
    cross_validated_nll: dict[str, float] | None = None
    why: str = ""


class CalibrationRecord(Record):
    """`calibration.json`: calibration errors of one split before and after calibration, by name."""

    FILE: ClassVar[str] = "calibration.json"

    split: str = ""
    choice: Choice | None = None
    before: dict[str, Estimate] | None = None
    after: dict[str, Estimate] = {}


class Shares(Estimates):
    """Shares of images by what was decided; see `evaluation.abstention`."""

    coverage: float | None = None
    unit: str = "image"


class RiskCoverage(Part):
    """Share of wrong calls among the most certain images, at each share kept."""

    kept: list[float] = []
    risk: list[Estimate] = []


class AbstentionRecord(Record):
    """`abstention.json`: what referral brings on one split."""

    FILE: ClassVar[str] = "abstention.json"

    split: str = ""
    n: int = 0
    n_groups: int | None = None
    decisions: Shares | None = None
    triage: Shares | None = None
    aurc: Estimate = Field(default_factory=Estimate)
    risk_coverage: RiskCoverage = Field(default_factory=RiskCoverage)


class Outside(Part):
    """How many images of a split do not look like the training images."""

    n: int = 0
    outside: Estimate = Field(default_factory=Estimate)


class DistributionRecord(Record):
    """`distribution.json`: how many images of each split lie out of distribution; `limits` are those of model.json."""

    FILE: ClassVar[str] = "distribution.json"

    split: str = ""
    limits: Open | None = None
    splits: dict[str, Outside] = {}


class Drift(Part):
    """How far a set of images as a whole lies from the training images; see `evaluation.drift`.

    Attributes:
        images: Of the set; `used` of them were compared, and at least `minimum` are needed to say anything.
        groups: Slides or patients of the set, None where not known.
        distance: Squared maximum mean discrepancy, without bias, so that it may be below 0; None of too few images.
        grouped: Whether slides or patients of the training data are known; else `distances` are of random draws.
        known_groups: Slides or patients of the training data that have enough images to be drawn.
        drawn_groups: Slides or patients that were drawn at a time from the training data, with `drawn_images` of each.
        distances: Of what was drawn, from the others of the training data, rising.
        further_than: Over how many of `distances` the set's lies.
        needed: Slides or patients of the training data without which there is no verdict.
        verdict: `further` where fewer than one in twenty lie as far, `among`, or None where that cannot be said.
    """

    images: int = 0
    used: int = 0
    minimum: int = 0
    groups: int | None = None
    distance: Estimate | None = None
    grouped: bool = False
    known_groups: int = 0
    drawn_groups: int = 1
    drawn_images: int = 0
    distances: list[float] = []
    further_than: int = 0
    needed: int = 0
    verdict: Literal["further", "among"] | None = None

    @property
    def compared(self) -> str:
        """What the set is compared with, in words."""
        if not self.grouped:
            return "random draws"
        one = "slides or patients"
        return one if self.drawn_groups == 1 else f"draws of {self.drawn_groups} {one}"


class DriftRecord(Record):
    """`drift.json`: how far the images of each split, as a whole, lie from the training images."""

    FILE: ClassVar[str] = "drift.json"

    split: str = ""
    splits: dict[str, Drift] = {}
