"""Preprocessing against values worked by hand and against Pillow."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image
from pydantic import ValidationError

from tumortrace.images.preprocessing import Preprocessing


def test_crop_keeps_the_centre() -> None:
    """A 32 px crop of a 96 px patch is exactly the square whose tumour decides the label."""
    patch = torch.zeros(1, 3, 96, 96, dtype=torch.uint8)
    patch[..., 32:64, 32:64] = 255
    assert Preprocessing(crop=32).pixels(patch).min() == 1
    assert Preprocessing(crop=34).pixels(patch).min() == 0


def test_resize_agrees_with_pillow() -> None:
    """96 to 64 px, bilinear with antialiasing, within one grey level of Pillow."""
    image = np.random.default_rng(0).integers(0, 256, (96, 96, 3), dtype=np.uint8)
    expected = np.asarray(Image.fromarray(image).resize((64, 64), Image.Resampling.BILINEAR)).astype(float)
    found = Preprocessing(size=64).pixels(torch.from_numpy(image[None]).permute(0, 3, 1, 2))[0]
    assert np.abs(found.permute(1, 2, 0).numpy() * 255 - expected).max() <= 1


def test_normalisation_by_hand() -> None:
    """ImageNet's mean maps to 0 and one deviation above it to 1."""
    mean = torch.tensor([0.485, 0.456, 0.406]).view(1, 3, 1, 1)
    deviation = torch.tensor([0.229, 0.224, 0.225]).view(1, 3, 1, 1)
    found = Preprocessing(normalisation="imagenet").normalise(torch.cat([mean, mean + deviation]))
    torch.testing.assert_close(found.flatten(), torch.tensor([0.0, 0, 0, 1, 1, 1]))


def test_output_size() -> None:
    """What comes out is as large as announced, also for patches smaller than the crop."""
    for steps in (Preprocessing(), Preprocessing(crop=64), Preprocessing(crop=32, size=48), Preprocessing(size=20)):
        for size in ((96, 96), (50, 40)):
            out = steps.pixels(torch.zeros(1, 3, *size, dtype=torch.uint8))
            assert tuple(out.shape[2:]) == steps.output_size(size)


def test_unknown_fields_are_refused() -> None:
    """A misspelt step is an error, not a step left out."""
    with pytest.raises(ValidationError):
        Preprocessing.model_validate({"corp": 64})


def test_a_frame_is_the_centre_of_a_larger_resize() -> None:
    """As bodies are fed that ask for 256 px of which they see the inner 224; half of the sides here."""
    image = np.random.default_rng(0).integers(0, 256, (96, 96, 3), dtype=np.uint8)
    patch = torch.from_numpy(image).permute(2, 0, 1)[None]
    larger = Preprocessing(size=64).pixels(patch)
    framed = Preprocessing(size=32, frame=64)
    assert torch.equal(framed.pixels(patch), larger[..., 16:48, 16:48])
    assert framed.output_size((96, 96)) == (32, 32)
    assert framed.framed == 0.5
    with pytest.raises(ValidationError, match="frame 64 without a size that fits"):
        Preprocessing(size=96, frame=64)
