"""What a bundle says of its model, for those that tell of it; `models.bundle` has the whole, and opens it."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field

from tumortrace.records.record import Open, Part, Record

#: Files of a bundle, and the folder of its generator.
DESCRIPTION, WEIGHTS, LIKENESS, ONNX = "model.json", "weights.safetensors", "likeness.safetensors", "model.onnx"
ONNX_INT8 = "model.int8.onnx"
DRIFT, GENERATOR = "drift.safetensors", "super_resolution"


class CalibrationMap(Part):
    """How logits become probabilities; bends of the line in `knots` and `values`."""

    method: str | None = None
    slope: float = 1.0
    knots: list[float] = []
    values: list[float] = []


class NetworkFacts(Part):
    """Which network, by its name in the registry."""

    name: str = ""
    arguments: Open = {}


class TrainedOn(Part):
    """What a model has learnt from."""

    fingerprint: str | None = None
    prevalence: float | None = None
    recipe: str | None = None


class ClassFacts(Part):
    """More than two classes, and which of them are positive."""

    names: list[str] = []
    positive: list[str] = []


class ModelRecord(Record):
    """`model.json` of any format.

    Attributes:
        temperature: Of format 1, which has no `calibration`.
        conformal: Its quantiles and how they were found.
    """

    FILE: ClassVar[str] = DESCRIPTION
    WHOSE: ClassVar[str] = "a bundle"

    architecture: NetworkFacts = Field(default_factory=NetworkFacts)
    classes: list[str] = []
    several: ClassFacts | None = None
    temperature: float | None = None
    calibration: CalibrationMap | None = None
    threshold: float | None = None
    threshold_policy: str | None = None
    conformal: Open | None = None
    training: TrainedOn = Field(default_factory=TrainedOn)
    weights_sha256: str | None = None

    @property
    def positive_names(self) -> list[str]:
        """Of more than two classes those that are positive."""
        return [] if self.several is None else self.several.positive
