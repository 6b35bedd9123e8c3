"""Pictures of explanations."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tumortrace.reports.explanation import Heat, draw_explanation


@pytest.mark.parametrize("heat", [np.zeros((96, 96)), np.eye(96)])
@pytest.mark.parametrize("name", ["tumour", "$x$ \\frac <b>"])
def test_a_picture_is_drawn_for_any_heat_and_name(heat: np.ndarray, name: str, tmp_path: Path) -> None:
    """Heat that is zero everywhere and names that look like markup are drawn as they are."""
    image = np.full((96, 96, 3), 200, np.uint8)
    draw_explanation(tmp_path / "a.png", image, [Heat(heat, "Grad-CAM")], f"{name}: 0.5", name)
    pixels = np.asarray(Image.open(tmp_path / "a.png").convert("RGB")).astype(int)
    hot = (pixels[..., 0] - pixels[..., 2] > 60).sum()  # the colour scale's oranges
    assert (hot > 50) == bool(heat.any())
