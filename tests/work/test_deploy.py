"""The files of `deploy/` are what their linters and this package say they are."""

from __future__ import annotations

import re
import shutil
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest
import yaml

from tumortrace.cli.verbs import VERBS
from tumortrace.work.hands import Hands

DEPLOY = Path(__file__).parents[2] / "deploy"


@pytest.mark.parametrize(
    ("linter", "files"),
    [
        ("bash -n", "slurm.sh"),
        ("shellcheck", "slurm.sh"),
        ("hadolint", "Dockerfile.cpu"),
        ("hadolint", "Dockerfile.cuda"),
    ],
)
def test_linters_find_nothing(linter: str, files: str) -> None:
    words = linter.split()
    if shutil.which(words[0]) is None:
        pytest.skip(f"{words[0]} is not installed")
    done = subprocess.run([*words, DEPLOY / files], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_images_are_made_of_files_and_extras_that_are_there() -> None:
    """What is copied exists, and the extras are those of pyproject.toml."""
    project = (DEPLOY.parent / "pyproject.toml").read_text()
    for file in DEPLOY.glob("Dockerfile.*"):
        text = file.read_text()
        for line in re.findall(r"^COPY (.+) \S+$", text, re.MULTILINE):
            assert all((DEPLOY.parent / name).exists() for name in line.split())
        (extras,) = re.findall(r"'\.\[(.+)\]'", text)
        assert all(f"\n{extra} = [" in project for extra in extras.split(","))


def test_the_ray_job_is_one_command_on_machines_of_one_image_and_folder() -> None:
    job: dict[str, Any] = yaml.safe_load((DEPLOY / "ray-job.yaml").read_text())
    assert (job["apiVersion"], job["kind"]) == ("ray.io/v1", "RayJob")
    spec = job["spec"]["rayClusterSpec"]
    groups = [spec["headGroupSpec"], *spec["workerGroupSpecs"]]
    pods = [group["template"]["spec"] for group in groups]
    (container,) = {pod["containers"][0]["image"] for pod in pods}
    assert container == "tumortrace:cpu"
    for pod in pods:
        mounts = {(mount["name"], mount["mountPath"]) for mount in pod["containers"][0]["volumeMounts"]}
        assert mounts == {("work", "/work")}
        assert [volume["name"] for volume in pod["volumes"]] == ["work"]
    verb, cluster = re.findall(r"tumortrace (\S+) .* --cluster (\S+?)'", job["spec"]["entrypoint"])[0]
    assert verb in VERBS
    assert Hands(cluster=cluster).elsewhere


def test_nothing_is_reported_to_anybody() -> None:
    """Ray's usage statistics are off wherever Ray is started."""
    for file in DEPLOY.iterdir():
        assert re.search(r'RAY_USAGE_STATS_ENABLED(=0|\n\s+value: "0")', file.read_text()), file


@pytest.fixture
def slurm(tmp_path: Path) -> dict[str, str]:
    """The environment of a batch script on two machines, with stand-ins that write down how they are called."""
    stands = {
        "scontrol": "printf 'm1\\nm2\\n'",
        "srun": 'case "$*" in *hostname*) echo 10.0.0.1 fe80::1 ;; esac',
        "ray": "echo $RAY_AUTH_MODE of ${#RAY_AUTH_TOKEN} letters >> calls; printf ' 1 node_1\\n 1 node_2\\n'",
        "tumortrace": 'trap "touch ordered; exit 1" TERM\ntouch begun\nfor _ in `seq $WAIT`; do sleep .1; done; exit 3',
    }
    (tmp_path / "bin").mkdir()
    for name, does in stands.items():
        (tmp_path / "bin" / name).write_text(f'#!/bin/bash\ncd {tmp_path}\necho "{name} $*" >> calls\n{does}\n')
        (tmp_path / "bin" / name).chmod(0o755)
    slurm = {"SLURM_JOB_NODELIST": "m[1-2]", "SLURM_CPUS_PER_TASK": "16", "SLURM_GPUS_ON_NODE": "4", "WAIT": "0"}
    return {"PATH": f"{tmp_path / 'bin'}:/usr/bin:/bin", **slurm}


def test_the_batch_script_makes_a_cluster_for_one_command(slurm: dict[str, str], tmp_path: Path) -> None:
    """A head, the other machines, the command with the head's address; its code is the job's."""
    command = ["bash", DEPLOY / "slurm.sh", "scan", "a run", "slides"]
    assert subprocess.run(command, env=slurm, check=False, timeout=30).returncode == 3
    calls = (tmp_path / "calls").read_text().splitlines()
    start = "ray start --block --num-cpus=16 --num-gpus=4"
    assert any(call.startswith("srun") and "--nodelist=m1 " in call and f"{start} --head" in call for call in calls)
    others = "--nodes=1 --ntasks=1 --overlap --nodelist=m2"
    assert f"srun {others} {start} --address=10.0.0.1:6379" in calls
    assert "tumortrace scan a run slides --cluster 10.0.0.1:6379" in calls
    assert "token of 64 letters" in calls, "nobody else has a say in the cluster"


def test_before_the_time_is_up_the_command_is_asked_to_end(slurm: dict[str, str], tmp_path: Path) -> None:
    """SLURM's signal reaches it, and the script waits until it has put its files in order."""
    with subprocess.Popen(["bash", DEPLOY / "slurm.sh", "scan"], env=slurm | {"WAIT": "100"}) as script:
        for _ in range(300):
            if (tmp_path / "begun").exists():
                break
            time.sleep(0.1)
        script.terminate()
        script.wait(30)
    assert (tmp_path / "ordered").exists()
