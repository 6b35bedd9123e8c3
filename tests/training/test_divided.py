"""Folds divided among workers: the same bytes as from one process with one thread."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tests.conftest import SMALL, renew_no_part
from tumortrace import synthesise
from tumortrace.cli.main import run
from tumortrace.errors import RunError
from tumortrace.training import experiment
from tumortrace.training.crossval import crossval

pytestmark = pytest.mark.usefixtures("few_replicates")

TINY = (*SMALL, "epochs=1", "model.arguments={stem: 4, widths: [4], depths: [1], dropout: 0.2}")


def test_folds_of_workers_are_those_of_one_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each fold is a run that goes on from its own checkpoints; what they say together is written here."""
    data = synthesise("patches", tmp_path / "patches", count=120, seed=4)
    monkeypatch.setattr(experiment, "renew_report", renew_no_part)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        here, there = (
            crossval(data, changes=TINY, folds=2, out=tmp_path / f"{workers}", workers=workers) for workers in (1, 2)
        )
    finally:
        torch.set_num_threads(threads)
    for name in ("folds.csv", "predictions.csv"):
        assert (here / name).read_bytes() == (there / name).read_bytes(), name
    assert len(list(there.glob("folds/*/*/*/model/weights.safetensors"))) == 2


def test_one_training_is_not_divided(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """`train` says so, and what there are workers for."""
    assert run(["train", str(tmp_path), "--workers", "2"]) == 1
    assert "--workers for one training; expected --fractions beside it" in capsys.readouterr().err
    with pytest.raises(RunError, match="--workers 0"):
        crossval(tmp_path, workers=0)
