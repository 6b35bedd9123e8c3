"""What is recorded when a model meets other data: evaluations, stress tests, comparisons, explanations, scans."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field

from tumortrace.records.metrics import Estimate, SplitMetrics
from tumortrace.records.record import Open, Part, Record
from tumortrace.records.run import Data


class EvaluationRecord(Record):
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
    versions: dict[str, str] = {}
    machine: str = ""
    finished: str | None = None
    research_use: str = ""


class StressedModel(Part):
    """The model of a stress test."""

    name: str = ""
    weights_sha256: str = ""
    symmetries: bool = False


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
    """

    strength: int
    amount: float | None = None
    metrics: SplitMetrics = Field(default_factory=SplitMetrics)
    difference: dict[str, Estimate] = {}
    agreement: Estimate | None = None
    probability_change: float | None = None
    referred: Estimate | None = None
    out_of_distribution: Estimate | None = None


class Corrupted(Part):
    """One corruption at all its strengths; `ordered` says whether a greater strength is worse."""

    label: str = ""
    unit: str = ""
    ordered: bool = True
    levels: list[Level] = []


class StressRecord(Record):
    """`stress.json`: a model on corrupted images beside the same images as they are."""

    FILE: ClassVar[str] = "stress.json"
    WHOSE: ClassVar[str] = "the folder of a stress test"

    verb: str = ""
    command: str = ""
    seed: int = 0
    model: StressedModel = Field(default_factory=StressedModel)
    data: Data = Field(default_factory=Data)
    classes: list[str] = []
    notes: list[str] = []
    clean: SplitMetrics = Field(default_factory=SplitMetrics)
    corruptions: dict[str, Corrupted] = {}
    method: dict[str, str] = {}
    versions: dict[str, str] = {}
    finished: str | None = None
    research_use: str = ""


class StressPlan(Record):
    """`plan.json` of a stress test: all that its predictions depend on besides corruption and strength."""

    FILE: ClassVar[str] = "plan.json"

    procedure: int
    model: str
    data: str
    images: str
    seed: int
