"""What is recorded when a model meets other data: evaluations, stress tests, comparisons, explanations."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field

from tumortrace.records.centres import CentreRecord
from tumortrace.records.metrics import Drift, Estimate, Mean, SplitMetrics
from tumortrace.records.record import Made, Open, Part, Record
from tumortrace.records.run import Data


class EvaluationRecord(Made):
    """`evaluation.json`: which model met which data.

    Attributes:
        verb: Always evaluate.
        command: That does it again.
        model: What its model.json says; empty where a table of predictions was evaluated.
        data: What was measured.
        classes: Of the model.
        notes: What has to be said beside the numbers.
        subgroups: Columns on whose levels everything was measured apart.
    """

    FILE: ClassVar[str] = "evaluation.json"
    WHOSE: ClassVar[str] = "the folder of an evaluation"

    verb: str = ""
    command: str = ""
    model: Open = {}
    data: Data = Field(default_factory=Data)
    classes: list[str] = []
    positive_class: str = ""
    notes: list[str] = []
    subgroups: list[str] = []
    machine: str = ""


class NamedModel(Part):
    """A model by name and by its weights; `symmetries` is on record where views would change what is measured."""

    name: str = ""
    weights_sha256: str = ""
    symmetries: bool | None = None


class Precision(Part):
    """How exactly a network computed, and why so.

    Attributes:
        taken: `fp32`, `bf16`, or the name of what computes an exported file.
        why: In words.
        checked: Images that were computed both ways, `flips` of which got another call; 0 where there was no check.
        apart: By how much a probability differed at most.
        faster: How many times as fast bfloat16 is on this machine.
    """

    taken: str = "fp32"
    why: str = ""
    checked: int = 0
    flips: int = 0
    apart: float | None = None
    faster: float | None = None

    @property
    def line(self) -> str:
        """What a user is told; blank where there was nothing to choose."""
        return "" if not self.checked and self.faster is None else f"computed in {self.taken}: {self.why}"


class PredictRecord(Made):
    """`<predictions>.csv.json`: how the predictions beside it came about.

    Attributes:
        verb: Always predict.
        command: That does it again.
        model: That predicted.
        data: What was predicted.
        precision: How exactly the network computed.
        notes: What has to be said of the images and of the answers.
        drift: How far the images as a whole lie from the training images, where the model can say.
    """

    FILE: ClassVar[str] = "predictions.csv.json"
    WHOSE: ClassVar[str] = "the folder of predictions"

    verb: str = "predict"
    command: str = ""
    model: NamedModel = Field(default_factory=NamedModel)
    data: Data = Field(default_factory=Data)
    precision: Precision = Field(default_factory=Precision)
    notes: list[str] = []
    drift: Drift | None = None


class Site(Part):
    """What a model makes of images that all come from one laboratory: a single draw of a corruption for the whole set.

    Attributes:
        name: Of the draw.
        metrics: Those of `SITE_MEASURES`, with their intervals.
    """

    name: str
    metrics: dict[str, Estimate] = {}


class Level(Part):
    """One strength of a corruption.

    Attributes:
        strength: From 1 to 5.
        amount: In the corruption's unit.
        metrics: At this strength.
        difference: From the clean images, by metric.
        agreement: Share of calls that stay.
        probability_change: Mean absolute difference.
        referred: Share referred.
        out_of_distribution: Share flagged, None where images are not scored.
        sites: The same strength as single laboratories would have it.
    """

    strength: int
    amount: float | None = None
    metrics: SplitMetrics = Field(default_factory=SplitMetrics)
    difference: dict[str, Estimate] = {}
    agreement: Estimate | None = None
    probability_change: float | None = None
    referred: Estimate | None = None
    out_of_distribution: Estimate | None = None
    sites: list[Site] = []


class Corrupted(Part):
    """One corruption at all its strengths; `ordered` says whether a greater strength is worse."""

    label: str = ""
    unit: str = ""
    ordered: bool = True
    levels: list[Level] = []


class StressRecord(Made):
    """`stress.json`: a model on corrupted images beside the same images as they are."""

    FILE: ClassVar[str] = "stress.json"
    WHOSE: ClassVar[str] = "the folder of a stress test"

    verb: str = ""
    command: str = ""
    seed: int = 0
    model: NamedModel = Field(default_factory=NamedModel)
    data: Data = Field(default_factory=Data)
    classes: list[str] = []
    notes: list[str] = []
    clean: SplitMetrics = Field(default_factory=SplitMetrics)
    corruptions: dict[str, Corrupted] = {}
    method: dict[str, str] = {}


class StressPlan(Record):
    """`plan.json` of a stress test: all that its predictions depend on besides corruption and strength."""

    FILE: ClassVar[str] = "plan.json"

    procedure: int
    model: str
    data: str
    images: str
    seed: int


class ComparedRun(Part):
    """One set of predictions of a comparison, as it is by itself; `split` may be out-of-fold.

    `centres` is of a probe's features, where several runs have measured these on the same images.
    """

    name: str
    folder: str = ""
    split: str = ""
    fingerprint: str | None = None
    metrics: SplitMetrics = Field(default_factory=SplitMetrics)
    centres: CentreRecord | None = None


class PairedTest(Part):
    """DeLong's or McNemar's test; `p_holm` is corrected for the number of tests, the rest depends on the test."""

    p: float | None = None
    p_holm: float | None = None


class Difference(Part):
    """Two runs, second minus first; `centres` of their features across centres.

    Of more than two classes `classes`, and McNemar's test of classes named rightly.
    """

    first: str
    second: str
    metrics: dict[str, Estimate] = {}
    delong: PairedTest = Field(default_factory=PairedTest)
    mcnemar: PairedTest = Field(default_factory=PairedTest)
    classes: dict[str, Estimate] = {}
    class_mcnemar: PairedTest | None = None
    centres: dict[str, Estimate] = {}


class ComparisonRecord(Made):
    """`compare.json`: runs side by side on the same images."""

    FILE: ClassVar[str] = "compare.json"
    WHOSE: ClassVar[str] = "the folder of a comparison"

    verb: str = ""
    runs: list[ComparedRun] = []
    images: int = 0
    groups: int | None = None
    prevalence: float | None = None
    differences: list[Difference] = []
    method: dict[str, str] = {}
    notes: list[str] = []
    seed: int = 0


class Explained(Part):
    """One image that was explained, or stands on a sheet of its `kind`."""

    id: str = ""
    kind: str | None = None
    label: int | None = None
    probability: float | None = None
    prediction: int | None = None
    decision: str = ""
    figure: str = ""


class ExplanationsRecord(Record):
    """`explanations.json`: what the model looked at in single images."""

    FILE: ClassVar[str] = "explanations.json"
    WHOSE: ClassVar[str] = "the folder of explanations"

    method: str = ""
    methods: list[str] = []
    layer: str | None = None
    target: str = ""
    model: NamedModel = Field(default_factory=NamedModel)
    items: list[Explained] = []
    notes: list[str] = []
    research_use: str = ""


class SheetsRecord(ExplanationsRecord):
    """`sheets.json`: the same on contact sheets of a whole data set."""

    FILE: ClassVar[str] = "sheets.json"

    data: str = ""
    split: str = ""
    figures: list[str] = []
    notes: list[str] = []


class Randomised(Part):
    """Likeness to the maps of the model with a share of its weights random."""

    share: float
    rank_correlation: Mean
    ssim: Mean


class MeasuredMethod(Part):
    """How far the maps of one method can be believed; None where there are no masks.

    Attributes:
        control: Whether it explains nothing and is there to be compared with.
        seconds: Of the processor, per image.
        without_heat: Images whose map is empty.
        depends_on_weights: yes, no, undecided, or None where nothing could be randomised.
    """

    title: str = ""
    control: bool = False
    seconds: float | None = None
    pointing: Mean | None = None
    energy: Mean | None = None
    mask_auc: Mean | None = None
    deletion: Mean | None = None
    insertion: Mean | None = None
    deletion_gain: Mean | None = None
    insertion_gain: Mean | None = None
    randomised: list[Randomised] = []
    depends_on_weights: str | None = None
    without_heat: int = 0


class Chance(Part):
    """What maps without any sense would reach."""

    area: Mean | None = None
    mask_auc: float = 0.5


class ExplanationMeasures(Made):
    """`measures.json`: how far heat maps can be believed."""

    FILE: ClassVar[str] = "measures.json"

    model: NamedModel = Field(default_factory=NamedModel)
    data: Data = Field(default_factory=Data)
    target: str = ""
    threshold: float | None = None
    images: int = 0
    groups: int | None = None
    seed: int = 0
    methods: dict[str, MeasuredMethod] = {}
    random_order: dict[str, Mean] = {}
    chance: Chance = Field(default_factory=Chance)
    intervals: str = ""
    blank: dict[str, Mean] = {}
    notes: list[str] = []


class ShownExample(Part):
    """A picture on an example sheet; `picture` is its own file, of the first few."""

    id: str
    group: str | None = None
    probability: float | None = None
    picture: str | None = None


class Outcome(Part):
    """All images of one outcome, such as the false positives."""

    images: int = 0
    shown: list[ShownExample] = []
    sheet: str | None = None


class ExamplesRecord(Record):
    """`examples/examples.json` of a run or an evaluation: the surest right and wrong predictions."""

    FILE: ClassVar[str] = "examples/examples.json"

    split: str | None = None
    outcomes: dict[str, Outcome] = {}
    research_use: str = ""
