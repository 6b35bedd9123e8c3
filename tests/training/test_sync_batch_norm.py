"""Batch norm over a batch that two processes share is that of one which has the batch."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from torch import distributed

from tests.conftest import SMALL
from tests.training.halves import in_a_pair, learnt
from tumortrace.cli.main import run as typed
from tumortrace.training import experiment
from tumortrace.training.train import train

# no draws, which are those of each part, and no optimiser that makes much of the last digit
PLAIN = [
    *SMALL,
    "augmentation={}",
    "model.arguments={stem: 8, widths: [8, 16], depths: [1, 1], dropout: 0.0}",
    "optimiser={name: sgd, lr: 0.05}",
    "epochs=1",
]


def test_two_parts_are_normed_as_the_whole_batch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Against torch's own batch norm of all nine images: outputs, gradients and running statistics to 1e-5."""
    monkeypatch.setenv("GLOO_SOCKET_IFNAME", "lo")
    store = distributed.TCPStore("127.0.0.1", 0, 2, True, wait_for_workers=False)
    program = f"from tests.training.halves import second; second({store.port}, {str(tmp_path / 'second.pt')!r})"
    other = subprocess.Popen([sys.executable, "-c", program])
    first, whole = in_a_pair(0, store), learnt(None)
    assert other.wait(120) == 0
    second = torch.load(tmp_path / "second.pt")
    assert set(whole) == set(first) == set(second)
    together = {}
    for name, value in first.items():
        if name == "outputs":
            together[name] = torch.cat([value, second[name]])
        elif "running" in name or "tracked" in name or "within" in name:  # both have those of the batch
            torch.testing.assert_close(second[name], value, rtol=0, atol=0)
            together[name] = value
        else:
            together[name] = value + second[name]
    for name, value in whole.items():
        torch.testing.assert_close(together[name], value, rtol=1e-5, atol=1e-5, msg=lambda told, n=name: f"{n}: {told}")


def test_a_training_by_two_has_the_losses_of_one(
    tissue: Path, tmp_path: Path, few_replicates: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In batches of 35 and 36 images, so that the two have not as many."""
    monkeypatch.setattr(experiment, "renew_report", lambda folder: None)
    histories = {}
    for devices in (1, 2):
        changes = [*PLAIN, "batch_size=35", "sync_batch_norm=true"]
        options = {"seed": 1, "devices": devices, "precision": "32"}
        run = train(tissue, changes=changes, out=tmp_path / str(devices), **options)
        histories[devices] = pd.read_csv(run / "history.csv")[["train_loss", "validation_loss"]].to_numpy()
    np.testing.assert_allclose(histories[2], histories[1], rtol=1e-5)


def test_each_process_needs_an_image(tissue: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Told in a line by the first; the others end with it."""
    words = [word for change in [*PLAIN, "batch_size=2", "sync_batch_norm=true"] for word in ("--set", change)]
    assert typed(["train", str(tissue), "-o", str(tmp_path), "--devices", "3", *words]) == 1
    told = capsys.readouterr().err
    assert "batches of 2 images among 3 processes; expected an image for each" in told
    (run,) = tmp_path.iterdir()
    assert json.loads((run / "run.json").read_text())["status"] == "failed"
