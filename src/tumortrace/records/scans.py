"""What is recorded of a scan of a slide, and of one that was asked of a server."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import ConfigDict, Field

from tumortrace.records.evaluation import NamedModel, Precision
from tumortrace.records.metrics import Drift, Estimate
from tumortrace.records.record import Part, Record


class SlideScore(Estimate):
    """The score of a slide, how it is defined, and why it has no interval."""

    definition: str = ""
    interval: str = ""


class Ranged(Part):
    """A value, and its range by the model's own doubt, which is no confidence interval."""

    value: float | None = None
    range: tuple[float, float] | None = None


class TumourArea(Part):
    """How much of the tissue lies in positive tiles."""

    share: Ranged = Field(default_factory=Ranged)
    mm2: Ranged = Field(default_factory=Ranged)
    definition: str = ""


class ScanRecord(Record):
    """`scan.json`: what a scan of a slide found; see `tumortrace.slides.scan`.

    Attributes:
        width: In pixels of level 0, like `height`.
        resolution: Micrometres per pixel of level 0, None where not known.
        level: Of the pyramid, from which tiles were read; `level_factor` is how many times smaller it is, and
            `resampling` how its pixels became those of a tile; `read_level` is what was asked for.
        plane: Of focus, from 1, as was asked; None for the middle one, or where there are none.
        content: By which the slide is known again, wherever it lies; `request` by which all that was asked is.
        precision: How exactly the network computed.
        tissue_by: `colour`, `darkness` (of a grey slide), or `mask`.
        left_out: Area that was left out as too pale though it is no glass, as a share of it and the tissue.
        no_tissue: Shares of the slide that are no tissue, by their reason.
        tiles: How many were looked at; `positive_tiles`, `referred_tiles` and `unfamiliar_tiles` are some of them.
        blurred_tiles: Those out of focus; `blurred_share` of the tissue lies in them (`slides.focus`).
        drift: How far the tiles as a whole lie from the training images, where the model can say.
        score: Of the slide.
        outlines: Number of outlines.
        seconds: Of all sittings, where it was interrupted; of one that was killed, up to the last batch that it kept.
        files: By what they are.
    """

    FILE: ClassVar[str] = "scan.json"
    WHOSE: ClassVar[str] = "the folder of a finished scan"

    slide: str = ""
    width: int = 0
    height: int = 0
    resolution: float | None = None
    level: int | None = None
    level_factor: float | None = None
    resampling: str = ""
    read_level: str = "auto"
    plane: int | None = None
    content: str = ""
    request: str = ""
    precision: Precision = Field(default_factory=Precision)
    tissue_by: str = "colour"
    left_out: float | None = None
    no_tissue: dict[str, float] = {}
    model: NamedModel = Field(default_factory=NamedModel)
    positive_class: str = ""
    overlap: float = 0.0
    tiles: int = 0
    tissue_mm2: float | None = None
    positive_tiles: int = 0
    positive_share: float | None = None
    referred_tiles: int = 0
    unfamiliar_tiles: int | None = None
    blurred_tiles: int | None = None
    blurred_share: float | None = None
    drift: Drift | None = None
    max_probability: float | None = None
    score: SlideScore = Field(default_factory=SlideScore)
    tumour: TumourArea = Field(default_factory=TumourArea)
    outlines: int = 0
    threshold: float | None = None
    seconds: float = 0.0
    notes: list[str] = []
    files: dict[str, str] = {}
    research_use: str = ""


class ScanJob(Record):
    """`job.json`: a scan that was asked of a server, and where it stands.

    Attributes:
        id: Random, in hexadecimal; its folder's name.
        name: The slide's name as it is shown; never a path.
        model: Name of the model.
        options: `overlap`, `resolution`, `patch_resolution`, `bits`, `plane`, `dense` as `scan` takes them.
        uploaded: Whether the slide lies in the job's folder; else its name is that of one in the served folder.
        created: Seconds since 1970.
        error: Cause and remedy of a failure.
        scanned: Bytes and time of change of the slide's file when its scan began, by which it is known again.
        done: Tiles done; not on disk, like `total`, which is 0 until it is known.
    """

    FILE: ClassVar[str] = "job.json"
    model_config = ConfigDict(validate_by_name=True, validate_by_alias=True, serialize_by_alias=True)

    id: str
    name: str
    model: str
    options: dict[str, int | float] = {}
    uploaded: bool = False
    created: float = 0.0
    status: Literal["queued", "running", "done", "failed"] = "queued"
    error: dict[str, str] | None = None
    scanned: list[int] | None = Field(default=None, alias="file")
    done: int = Field(default=0, exclude=True)
    total: int = Field(default=0, exclude=True)
