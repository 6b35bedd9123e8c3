"""Compiled steps learn what others learn, and leave nothing of the compiler in what is written."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import load_file

from tests.conftest import SMALL
from tests.training.test_sync_batch_norm import PLAIN
from tumortrace import synthesise
from tumortrace.cli.main import run as typed
from tumortrace.errors import RecipeError
from tumortrace.training import compiled, experiment
from tumortrace.training.recipe import load_recipe
from tumortrace.training.train import train

LOSSES = ["train_loss", "validation_loss"]
STEPS = [*PLAIN, "batch_size=35", "epochs=2", "averaging={name: ema, decay: 0.9}"]


@pytest.fixture(scope="module")
def tissue(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Few patches, as compiling takes most of the time here."""
    return synthesise("patches", tmp_path_factory.mktemp("tissue") / "patches", count=160, seed=3)


@pytest.fixture(autouse=True)
def quick(few_replicates: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Traced and differentiated by torch's compiler, but not written as C++, which takes a minute and wants one."""
    monkeypatch.setattr(experiment, "renew_report", lambda folder: None)
    monkeypatch.setattr(compiled, "BACKEND", "aot_eager")
    torch.compiler.reset()


def graphs() -> int:
    """How many were compiled."""
    return int(torch._dynamo.utils.counters["stats"]["unique_graphs"])


def test_compiled_steps_have_the_losses_of_others(tissue: Path, tmp_path: Path) -> None:
    """In batches whose sizes differ by one image; names in weights and checkpoints are the same."""
    options = {"seed": 1, "precision": "32", "device": "cpu"}
    plain = train(tissue, changes=[*STEPS, "sync_batch_norm=true"], out=tmp_path / "plain", **options)  # in one part
    before = graphs()
    run = train(tissue, changes=[*STEPS, "compile=true"], out=tmp_path / "compiled", **options)
    assert 1 <= graphs() - before <= 2, "one for each size of batch"
    histories = [pd.read_csv(folder / "history.csv")[LOSSES].to_numpy() for folder in (run, plain)]
    np.testing.assert_allclose(*histories, rtol=1e-4)
    for file in ("model/weights.safetensors", "checkpoints/last.safetensors"):
        one, other = load_file(run / file), load_file(plain / file)
        assert {name: value.shape for name, value in one.items()} == {k: v.shape for k, v in other.items()}


def test_draws_are_those_of_the_step(tissue: Path, tmp_path: Path) -> None:
    """With dropout, twice the same to the bit, and compiled once, not anew for each step's draws."""
    before, words = graphs(), [*SMALL, "batch_size=35", "epochs=1", "compile=true"]
    runs = [train(tissue, changes=words, out=tmp_path / place, seed=1, device="cpu") for place in "ab"]
    assert graphs() - before <= 2 * 2
    one, other = [pd.read_csv(run / "history.csv")[LOSSES] for run in runs]
    pd.testing.assert_frame_equal(one, other, check_exact=True)


def test_what_cannot_be_compiled_is_told_in_a_line(
    tissue: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """And what to do; only where it was asked for."""

    def broken(*_: object) -> object:
        raise RuntimeError("no C++ compiler")

    monkeypatch.setattr(compiled, "BACKEND", broken)
    words = [word for change in [*STEPS, "compile=true"] for word in ("--set", change)]
    assert typed(["train", str(tissue), "-o", str(tmp_path), "--device", "cpu", *words]) == 1
    told = capsys.readouterr().err
    assert "compile: the network cannot be compiled here (" in told
    assert "no C++ compiler" in told
    assert "leave it with --set compile=false" in told
    assert "Traceback" not in told


def test_only_a_gpu_compiles_where_the_recipe_says_so() -> None:
    """`tumortrace-gpu` asks for it there."""
    assert load_recipe("tumortrace-gpu").compile == "cuda"
    assert load_recipe("tumortrace").compile is False
    with pytest.raises(RecipeError, match="compile and sync_batch_norm"):
        load_recipe("tumortrace", ["compile=true", "sync_batch_norm=true"])


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="there is no C++ compiler")
def test_steps_are_compiled_to_machine_code(tissue: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The losses of two epochs to 1e-4."""
    monkeypatch.setattr(compiled, "BACKEND", "inductor")
    histories = []
    for change in ("compile=true", "sync_batch_norm=true"):
        run = train(tissue, changes=[*STEPS, change], out=tmp_path / change, seed=1, precision="32", device="cpu")
        histories.append(pd.read_csv(run / "history.csv")[LOSSES].to_numpy())
    np.testing.assert_allclose(*histories, rtol=1e-4)
