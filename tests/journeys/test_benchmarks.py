"""The page of benchmarks is made from the numbers beside it, and its ratios are those of a round."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
TURNS: list[dict[str, Any]] = [
    {"name": "ours", "wall": [2.0, 2.0, 4.0], "cpu": [1.0, 2.0, 2.0]},
    {"name": "theirs", "wall": [4.0, 6.0, 2.0], "cpu": [3.0, 3.0, 5.0]},
]


@pytest.fixture(scope="module")
def bench() -> ModuleType:
    """The script, with the modules beside it, as where it is run."""
    sys.path.insert(0, str(ROOT / "benchmarks"))
    try:
        spec = importlib.util.spec_from_file_location("bench", ROOT / "benchmarks" / "bench.py")
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules["bench"] = module  # where dataclasses look for it
        spec.loader.exec_module(module)
        return module
    finally:
        sys.path.pop(0)


def test_ratios_are_those_of_a_round(bench: ModuleType) -> None:
    """Of 4/2, 6/2 and 2/4 the median is 2, which the ratio of the medians also is; of 3/1, 3/2 and 5/2 it is 2.5."""
    rows = bench.table(TURNS)[2:]
    assert rows[0] == "| ours | 2.0 [2.0, 4.0] | 2.0 [1.0, 2.0] | — | — |"
    assert rows[1] == "| theirs | 4.0 [2.0, 6.0] | 3.0 [3.0, 5.0] | 2.00 [0.50, 3.00] | 2.50 [1.50, 3.00] |"


def test_a_load_says_what_is_kept(bench: ModuleType) -> None:
    about = {"machine": "Linux", "load_before": 0.1, "versions": {"torch": "2"}, "peers": ["keras==3"]}
    slower = [turn | {"wall": [2 * value for value in turn["wall"]]} for turn in TURNS]
    told = bench.page(about | {"images": 9, "rounds": 3, "tasks": {"start": TURNS, "start, loaded": slower}})
    assert "On Linux; idle. torch 2, keras==3." in told
    assert "ours keeps 50% of its pace, theirs 50%." in told


def test_a_turn_is_a_process_whose_time_is_counted(bench: ModuleType, tmp_path: Path) -> None:
    arm = bench.Arm("loop", [sys.executable, "-c", "sum(range(10**6))"])
    arm.turn(tmp_path)
    assert arm.cpu[0] > 0
    assert arm.wall[0] > 0
    with pytest.raises(SystemExit, match="fails"):
        bench.Arm("fails", [sys.executable, "-c", "1/0"]).turn(tmp_path)


def test_the_page_is_made_from_the_numbers(bench: ModuleType) -> None:
    docs = ROOT / "docs"
    if not (docs / "benchmarks.json").exists():
        pytest.skip("the benchmarks have not been run")
    assert bench.page(json.loads((docs / "benchmarks.json").read_text("utf-8"))) == (docs / "benchmarks.md").read_text(
        "utf-8"
    )
