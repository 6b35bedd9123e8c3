"""What a pre-training leaves beside the weights that it has learnt."""

from __future__ import annotations

from typing import ClassVar

from tumortrace.records.record import Made, Open

#: Weights of a body, which `--weights` takes by the folder around them.
PRETRAINED = "pretrained.safetensors"


class Pretraining(Made):
    """How a body was learnt from images without labels.

    Attributes:
        command: That does it again.
        recipe: Whose network it is the body of.
        data: Name, layout and fingerprint of the images.
        images: Distinct ones that were learnt from.
        groups: Their slides or patients, in small letters; empty where not known.
        left_out: Images that were not looked at, as they, or others of their slide or patient, measure a model.
        settings: Epochs, size of batches, seed, device and precision.
        views: What parted two views of an image.
        matched: Share of the last epoch's views that found the other view of their image among their batch.
        weights_sha256: Of the file of weights.
        seconds: Of all epochs.
        notes: What was said aloud.
    """

    FILE: ClassVar[str] = "pretraining.json"
    WHOSE: ClassVar[str] = "a folder of `tumortrace pretrain`"

    command: str = ""
    recipe: str = ""
    data: Open = {}
    images: int = 0
    groups: list[str] = []
    left_out: int = 0
    settings: Open = {}
    views: Open = {}
    matched: float = 0.0
    weights_sha256: str = ""
    seconds: float = 0.0
    notes: list[str] = []
