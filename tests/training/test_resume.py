"""Killed and resumed, a run ends bit for bit where an undisturbed one does; the same seed gives the same run."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

from tests.conftest import SMALL
from tumortrace.errors import RunError
from tumortrace.models.checkpoint import load_checkpoint
from tumortrace.records.files import sha256
from tumortrace.training.train import resume, train

# A checkpoint after every step, so that a kill falls within an epoch, often while one is being written. The process
# ends itself without warning some time after so many checkpoints: no other would be sure to look at it in time.
PROGRAM = """
import os, signal, sys, threading
from tumortrace.training import gradient as fit
from tumortrace.training.train import resume, train
data, out, run, writes, delay, *changes = sys.argv[1:]
fit.CHECKPOINT_SECONDS = 0
save, written = fit.save_checkpoint, []
def save_and_count(*arguments):
    save(*arguments)
    written.append(1)
    if len(written) == int(writes):
        threading.Timer(float(delay), os.kill, (os.getpid(), signal.SIGKILL)).start()
fit.save_checkpoint = save_and_count
resume(run) if run else train(data, changes=changes, out=out, seed=1)
"""


def killed(data: Path, out: Path, run: Path | str, writes: int, delay: float) -> Path:
    """The folder of a run, begun or resumed, that was killed `delay` seconds after it had written `writes` times."""
    command = [sys.executable, "-c", PROGRAM, str(data), str(out), str(run), str(writes), str(delay), *SMALL]
    ended = subprocess.run(command, env=os.environ, stderr=subprocess.DEVNULL, check=False)
    assert ended.returncode == -signal.SIGKILL, "the run ended before it could be killed"
    (run,) = out.iterdir()
    return run


def records(run: Path) -> dict[str, object]:
    history = pd.read_csv(run / "history.csv").drop(columns="seconds")
    return {
        "weights": sha256(run / "model" / "weights.safetensors"),
        "predictions": (run / "predictions.csv").read_text(),
        "metrics": json.loads((run / "metrics.json").read_text()),
        "history": history.to_csv(),
        "splits": (run / "splits.csv").read_text(),
    }


def test_killed_and_resumed_is_bit_identical(tissue: Path, small_run: Path, tmp_path: Path) -> None:
    """Killed three times at moments drawn at random, resumed each time: same weights, history, predictions, metrics."""
    draw = random.Random(7)
    run: Path | str = ""
    for _ in range(3):
        run = killed(tissue, tmp_path, run, draw.randint(2, 5), draw.random() * 0.05)
        load_checkpoint(run / "checkpoints" / "last.safetensors")
        assert json.loads((run / "run.json").read_text())["status"] == "running"
    resume(run)
    assert records(Path(run)) == records(small_run)
    assert json.loads((Path(run) / "run.json").read_text())["status"] == "finished"


def test_the_seed_decides(tissue: Path, small_run: Path, tmp_path: Path) -> None:
    """The same seed gives an identical run, another seed another one."""
    same = train(tissue, changes=SMALL, out=tmp_path, seed=1)
    assert records(same) == records(small_run)
    other = train(tissue, changes=[*SMALL, "epochs=1"], out=tmp_path, seed=2)
    assert records(other)["weights"] != records(small_run)["weights"]


def test_resuming_on_changed_data_is_refused(tmp_path: Path) -> None:
    """When an image was edited since, the run does not go on as if nothing had happened."""
    from tumortrace import synthesise

    data = synthesise("patches", tmp_path / "patches", count=200, seed=5)
    run = train(data, changes=[*SMALL, "epochs=1"], out=tmp_path / "runs")
    record = run / "run.json"
    record.write_text(json.dumps(json.loads(record.read_text()) | {"status": "interrupted"}))
    image = next((data / "patches").iterdir())
    image.write_bytes(image.read_bytes() + b"\0")
    with pytest.raises(RunError, match="changed since"):
        resume(run)


def test_a_damaged_checkpoint_is_refused(tmp_path: Path) -> None:
    """A flipped bit in a checkpoint is found, and so is a cut file."""
    import torch

    from tumortrace.models.checkpoint import save_checkpoint

    path = tmp_path / "last.safetensors"
    save_checkpoint(path, {"weight": torch.ones(100)}, {"epoch": 1})
    whole = path.read_bytes()
    path.write_bytes(whole[:-3] + bytes([whole[-3] ^ 4]) + whole[-2:])
    with pytest.raises(RunError, match="damaged"):
        load_checkpoint(path)
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(RunError, match="not a readable checkpoint"):
        load_checkpoint(path)


def test_a_run_killed_before_its_report_still_gets_one(small_run: Path, tmp_path: Path) -> None:
    """A kill between the last record and the report loses neither: resuming writes it and changes no result."""
    run = Path(shutil.copytree(small_run, tmp_path / small_run.name))
    (run / "report.html").unlink()
    resume(run)
    assert (run / "report.html").stat().st_size > 0
    assert records(run) == records(small_run)


def test_resuming_nothing_is_refused(tmp_path: Path) -> None:
    """A folder that is no run is named."""
    with pytest.raises(RunError, match="not a run folder"):
        resume(tmp_path)
