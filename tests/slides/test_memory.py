"""What a scan is said to hold is what it takes: worked by hand, and measured where memory is counted."""

from __future__ import annotations

import tracemalloc
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from tests.models.test_dense import SIDE, model_of
from tests.slides.test_scan import fake_model
from tumortrace.errors import SlideError
from tumortrace.slides.heat_pyramid import heat_levels
from tumortrace.slides.memory import (
    Layers,
    held_by_batch,
    held_by_block,
    held_by_slide,
    largest_within,
    layers_of,
)
from tumortrace.slides.tissue import overview_side, tell_tissue

LIBRARIES = 900 << 20


def test_layers_are_those_that_the_network_has() -> None:
    """Six maps of 46 x 46 px go into the first batch norm and come out of it; the body ends with eight of 9 x 9."""
    assert layers_of(model_of()) == Layers(most=2 * 6 * 46 * 46 * 4, maps=8 * 9 * 9 * 4)


def test_a_batch_and_a_block_by_hand() -> None:
    """A block of 192 px with tiles of 48 px each 16 px holds 10 x 10 of them, of which each is kept."""
    model = model_of(symmetries=True)
    weights = 4 * sum(part.numel() for part in model.network.parameters())
    picture = SIDE * SIDE * 52 + 2 * layers_of(model).most
    assert held_by_batch(model)(64) == LIBRARIES + 3 * weights + 64 * picture
    layers = (2 * layers_of(model).most + 8 * layers_of(model).maps) / SIDE**2
    assert held_by_block(model, 2 / 3)(192) == pytest.approx(192**2 * (layers + 9 * 12) + 100 * SIDE**2 * 7)
    assert held_by_batch(fake_model())(2) > LIBRARIES + 2 * 32 * 32 * 1024


def test_a_map_grows_with_slide_and_overlap() -> None:
    """80,000 tiles of a slide of 100,000 px; nine times as many with two thirds of overlap; and a plain image."""
    slide = SimpleNamespace(width=100_000, height=80_000, in_memory=False)
    flat, overlapping = (held_by_slide(slide, 0.25, (300, 300), overlap) for overlap in (0, 2 / 3))  # type: ignore[arg-type]
    tiles = np.ceil(100_000 / 300) * np.ceil(80_000 / 300)
    heat = (100_000 / 75) * (80_000 / 75)
    assert flat == pytest.approx(65 * 2048 * 2048 * 0.8 + 26 * heat + 800 * tiles)
    assert overlapping - flat == pytest.approx(8 * (800 * tiles + 26 * heat), rel=0.01)
    plain = SimpleNamespace(width=1000, height=500, in_memory=True)
    assert held_by_slide(plain, None, (2000, 2000), 0) > 7 * 500_000  # type: ignore[arg-type]


def test_what_is_counted_is_what_is_taken() -> None:
    """By the counts of NumPy's own allocations: the heat of a scan, and the search for tissue."""
    cells = pd.DataFrame({"x": [0, 396], "y": [0, 296], "width": 4, "height": 4, "probability": 0.5})
    picture = np.full((300, 400, 3), 240, np.uint8)
    picture[60:200, 100:300] = np.random.default_rng(0).integers(80, 200, (140, 200, 3))
    for measured, allowed in ((lambda: heat_levels(cells, (400, 300)), 26), (lambda: tell_tissue(picture, 8.0), 65)):
        tracemalloc.start()
        measured()
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < allowed * 400 * 300 + 200_000
        assert allowed == 65 or peak > 0.8 * allowed * 400 * 300
    assert overview_side(SimpleNamespace(width=100_000, height=9), 0.25) == 2048  # type: ignore[arg-type]


def test_too_little_is_refused_in_a_line() -> None:
    """With what is needed, rounded up, and the slide where it is one slide's."""
    with pytest.raises(SlideError, match=r"a.svs: --max-memory 1GB; expected at least 1.57GB for this slide and model"):
        largest_within("1GB", (64, 32), lambda tiles: tiles * 0.049 * 2**30, Path("a.svs"))
