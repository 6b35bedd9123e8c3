"""A training divided among processes is the training: two parts of a batch by two of them are what one makes."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import SMALL
from tests.training.test_resume import records
from tumortrace.cli.main import run as typed
from tumortrace.errors import RunError
from tumortrace.records.run import RunRecord
from tumortrace.training import gradient, ranks
from tumortrace.training.train import resume, train


def test_one_of_two_is_killed_and_the_run_resumed(
    tissue: Path, small_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It ends with one line, not by waiting; resumed, by two again, it is bit for bit what one process makes."""
    started, save, saved = ranks._started, gradient.save_checkpoint, []
    others: list[subprocess.Popen[bytes]] = []
    monkeypatch.setattr(ranks, "_started", lambda *place: others.append(started(*place)) or others[-1])

    def save_and_kill(*checkpoint: object) -> None:
        save(*checkpoint)
        saved.append(checkpoint)
        if len(saved) == 2:  # best and last of the first epoch
            others[0].kill()

    monkeypatch.setattr(gradient, "save_checkpoint", save_and_kill)
    with pytest.raises(RunError, match="another process of the training has ended"):
        train(tissue, changes=SMALL, out=tmp_path, seed=1, devices=2)
    (run,) = tmp_path.iterdir()
    assert (RunRecord.read(run).status, len(others)) == ("failed", 1)
    resume(run)
    assert records(run) == records(small_run)
    assert [other.poll() is None for other in others] == [False, False]
    assert "--devices 2" in RunRecord.read(run).command


def test_two_processes_of_a_launcher_make_one_run(tissue: Path, small_run: Path, tmp_path: Path) -> None:
    """Started by torchrun; the second keeps no records."""
    words = ["train", str(tissue), "--seed", "1", "--devices", "2", "-o", str(tmp_path / "runs")]
    words += [word for change in SMALL for word in ("--set", change)]
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "--no-python"]
    command = [*launcher, str(Path(sys.executable).with_name("tumortrace")), *words]
    ended = subprocess.run(command, env=os.environ, capture_output=True, check=False)
    assert ended.returncode == 0, ended.stderr.decode()[-2000:]
    (run,) = (tmp_path / "runs").iterdir()
    assert records(run) == records(small_run)


def test_a_process_that_does_not_start_is_not_waited_for(
    tissue: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One line; it would be waited for all day."""
    monkeypatch.setattr(ranks, "_started", lambda *_: subprocess.Popen([sys.executable, "-c", "raise SystemExit(3)"]))
    with pytest.raises(RunError, match="a process of the training could not be started"):
        train(tissue, changes=SMALL, out=tmp_path, seed=1, devices=2)


def test_a_single_device_is_not_divided(tissue: Path, tmp_path: Path) -> None:
    """It would have been the CPU, without a word."""
    with pytest.raises(RunError, match="--devices 2 with --device mps"):
        train(tissue, changes=SMALL, out=tmp_path, seed=1, devices=2, device="mps")


def test_a_launcher_and_devices_have_to_agree(monkeypatch: pytest.MonkeyPatch) -> None:
    """Otherwise each process would make a run of its own."""
    assert not ranks.follows(2)  # no launcher
    given = {"TORCHELASTIC_RUN_ID": "1", "RANK": "1", "WORLD_SIZE": "4", "LOCAL_RANK": "1"}
    for name, value in {**given, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "1"}.items():
        monkeypatch.setenv(name, value)
    assert ranks.follows(4)
    for devices in (1, 2):
        with pytest.raises(RunError, match=f"4 processes of a launcher, and --devices {devices}"):
            ranks.follows(devices)
    monkeypatch.setenv("RANK", "0")
    assert not ranks.follows(4)
    monkeypatch.setenv("WORLD_SIZE", "1")
    assert ranks.launched() is None  # the only one: it starts the others itself


def test_of_slurm_a_step_is_a_launcher_and_a_batch_script_none(monkeypatch: pytest.MonkeyPatch) -> None:
    """In a script all processes are 0: it would wait for others that nobody starts."""
    given = {"NTASKS": "2", "PROCID": "1", "LOCALID": "1", "NODEID": "0", "JOB_NAME": "train", "NODELIST": "n[07-08]"}
    for name, value in given.items():
        monkeypatch.setenv(f"SLURM_{name}", value)
    monkeypatch.setenv("MASTER_ADDR", "")  # put back afterwards
    monkeypatch.setenv("MASTER_PORT", "")
    monkeypatch.delenv("MASTER_ADDR")
    monkeypatch.delenv("MASTER_PORT")
    assert ranks.launched() is None
    monkeypatch.setenv("SLURM_STEP_ID", "0")
    with pytest.raises(RunError, match="without --ntasks-per-node"):
        ranks.launched()
    monkeypatch.setenv("SLURM_NTASKS_PER_NODE", "1")
    assert ranks.launched() == ranks.Place(1, 2, 1)
    assert os.environ["MASTER_ADDR"] == "n07"


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["--devices", "2", "--members", "2"], "--devices with --fractions or --members"),
        (["--devices", "2", "--recipe", "texture-logistic"], "--devices 2 with recipe texture-logistic"),
    ],
)
def test_what_cannot_be_divided_is_refused(
    words: list[str], line: str, tissue: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """In one line, and nothing is left behind."""
    assert typed(["train", str(tissue), "-o", str(tmp_path / "runs"), *words]) == 1
    assert capsys.readouterr().err.startswith(f"tumortrace: {line}")
    assert not (tmp_path / "runs").exists()


def test_devices_are_at_least_one(tissue: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Told as a wrong call."""
    assert typed(["train", str(tissue), "--devices", "0"]) == 2
    assert "devices" in capsys.readouterr().err
