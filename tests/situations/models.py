"""A model that is made at once: whoever is bright is positive. For situations in which its answers do not matter."""

from __future__ import annotations

from pathlib import Path

import torch

from tumortrace.images.preprocessing import Preprocessing
from tumortrace.models.architecture import build_network
from tumortrace.models.bundle import Model
from tumortrace.models.description import Architecture, ModelInfo, TrainingData


def made_model(folder: Path, *, size: int = 32, resolution: float | None = None, bits: int | None = None) -> Path:
    """A bundle in a folder, untrained, its threshold at .5."""
    architecture = Architecture(name="plain-cnn", arguments={"blocks": [4], "head": []})
    torch.manual_seed(0)
    network = build_network(architecture.name, (size, size), architecture.arguments)
    info = ModelInfo(
        name="made",
        architecture=architecture,
        preprocessing=Preprocessing(),
        patch_size=(size, size),
        classes=("benign", "malignant"),
        positive_class="malignant",
        resolution=resolution,
        bits=bits,
        training=TrainingData(fingerprint="", prevalence=0.5, recipe="none"),
    )
    Model(info, network.eval(), torch.device("cpu")).save(folder)
    return folder
