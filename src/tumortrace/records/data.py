"""What is recorded of data: audits, explorations, prepared and generated images, descriptors, exported models."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field

from tumortrace.errors import ModelError, TumorTraceError
from tumortrace.records.metrics import Estimate
from tumortrace.records.model import ONNX
from tumortrace.records.record import Made, Open, Part, Record
from tumortrace.records.run import Data


class ExampleFound(Part):
    """An image or group that a finding concerns; `set` numbers those that belong together, from 1."""

    id: str = ""
    path: str = ""
    says: str = ""
    set: int = 0


class FindingRecord(Part):
    """One thing to know about a data set; `verdict` is error, warning or note."""

    name: str
    verdict: str = "note"
    count: int = 0
    message: str = ""
    remedy: str | None = ""
    examples: list[ExampleFound | list[str] | str] = []


class AuditRecord(Record):
    """`audit.json`: what `check` found.

    Attributes:
        cohort: Name of the data.
        data: Their absolute path, or a specification of synthetic tissue.
        fingerprint: Of ids, labels and files.
        unit: What is counted as an image: `image`, or `slide` where rows are features of slides.
        classes: Images by class.
        groups: Slides or patients.
        splits: Images by split and class.
        quarantined: Images that should be left out.
    """

    FILE: ClassVar[str] = "audit.json"
    WHOSE: ClassVar[str] = "the folder of an audit"
    REMEDY: ClassVar[str | None] = "run the check first"

    cohort: str = ""
    data: str = ""
    fingerprint: str = ""
    images: int = 0
    unit: str = "image"
    classes: dict[str, int] = {}
    groups: int | None = None
    splits: dict[str, dict[str, int]] = {}
    findings: list[FindingRecord] = []
    notes: list[str] = []
    quarantined: int = 0


class ClassImages(Part):
    """How many images a class has; what else is told of it stands in `extra`, by channel."""

    label: int
    name: str = ""
    images: int = 0


class Images(Part):
    """Images of a part of a data set, and the share of positive ones with its interval."""

    images: int = 0
    labelled: int = 0
    positives: int = 0
    prevalence: float | None = None
    ci95: tuple[float, float] | None = None


class SplitImages(Images):
    """One split that the data bring."""

    split: str


class GroupImages(Images):
    """One slide or patient of a data set."""

    group: str


class Groups(Part):
    """The slides or patients of a data set."""

    count: int = 0
    images_without: int = 0
    images_each: dict[str, float | None] | None = None
    prevalence_each: dict[str, float | None] | None = None
    of_one_class: int = 0
    each: list[GroupImages] = []


class ExploredCohort(Part):
    """All images of a data set, counted without opening them."""

    name: str = ""
    data: str = ""
    layout: str = ""
    images: int = 0
    labelled: int = 0
    positive_class: str = ""
    prevalence: float | None = None
    classes: list[ClassImages] = []
    resolution: float | None = None
    notes: list[str] = []
    fingerprint: str = ""
    file_types: dict[str, int] = {}
    splits: list[Open] = []
    groups: Groups | None = None


class Size(Part):
    """Width and height in pixels, and how many images have them."""

    width: int
    height: int
    images: int = 0


class Histogram(Part):
    """Brightness of one class by channel; each is a list of `bins` shares."""

    label: int
    name: str = ""


class Intensity(Part):
    """Histograms of brightness, of all images and by class."""

    bins: int = 0
    all: dict[str, list[float]] = {}
    classes: list[Histogram] = []


class ExploredSample(Part):
    """The images of a data set that were opened; percentiles by class and channel in `mean_colour` and `edges`."""

    asked: int = 0
    images: int = 0
    undecodable: int = 0
    undecodable_ids: list[str] = []
    classes: list[ClassImages] = []
    usual_size: Size | None = None
    sizes: list[Size] = []
    modes: dict[str, int] = {}
    grey: int = 0
    intensity: Intensity = Field(default_factory=Intensity)
    mean_colour: list[ClassImages] = []
    edges: list[ClassImages] = []


class Stain(Part):
    """A stain's unit optical density, and angles in degrees: spread over images, between groups, from the mean."""

    vector: list[float] = []
    spread: float | None = None
    between_groups: float | None = None
    shift: float | None = None


class GroupStains(Part):
    """The stains of one slide or patient."""

    group: str
    images: int = 0
    haematoxylin: Stain = Field(default_factory=Stain)
    eosin: Stain = Field(default_factory=Stain)


class Stains(Part):
    """Macenko's stain vectors, where the images are stained; `reason` says why not."""

    applies: bool = False
    reason: str | None = None
    images: int = 0
    haematoxylin: Stain | None = None
    eosin: Stain | None = None
    groups: list[GroupStains] = []


class Neighbours(Part):
    """Share of an image's nearest neighbours that are of its group or class, observed and by chance."""

    observed: float
    chance: float
    ratio: float | None = None
    ci95: tuple[float | None, float | None] | None = None
    images: int = 0
    neighbours: int = 0


