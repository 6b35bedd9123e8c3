"""What is recorded of a body's features across centres."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field

from tumortrace.records.metrics import Estimate
from tumortrace.records.record import Part, Record


class CentreMeasures(Part):
    """Whether features tell tissue or hospital, of a set of images.

    Attributes:
        index: Robustness index in [0, 1]: of the neighbours that share either class or centre with an image, the share
            that shares its class.
        support: Share of images with such a neighbour.
        margin: Median of the images' margins in [-1, 1]; above 0 those of the same class from other centres are nearer.
        worst: Mean margin of the worst tenth of the images.
        centre_bound: Share of images whose margin is not above 0.
        margin_support: Share of images that have a margin.
    """

    index: Estimate = Field(default_factory=Estimate)
    support: Estimate = Field(default_factory=Estimate)
    margin: Estimate = Field(default_factory=Estimate)
    worst: Estimate = Field(default_factory=Estimate)
    centre_bound: Estimate = Field(default_factory=Estimate)
    margin_support: Estimate = Field(default_factory=Estimate)


class CentreRecord(CentreMeasures, Record):
    """`centres.json`: whether a body's features tell tissue or hospital; see `tumortrace.evaluation.centres`.

    Attributes:
        column: Of the data, that names the centre.
        centres: Images of each.
        neighbours: How many of the nearest images count.
        chance: The index if neighbours were drawn blindly from these images.
        by_centre: The same of the images of each centre.
        notes: What has to be said.
    """

    FILE: ClassVar[str] = "centres.json"
    WHOSE: ClassVar[str] = "the folder of a probe's run"

    column: str = ""
    centres: dict[str, int] = {}
    neighbours: int = 0
    chance: float | None = None
    by_centre: dict[str, CentreMeasures] = {}
    notes: list[str] = []
