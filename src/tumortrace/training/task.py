"""What a trainer is given, whichever it is."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from tumortrace.training.patches import Patches
from tumortrace.training.recipe import Recipe


@dataclass(frozen=True)
class Task:
    """A model to make.

    Attributes:
        recipe: What to train and how.
        training: Training split; images after `Preprocessing.prepare`.
        validation: Validation split, likewise; never augmented.
        checkpoints: Folder for `last.safetensors` and `best.safetensors`.
        history_file: CSV with one row per epoch, or per candidate.
        seed: Seed of initial weights, order, augmentation and dropout.
        device: "auto", "cpu", "cuda" ...
        precision: "auto", "32" or "bf16".
        data_key: Names the images, so that features of a frozen body are kept in the cache; None keeps none.
    """

    recipe: Recipe
    training: Patches
    validation: Patches
    checkpoints: Path
    history_file: Path
    seed: int
    device: str = "auto"
    precision: str = "auto"
    data_key: str | None = None

    @property
    def input_size(self) -> tuple[int, int]:
        """Height and width in pixels of what goes into the network."""
        one = self.training.tensor(np.zeros(1, np.int64), torch.device("cpu"))
        pixels = self.recipe.preprocessing.pixels(one)
        return pixels.shape[2], pixels.shape[3]
