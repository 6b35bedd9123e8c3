"""Attention of slides: drawn where the tiles lie, written as a table, and told apart from that of random weights."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from tests.slides.bags import write_bags
from tumortrace import train
from tumortrace.cli.main import run as command
from tumortrace.training import experiment, finish


@pytest.fixture(scope="module")
def bags(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve patients with one slide each."""
    return write_bags(tmp_path_factory.mktemp("bags") / "few", patients=24, slides=1, tiles=40, width=4, share=0.1)


@pytest.fixture(scope="module")
def runs(bags: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A run by attention and one by the mean."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(experiment, "renew_report", lambda folder: None)
        patch.setattr(finish, "split_record", lambda table, threshold, **_: {"n": len(table)})
        patch.setattr(finish, "trust_records", lambda table, model, choice: {})
        patch.setattr(finish, "headline", lambda *_: "")
        patch.setattr(finish, "write_examples", lambda *given: None)
        out = tmp_path_factory.mktemp("runs")
        return {
            name: train(bags, recipe=f"slide-{name}", changes=[f"epochs={epochs}"], out=out)
            for name, epochs in (("attention", 25), ("mean", 1))
        }


def test_attention_is_drawn_and_tested(bags: Path, runs: dict[str, Path], tmp_path: Path) -> None:
    """Weights add up to one, the test has an interval by patient, and its line is in both records."""
    out = tmp_path / "out"
    assert command(["explain", str(runs["attention"]), str(bags), "--count", "2", "-o", str(out)]) == 0
    tables = sorted(out.glob("*.csv"))
    assert len(tables) == 24
    assert len(list(out.glob("*.png"))) == 2
    table = pd.read_csv(tables[1])
    assert table["attention"].sum() == pytest.approx(1, abs=1e-5)
    assert {"x", "y", "side", "attention", "evidence"} <= set(table)
    record = json.loads((out / "attention.json").read_text())
    assert record["slides"] == 24
    assert record["groups"] == 24
    low, high = record["rank_correlation"]["ci95"]
    assert -1 <= low <= record["rank_correlation"]["value"] <= high <= 1
    assert record["depends_on_weights"] in ("yes", "undecided", "no")
    assert record["line"] in json.loads((out / "explanations.json").read_text())["notes"]


def test_what_is_not_trained_is_found_out(bags: Path, runs: dict[str, Path], tmp_path: Path) -> None:
    """The same test by hand: shuffled weights keep little of a trained attention, all of itself."""
    from tumortrace.inference.explain.faithfulness import rank_correlation

    out = tmp_path / "out"
    assert command(["explain", str(runs["attention"]), str(bags), "--count", "0", "-o", str(out)]) == 0
    values = pd.read_csv(sorted(out.glob("*.csv"))[1])["attention"].to_numpy()
    assert rank_correlation(values[None], values[None]) == 1
    shuffled = np.random.default_rng(0).permutation(values)
    assert abs(rank_correlation(values[None], shuffled[None])) < 0.6


def test_no_attention_of_a_mean(
    bags: Path, runs: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A control weighs all tiles alike, which is said in a line, as is an option for images."""
    assert command(["explain", str(runs["mean"]), str(bags), "-o", str(tmp_path / "out")]) != 0
    assert "slide-attention" in capsys.readouterr().err
    assert command(["explain", str(runs["attention"]), str(bags), "--method", "occlusion"]) != 0
    assert "--method for a model of slides" in capsys.readouterr().err
