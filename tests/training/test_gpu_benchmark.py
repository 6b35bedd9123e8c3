"""The script that measures training on a GPU, run on the CPU with small numbers."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "gpu.py"


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The script, as a module."""
    specification = importlib.util.spec_from_file_location("gpu", SCRIPT)
    assert specification is not None
    assert specification.loader is not None
    module = importlib.util.module_from_spec(specification)
    monkeypatch.setitem(sys.modules, "gpu", module)
    specification.loader.exec_module(module)
    monkeypatch.setattr(module, "WARM", 1)
    return module


@pytest.mark.parametrize(("network", "ways"), [("default-large", "disk device compiled"), ("resnet18", "device")])
def test_the_script_measures_each_way(
    network: str, ways: str, gpu: ModuleType, capsys: pytest.CaptureFixture[str]
) -> None:
    """A row for each, with a rate and the seconds of an epoch that follow from it; a CPU has no profile of a device."""
    words = f"--images 256 --batch 4 --steps 1 --device cpu --backend eager --networks {network} --ways {ways}"
    assert gpu.main(words.split()) == 0
    rows = [line.strip("| ").split(" | ") for line in capsys.readouterr().out.splitlines()[3:]]
    assert [row[:3] for row in rows] == [[network, "4", way] for way in ways.split()]
    for row in rows:
        rate, epoch = float(row[3].replace(",", "")), float(row[4])
        assert 256 / (rate + 0.51) - 0.06 < epoch < 256 / max(rate - 0.51, 0.01) + 0.06
        assert row[5:] == ["not told"] * 3


def test_stalls_are_told_from_a_profile(gpu: ModuleType) -> None:
    """Counted by hand: of 100 us it is at work in 0-30 and 50-90, 10 of these fetching; the gap is 20 us."""
    spans = [("conv", 0.0, 20.0), ("bn", 10.0, 30.0), ("conv", 60.0, 90.0), ("Memcpy HtoD (Pageable)", 50.0, 60.0)]
    assert gpu.stalls(spans, 100.0) == pytest.approx((0.7, 0.1, 0.02))


def test_batches_are_of_one_size_and_take_no_image_twice(gpu: ModuleType) -> None:
    """Within an epoch."""
    batches = gpu.batches_of(20, 8)
    assert len(set(np.concatenate([next(batches), next(batches)]).tolist())) == 16
