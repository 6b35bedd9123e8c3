"""What is recorded of slides judged as a whole: a learnt score, lesions found, patients and stages, attention."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field

from tumortrace.records.evaluation import NamedModel
from tumortrace.records.metrics import Choice, Estimate, Mean, SplitMetrics
from tumortrace.records.record import Made, Open, Part


class Froc(Part):
    """Lesions found at so many false alarms a slide; see `evaluation.froc`.

    Attributes:
        slides: How many, with and without tumour, of so many `groups` (patients).
        lesions: To be found; `isolated` are isolated tumour cells, which do not count.
        sensitivity: By false alarms a slide, which are the key, as in "0.25".
        mean: Of these sensitivities.
        curve: False alarms a slide and sensitivity, from the surest detection on.
        intervals: How they were made.
    """

    slides: int = 0
    groups: int = 0
    lesions: int = 0
    isolated: int = 0
    sensitivity: dict[str, Estimate] = {}
    mean: Estimate = Field(default_factory=Estimate)
    curve: list[tuple[float, float]] = []
    intervals: str = ""


class Weight(Part):
    """A feature of the map in the score: its mean and deviation over the slides that were learnt from, its weight."""

    name: str
    mean: float
    deviation: float
    weight: float


class FittedScore(Part):
    """A slide score that has been learnt; see `slides.slide_model`.

    Attributes:
        features: In the order of the sum, standardised.
        intercept: Added to it; the sum is the logit.
        penalty: Inverse strength C of the L2 penalty, and `chosen`, how it was.
        slides: Learnt from, of so many `patients`.
        calibration: The calibrator, as in model.json, like `conformal`.
        choice: How the calibration was chosen.
        threshold: A slide is called positive where its probability is at or above it.
        overlap: With which the maps were made, like `patch_threshold`.
        contents: Digests of the slides that it was learnt and calibrated on; `named` are their patients, where known.
    """

    features: list[Weight]
    intercept: float
    penalty: float = 1.0
    chosen: str = ""
    slides: int = 0
    patients: int = 0
    calibration: Open = {}
    choice: Choice | None = None
    threshold: float
    threshold_policy: str = ""
    conformal: Open | None = None
    classes: tuple[str, str] = ("negative", "positive")
    model: NamedModel = Field(default_factory=NamedModel)
    overlap: float = 0.0
    patch_threshold: float | None = None
    contents: list[str] = []
    named: list[str] = []


class PatientStage(Part):
    """A patient by the slides that were judged.

    Attributes:
        slides: Size class of the largest focus of each slide, by the slide's id.
        stage: pN by CAMELYON17's rules; `truth` where the table says it.
        probability: The highest of the slides.
    """

    patient: str
    split: str = ""
    label: int | None = None
    probability: float
    slides: dict[str, str] = {}
    stage: str = ""
    truth: str | None = None


class SlideScoreRecord(Made):
    """`slide_score.json`: a slide score, what it was learnt from, and what it comes to by slide, patient and lesion.

    Attributes:
        command: That does it again.
        request: By which the same call is known again wherever its files lie; empty in older records.
        fitted: The score.
        fitted_here: Whether it was learnt by this call, not applied.
        leakage: A sentence: whether the patches' model has learnt from slides that are judged.
        by_patient: Metrics of patients, by split; `metrics.json` has those of slides.
        froc: By split.
        patients: That were judged.
        kappa: Quadratic kappa of stage and truth, by split.
    """

    FILE: ClassVar[str] = "slide_score.json"
    WHOSE: ClassVar[str] = "the folder of a slide score"

    command: str = ""
    request: str = ""
    fitted: FittedScore
    fitted_here: bool = True
    leakage: str = ""
    by_patient: dict[str, SplitMetrics] = {}
    froc: dict[str, Froc] = {}
    patients: list[PatientStage] = []
    kappa: dict[str, Estimate] = {}
    notes: list[str] = []


class AttentionRecord(Made):
    """`attention.json`: whether the attention of a model of slides depends on what it has learnt.

    Attributes:
        data: Name of the slides.
        rank_correlation: Of each slide's attention with that of the network with shuffled weights.
        depends_on_weights: yes, no, undecided, or None where it is not known.
        line: That in words.
    """

    FILE: ClassVar[str] = "attention.json"

    model: NamedModel = Field(default_factory=NamedModel)
    data: str = ""
    slides: int = 0
    groups: int | None = None
    seed: int = 0
    rank_correlation: Mean = Field(default_factory=Mean)
    depends_on_weights: str | None = None
    line: str = ""
