"""Grad-CAM against a network whose answer is known by hand."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

from tumortrace.imaging.preprocessing import Preprocessing
from tumortrace.inference.explain import heat_map
from tumortrace.models.bundle import Model
from tumortrace.models.description import Architecture, ModelInfo, TrainingData


class RedSum(nn.Module):
    """Mean of red, times two, minus mean of blue: Grad-CAM is 2 red - blue, divided by the number of pixels."""

    attention_layer = "maps"

    def __init__(self) -> None:
        super().__init__()
        self.maps = nn.Identity()

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        means = self.maps(images).mean((2, 3))
        return 2 * means[:, 0] - means[:, 2]


def model(crop: int | None) -> Model:
    info = ModelInfo(
        name="by-hand",
        architecture=Architecture(name="by-hand"),
        preprocessing=Preprocessing(crop=crop),
        patch_size=(16, 16),
        classes=("blue", "red"),
        positive_class="red",
        training=TrainingData(fingerprint="0", prevalence=0.5, recipe="none"),
    )
    return Model(info, RedSum(), torch.device("cpu"))


def test_heat_is_the_weighted_activation() -> None:
    """Weights are the gradients' means (2/256, 0, -1/256); what is negative is cut off."""
    image = np.random.default_rng(0).integers(0, 256, (16, 16, 3), dtype=np.uint8)
    red, blue = image[..., 0].astype(float), image[..., 2].astype(float)
    expected = np.maximum(0, 2 * red - blue) / 255 / 256
    np.testing.assert_allclose(heat_map(model(None), image), expected, atol=1e-8)


def test_heat_stays_within_the_crop() -> None:
    """What the network does not see gets no heat, and the crop lies in the centre."""
    heat = heat_map(model(8), np.full((16, 16, 3), (255, 0, 0), np.uint8))
    assert (heat[4:12, 4:12] > 0).all()
    heat[4:12, 4:12] = 0
    assert not heat.any()
