"""The files of `deploy/` are what their linters and this package say they are."""

from __future__ import annotations

import re
import shutil
import subprocess
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
