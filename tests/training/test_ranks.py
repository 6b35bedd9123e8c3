"""A training divided among processes is the training: two parts of a batch by two of them are what one makes."""

from __future__ import annotations

import os
import socket
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


def test_two_machines_make_one_run(tissue: Path, small_run: Path, tmp_path: Path) -> None:
    """The command typed on each, here on one; the second keeps no records."""
    words = ["train", str(tissue), "--seed", "1", "--devices", "1", "--nodes", "2", "-o", str(tmp_path / "runs")]
    words += [word for change in SMALL for word in ("--set", change)]
    command = [str(Path(sys.executable).with_name("tumortrace")), *words]
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        meeting = {"MASTER_ADDR": "localhost", "MASTER_PORT": str(free.getsockname()[1]), "GLOO_SOCKET_IFNAME": "lo"}
    machines = [
        subprocess.Popen(command, env=os.environ | meeting | {"NODE_RANK": node}, stderr=subprocess.PIPE)
        for node in ("1", "0")
    ]
    told = [machine.communicate()[1].decode() for machine in machines]
    assert [machine.returncode for machine in machines] == [0, 0], told
    assert all(f"waiting for the other machines, at localhost:{meeting['MASTER_PORT']}" in lines for lines in told)
    (run,) = (tmp_path / "runs").iterdir()
    assert records(run) == records(small_run)
    assert "--nodes 2" in RunRecord.read(run).command


@pytest.mark.parametrize(
    ("variables", "line"),
    [
        ({}, "(no NODE_RANK, no MASTER_ADDR, no MASTER_PORT)"),
        ({"MASTER_ADDR": "n1", "MASTER_PORT": "1"}, "(no NODE_RANK, MASTER_ADDR=n1, MASTER_PORT=1)"),
        ({"NODE_RANK": "2", "MASTER_ADDR": "n1", "MASTER_PORT": "1"}, "(NODE_RANK=2, MASTER_ADDR=n1, MASTER_PORT=1)"),
        ({"NODE_RANK": "0", "MASTER_ADDR": "n1", "MASTER_PORT": "x"}, "(NODE_RANK=0, MASTER_ADDR=n1, MASTER_PORT=x)"),
        ({"SLURM_NTASKS": "8", "SLURM_JOB_ID": "1"}, "under srun or torchrun"),
    ],
)
def test_nothing_tells_which_machine_this_is(
    variables: dict[str, str], line: str, tissue: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    """What is missing is named, and how it is given."""
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert typed(["train", str(tissue), "--devices", "4", "--nodes", "2"]) == 1
    told = capsys.readouterr().err
    assert told.startswith("tumortrace: --nodes 2, and nothing tells which of the machines this is (")
    assert line in told
    assert "srun --nodes 2 --ntasks-per-node 4" in told


def test_each_machine_starts_its_own_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    """The second of two with four each has the ranks 4 to 7."""
    for name, value in {"NODE_RANK": "1", "MASTER_ADDR": "n1", "MASTER_PORT": "29500"}.items():
        monkeypatch.setenv(name, value)
    place = ranks.place_of(4, 2)
    assert place == ranks.Place(4, 8, 0, 4, ("n1", 29500))
    others = [ranks._beside(place, local, ("n1", 29500)) for local in range(1, 4)]
    assert [(other.rank, other.local, other.here) for other in others] == [(5, 1, 1), (6, 2, 1), (7, 3, 1)]


def test_a_port_that_is_taken_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """By the first machine, in one line."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(RunError, match=f"the processes of the training cannot meet at localhost:{port}"):
            ranks._met(ranks.Place(0, 2, 0, 1, ("localhost", port)), ("localhost", port))


def test_a_launcher_and_devices_have_to_agree(monkeypatch: pytest.MonkeyPatch) -> None:
    """Otherwise each process would make a run of its own."""
    assert ranks.place_of(2) == ranks.Place(0, 2, 0, 2, ("127.0.0.1", 0))  # no launcher
    given = {"TORCHELASTIC_RUN_ID": "1", "RANK": "1", "WORLD_SIZE": "4", "LOCAL_RANK": "1"}
    for name, value in {**given, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "1"}.items():
        monkeypatch.setenv(name, value)
    assert ranks.place_of(4) == ranks.place_of(2, 2) == ranks.Place(1, 4, 1)
    for devices in (1, 2):
        with pytest.raises(RunError, match=f"4 processes of a launcher, and --devices {devices}"):
            ranks.place_of(devices)
    with pytest.raises(RunError, match="4 processes of a launcher, and --devices 4 --nodes 2"):
        ranks.place_of(4, 2)
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
        (["--nodes", "2", "--members", "2"], "--devices with --fractions or --members"),
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
