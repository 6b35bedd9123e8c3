"""What `model.json` says: everything about a model but its weights."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, model_validator

from tumortrace.errors import ModelError, TumorTraceError
from tumortrace.evaluation.calibration import Calibrator
from tumortrace.evaluation.class_calibration import ClassCalibrator, ClassConformal
from tumortrace.evaluation.classes import PREDICTED, SEPARATOR, SET, class_columns
from tumortrace.evaluation.conformal import Conformal, decide
from tumortrace.images.preprocessing import Preprocessing
from tumortrace.models.drift import DriftInfo
from tumortrace.models.ood import OutOfDistribution
from tumortrace.models.views import Views
from tumortrace.records.model import DESCRIPTION
from tumortrace.records.record import OnDisk

FORMAT = 2


class Architecture(BaseModel):
    """A registered network family and its arguments."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    arguments: dict[str, Any] = Field(default_factory=dict)


class TrainingData(BaseModel):
    """What the model was trained on."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    fingerprint: str
    prevalence: float = Field(ge=0, le=1)
    recipe: str


class SeveralClasses(BaseModel):
    """What a model that parts more than two classes knows of them.

    Attributes:
        names: The K classes, in the order of the network's logits.
        positive: Those of them that count as the positive class together.
        ordered: Whether the order means something, as that of grades does.
        calibration: From logits and the positive classes' calibrated probability to probabilities.
        conformal: Behind prediction sets, or None.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    names: tuple[str, ...] = Field(min_length=3)
    positive: tuple[str, ...] = Field(min_length=1)
    ordered: bool = False
    calibration: ClassCalibrator = ClassCalibrator()
    conformal: ClassConformal | None = None

    @property
    def sides(self) -> tuple[bool, ...]:
        """Of each class, whether it is positive."""
        return tuple(name in self.positive for name in self.names)

    def shares(self, columns: Mapping[str, np.ndarray]) -> np.ndarray:
        """The probabilities of the classes, shape (N, K), of what `columns` gives."""
        return np.stack([columns[name] for name in class_columns(self.names)], axis=1)

    def columns(self, logits: np.ndarray, probability: np.ndarray) -> dict[str, np.ndarray]:
        """What predictions tables say of the classes: the likeliest, every probability, and the prediction set.

        Args:
            logits: Of the classes, shape (N, K).
            probability: Calibrated, of the positive ones together, shape (N,).
        """
        shares = self.calibration.apply(logits, probability, self.sides)
        names = np.array(self.names, dtype=object)
        columns = {PREDICTED: names[shares.argmax(1)]} | dict(zip(class_columns(self.names), shares.T, strict=True))
        if self.conformal is not None:
            sets = [SEPARATOR.join(names[held]) for held in self.conformal.sets(shares)]
            columns[SET] = np.array(sets, dtype=object)
        return columns


class ModelInfo(OnDisk):
    """The content of `model.json`.

    Attributes:
        format: Version of this layout.
        name: Name of the run that made the model.
        architecture: Registered network family and its arguments.
        preprocessing: From patches of `patch_size` to the network's input.
        patch_size: Height and width in pixels of the patches that it was trained on; others are resized to it.
        classes: Names of the negative and of the positive class.
        positive_class: The class whose probability is predicted; always `classes[1]`.
        resolution: Micrometres per pixel of the training patches, or None when not known.
        bits: Bits that deep images were said to hold whose files do not say, or None; serving reads them so, too.
        preparation: How `prepare` made the training images, where it did; what is predicted must be made likewise.
        symmetries: Whether the logits of the eight rotations and mirrorings are averaged.
        calibration: From the logit to the probability, from the calibration split.
        threshold: A probability of at least this is a positive prediction; from the calibration split.
        threshold_policy: How the threshold was chosen.
        several: The classes where there are more than two, or None.
        conformal: Coverage and quantiles behind the decision "refer", or None.
        triage: The same at coverage .95, behind the share of images decided at 95 % sensitivity; or None.
        ood: How strange an image may be, or None where images are not scored.
        drift: With what whole sets of images are compared, or None.
        training: Fingerprint and prevalence of the training data, and the recipe.
        versions: Of Python and the libraries.
        weights_sha256: SHA-256 of `weights.safetensors`.
    """

    FILE: ClassVar[str] = DESCRIPTION
    WHOSE: ClassVar[str] = "a model bundle"
    ERROR: ClassVar[type[TumorTraceError]] = ModelError
    model_config = ConfigDict(frozen=True, extra="forbid")

    format: int = FORMAT
    name: str
    architecture: Architecture
    preprocessing: Preprocessing
    patch_size: tuple[int, int]
    classes: tuple[str, str]
    positive_class: str
    several: SeveralClasses | None = None
    resolution: float | None = None
    bits: int | None = None
    preparation: dict[str, Any] | None = None
    symmetries: bool = False
    calibration: Calibrator = Calibrator()
    threshold: float = 0.5
    threshold_policy: str = "fixed:0.5"
    conformal: Conformal | None = None
    triage: Conformal | None = None
    ood: OutOfDistribution | None = None
    drift: DriftInfo | None = None
    training: TrainingData
    versions: dict[str, str] = Field(default_factory=dict)
    weights_sha256: str = ""

    @model_validator(mode="before")
    @classmethod
    def _first_format(cls, document: Any) -> Any:
        """Format 1 knew a temperature alone."""
        if not isinstance(document, dict) or (version := document.get("format", FORMAT)) == FORMAT:
            return document
        if version != 1:
            raise ValueError(f"format {version!r}, of which this version knows 1 to {FORMAT}: update TumorTrace")
        rest = {name: value for name, value in document.items() if name != "temperature"}
        temperature = document.get("temperature", 1.0)
        if not isinstance(temperature, int | float) or not temperature > 0:
            raise ValueError(f"temperature {temperature!r} is not above 0")
        return rest | {"format": FORMAT, "calibration": {"method": "temperature", "slope": 1 / temperature}}

    @model_validator(mode="after")
    def _positive_is_second(self) -> ModelInfo:
        if self.positive_class != self.classes[1]:
            raise ValueError(f"positive class {self.positive_class!r} is not the second of {self.classes}")
        return self

    @property
    def views(self) -> Views:
        """Test-time augmentation: the symmetries of a patch over which logits, features and heat are averaged."""
        return Views.of(self.preprocessing.output_size(self.patch_size)) if self.symmetries else Views()

    @property
    def graph_size(self) -> tuple[int, int]:
        """Height and width of the patches that the network's graph takes; see `prepare`."""
        steps = self.preprocessing
        return steps.prepared_size(self.patch_size) if steps.prepares else self.patch_size

    def prepare(self, images: np.ndarray) -> np.ndarray:
        """Stored patches, uint8 (N, *patch_size, 3), as the graph takes them: changed unless `prepare` only crops."""
        return np.ascontiguousarray(self.preprocessing.prepare(images) if self.preprocessing.prepares else images)

    @property
    def sides(self) -> tuple[bool, ...]:
        """Which of more than two classes are positive; none where there are two."""
        return () if self.several is None else self.several.sides

    @property
    def ordered(self) -> bool:
        """Whether it parts more than two classes whose order means something."""
        return self.several is not None and self.several.ordered

    def decide(self, probabilities: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Predictions (0 or 1, by the threshold) and decisions ("positive", "negative" or "refer")."""
        predictions = (probabilities >= self.threshold).astype(np.int64)
        if self.conformal is None:
            return predictions, np.where(predictions == 1, "positive", "negative")
        return predictions, decide(probabilities, self.threshold, self.conformal.quantiles)