class FeatureMap(Part):
    """How the images lie beside each other by colour and texture."""

    features: list[str] = []
    explained_variance: list[float] = []
    umap: bool = False
    same_group: Neighbours | None = None
    same_class: Neighbours | None = None


class ShownAugmentation(Part):
    """The augmentation that an exploration shows."""

    recipe: str | None = None
    preprocessing: Open = {}
    augmentation: Open = {}
    draws: int = 0
    input_size: Size | None = None
    area_kept: float | None = None


class ExplorationRecord(Record):
    """`statistics.json`: a data set before training; `shown` names the images of the pictures by label."""

    FILE: ClassVar[str] = "statistics.json"
    WHOSE: ClassVar[str] = "the folder of an exploration"
    REMEDY: ClassVar[str | None] = "explore the data first"

    tumortrace: str = ""
    seed: int = 0
    cohort: ExploredCohort = Field(default_factory=ExploredCohort)
    sample: ExploredSample = Field(default_factory=ExploredSample)
    stains: Stains = Field(default_factory=Stains)
    map: FeatureMap = Field(default_factory=FeatureMap)
    augmentation: ShownAugmentation | None = None
    audit: list[FindingRecord] | None = None
    shown: dict[str, list[str]] = {}


class PreparedFrom(Part):
    """The data that were prepared; `size` is height and width in pixels."""

    name: str = ""
    layout: str = ""
    fingerprint: str = ""
    size: list[int] = []
    resolution: float | None = None
    notes: list[str] = []


class PreparedRecord(Record):
    """`prepared.json`: images that `prepare` wrote.

    Attributes:
        status: unfinished or complete; only the latter opens as a cohort.
        request: What the outcome depends on: the data and the steps.
        source: The data.
        steps: What was done, in words; `preprocessing` as a recipe has it.
        size: Height and width in pixels.
        counts: Images by what happened to them.
    """

    FILE: ClassVar[str] = "prepared.json"
    WHOSE: ClassVar[str] = "a folder of prepared images"

    layout: str = ""
    format: int = 1
    status: str = ""
    source: PreparedFrom = Field(default_factory=PreparedFrom)
    steps: str = ""
    preprocessing: Open = {}
    super_resolution: Open | None = None
    classes: list[str] = []
    positive_class: str = ""
    class_names: list[str] = []
    positive_names: list[str] = []
    resolution: float | None = None
    size: list[int] = []
    counts: dict[str, int] = {}
    notes: list[str] = []
    versions: dict[str, str] = {}
    use: str = ""
    request: Open = {}


class SyntheticRecord(Record):
    """`cohort.json`: how generated images came to be; beside a slide, under its name."""

    FILE: ClassVar[str] = "cohort.json"
    UNFINISHED: ClassVar[str] = "cohort.unfinished.json"
    WHOSE: ClassVar[str] = "the folder of a synthetic cohort"

    layout: str = ""
    kind: str = ""
    count: int = 0
    seed: int = 0
    procedure: int = 0
    classes: list[str] = []
    class_names: list[str] = []
    positive_names: list[str] = []
    resolution: float | None = None
    complete: bool | None = None
    tumour_fraction: float | None = None


class FeaturesData(Data):
    """The data of a table of descriptors; `size` is height and width in pixels at which they were computed."""

    size: tuple[int, int] | None = None


class FeaturesRecord(Made):
    """How a table of texture descriptors came to be; beside a CSV, within a Parquet file."""

    FILE: ClassVar[str] = "features.csv.json"

    descriptors: dict[str, Open] = {}
    features: int = 0
    data: FeaturesData = Field(default_factory=FeaturesData)


class Checked(Part):
    """How far an exported model is from torch, by runtime."""

    images: int = 0
    of: str = ""
    largest_difference: dict[str, dict[str, float | None]] = {}


class Quantised(Part):
    """How a model in whole numbers of 8 bits came to be: images of the calibration split, in two parts by group.

    Attributes:
        ranges: Images that the ranges of numbers are from.
        judged: Other images, on which it was compared with the exact model.
        auroc_change: Of the AUROC on these, with its paired interval.
        time: That it took where it was made, for one that the exact model took.
    """

    ranges: int = 0
    judged: int = 0
    auroc_change: Estimate = Field(default_factory=Estimate)
    time: float | None = None


class ExportRecord(Made):
    """What an exported model is; beside it, with `.json` added to its name."""

    FILE: ClassVar[str] = f"{ONNX}.json"
    ERROR: ClassVar[type[TumorTraceError]] = ModelError

    verb: str = ""
    sha256: str = ""
    weights_sha256: str = ""
    input: Open = {}
    outputs: list[str] = []
    checked: Checked = Field(default_factory=Checked)
    quantised: Quantised | None = None
    notes: list[str] = []
