"""bfloat16 is taken where it is quicker and says the same, float32 elsewhere, each with its reason."""

from __future__ import annotations

import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any, get_args

import numpy as np
import pytest

from tumortrace import load_model
from tumortrace.errors import ModelError
from tumortrace.models import precision
from tumortrace.models.bundle import Model
from tumortrace.models.precision import FEWEST, SAMPLE, Asked, choose, times_as_fast

EXACT = np.linspace(0, 1, SAMPLE)


class Fake:
    """A model that says other probabilities in bfloat16."""

    runtime = None
    network, device, info = SimpleNamespace(takes_features=False), "cpu", SimpleNamespace(name="fake")

    def __init__(self, quick: np.ndarray, taken: str = "fp32") -> None:
        self.quick, self.taken = quick, taken

    def at(self, taken: str) -> Any:
        return Fake(self.quick, taken)

    def assess(self, images: np.ndarray) -> Any:
        rows = images[:, 0, 0, 0]
        said = (EXACT if self.taken == "fp32" else self.quick)[rows]
        return SimpleNamespace(probability=said, prediction=(said >= 0.5).astype(int), by_class=None)


def batches() -> list[np.ndarray]:
    rows = np.arange(SAMPLE).reshape(-1, 1, 1, 1)
    return [rows[:300], rows[300:]]


def moved(*rows: int, by: float) -> np.ndarray:
    quick = EXACT.copy()
    quick[list(rows)] += by
    return quick


MIDDLE = int(np.searchsorted(EXACT, 0.5))


@pytest.mark.parametrize(
    ("quick", "faster", "images", "taken", "told"),
    [
        (moved(7, by=0.015), 2.3, FEWEST, "bf16", "2.3 times as fast; of 512 images 0 calls differ, .* at most 0.015"),
        (moved(MIDDLE, by=-0.002), 2.3, FEWEST, "bf16", "1 calls differ"),
        (moved(MIDDLE, MIDDLE + 1, by=-0.004), 2.3, FEWEST, "fp32", "would be .* 2 calls differ"),
        (moved(7, by=0.03), 2.3, FEWEST, "fp32", "at most 0.03"),
        (EXACT, 1.05, FEWEST, "fp32", "1.1 times as fast|1 times as fast"),
        (EXACT, 2.3, FEWEST - 1, "fp32", "from 2,048 images"),
    ],
)
def test_what_is_taken(
    monkeypatch: pytest.MonkeyPatch, quick: np.ndarray, faster: float, images: int, taken: str, told: str
) -> None:
    monkeypatch.setattr(precision, "fast_bfloat16", lambda _: True)
    monkeypatch.setattr(precision, "times_as_fast", lambda _: faster)
    model: Any = Fake(quick)
    chosen = choose(model, "auto", images, batches)
    assert chosen.taken == taken
    assert re.search(told, chosen.why)
    for asked in get_args(Asked)[1:]:
        assert choose(model, asked, images, batches).taken == asked


def test_without_the_hardware_it_is_not_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(precision, "fast_bfloat16", lambda _: False)
    monkeypatch.setattr(precision, "times_as_fast", lambda _: pytest.fail("timed"))
    model: Any = Fake(EXACT)
    assert choose(model, "auto", FEWEST, batches).taken == "fp32"
    with pytest.raises(ModelError, match="no bfloat16"):
        choose(model, "bf16", FEWEST, batches)
    unknown: Any = "half"
    with pytest.raises(ModelError, match="'half'"):
        choose(model, unknown, FEWEST, batches)


def test_a_model_computes_at_its_precision(small_run: Path) -> None:
    model = load_model(small_run, device="cpu")
    images = np.random.default_rng(0).integers(0, 256, (6, *model.info.patch_size, 3), np.uint8)
    exact, quick = model.logits(images), model.at("bf16").logits(images)
    assert not np.array_equal(exact, quick)
    assert np.abs(exact - quick).max() < 0.1
    assert np.array_equal(exact, model.logits(images))  # the model itself stays as it was
    assert exact.dtype == quick.dtype == np.float64


def test_what_is_quicker_is_measured_once(small_run: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("TUMORTRACE_CACHE", str(tmp_path))
    model = load_model(small_run, device="cpu")
    times = times_as_fast(model)
    assert times > 0
    monkeypatch.setattr(Model, "assess", lambda *_: pytest.fail("measured again"))
    assert times_as_fast(load_model(small_run, device="cpu")) == times
    (kept,) = (tmp_path / "bfloat16").iterdir()
    kept.write_text("{")
    with pytest.raises(pytest.fail.Exception, match="measured again"):
        times_as_fast(model)
