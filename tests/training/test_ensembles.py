"""Ensembles trained in one go and after a kill, calibrated as one; pupils that learn from a teacher."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy

from tests.conftest import SMALL, renew_no_part
from tumortrace import ensemble, load_model, open_cohort, resume_ensemble, train, train_members
from tumortrace.cli.main import run as command
from tumortrace.cohorts.store import open_store
from tumortrace.errors import RunError
from tumortrace.models.architecture import build_network
from tumortrace.models.description import Architecture
from tumortrace.training import ensemble as joining
from tumortrace.training import experiment
from tumortrace.training.recipe import load_recipe
from tumortrace.training.stage import Descent, stages_of

# The process ends without warning when a checkpoint of the second member has been written.
KILLED = """
import os, sys
from tumortrace.training import gradient as fit
from tumortrace.training.ensemble import train_members
from tumortrace.training import experiment
experiment.renew_report = lambda folder: None
save = fit.save_checkpoint
def save_and_die(*arguments):
    save(*arguments)
    if "members/2" in str(arguments[0]):
        os._exit(9)
fit.save_checkpoint = save_and_die
train_members(sys.argv[1], 2, changes=sys.argv[3:], epochs=1, out=sys.argv[2], seed=4)
"""


@pytest.fixture(scope="module", autouse=True)
def _quick(few_replicates: None) -> Iterator[None]:
    """Members have no report of their own, which other tests look at."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(experiment, "renew_report", renew_no_part)
        yield


@pytest.fixture(scope="module")
def members(tissue: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An ensemble of two, with its members in it."""
    return train_members(tissue, 2, changes=SMALL, epochs=1, out=tmp_path_factory.mktemp("members"), seed=4)


def runs_in(folder: Path) -> list[Path]:
    """Run folders of an ensemble's members, in their order."""
    return sorted(path.parent for path in folder.glob("members/*/*/run.json"))


def test_members_differ_and_are_joined(members: Path, tissue: Path) -> None:
    """Same splits, different weights; the ensemble's probability is the mean, calibrated anew on calibration alone."""
    record = json.loads((members / "run.json").read_text())
    runs = runs_in(members)
    assert record["verb"] == "ensemble"
    assert "--members 2" in record["command"]
    assert len(runs) == 2
    assert len({(run / "splits.csv").read_bytes() for run in runs}) == 1
    assert len({entry["weights_sha256"] for entry in record["members"]}) == 2
    cohort = open_cohort(tissue)
    images = open_store(cohort).images[:40]
    logits = [load_model(run).logits(images) for run in runs]
    mean = np.mean([1 / (1 + np.exp(-values)) for values in logits], axis=0)
    joined = load_model(members)
    # symmetries are averaged within the ensemble, so the mean over members is of each view
    if not joined.info.symmetries:
        np.testing.assert_allclose(1 / (1 + np.exp(-joined.logits(images))), mean, atol=1e-5)
    else:
        np.testing.assert_allclose(1 / (1 + np.exp(-joined.logits(images))), mean, atol=0.05)
    page = (members / "report.html").read_text()
    assert "These are 2 networks, joined once" in page
    assert "one training from one seed" not in page
    assert joined.info.calibration != load_model(runs[0]).info.calibration


def test_runs_that_do_not_fit_are_refused(members: Path, tissue: Path, tmp_path: Path) -> None:
    """One alone; two with other splits: an image that one has learnt from would test the other."""
    other = train(tissue, changes=SMALL, epochs=1, out=tmp_path / "other", split="random")
    with pytest.raises(RunError, match="at least two"):
        ensemble([other], out=tmp_path / "runs")
    first = runs_in(members)[0]
    with pytest.raises(RunError, match="split otherwise"):
        ensemble([first, other], out=tmp_path / "runs")
    assert not (tmp_path / "runs").exists()


def test_a_pupil_learns_from_a_teacher(members: Path, tissue: Path, tmp_path: Path) -> None:
    """It is recorded and said aloud; a teacher that knows the pupil's test images is refused."""
    options = {"changes": SMALL, "epochs": 1, "out": tmp_path, "split_seed": 4}
    pupil = train(tissue, distil=members, seed=9, **options)
    record = json.loads((pupil / "run.json").read_text())
    assert record["arguments"]["distil"] == str(members)
    assert any(note.startswith("distilled from") for note in record["data"]["notes"])
    alone = train(tissue, seed=9, **options)
    losses = [pd.read_csv(run / "history.csv")["train_loss"][0] for run in (pupil, alone)]
    assert losses[0] != losses[1]
    with pytest.raises(RunError, match="has learnt from"):
        train(tissue, distil=members, seed=9, **options, split="random")


def test_killed_in_the_second_member_one_command_ends_it(
    members: Path, tissue: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The first member stays as it is, the second goes on, they are joined: as if nothing had happened."""
    program = [sys.executable, "-c", KILLED, str(tissue), str(tmp_path), *SMALL]
    assert subprocess.run(program, env=os.environ, stderr=subprocess.DEVNULL, check=False).returncode == 9
    (folder,) = tmp_path.iterdir()
    first, second = runs_in(folder)
    assert not (folder / "model").exists()
    before = {path: path.stat().st_mtime_ns for path in first.rglob("*")}
    assert command(["train", "--resume", str(folder)]) == 0
    assert capsys.readouterr().out.strip() == str(folder)
    assert {path: path.stat().st_mtime_ns for path in first.rglob("*")} == before
    assert runs_in(folder) == [first, second]
    assert not list(folder.glob("members/*/*/checkpoints"))
    for name in ("predictions.csv", "metrics.json", "splits.csv", "seen.csv", "model/weights.safetensors"):
        assert (folder / name).read_bytes() == (members / name).read_bytes(), name
    record = json.loads((folder / "run.json").read_text())
    assert record["status"] == "finished"
    assert record["duration_s"] > sum(
        json.loads((run / "run.json").read_text())["duration_s"] for run in (first, second)
    )
    assert command(["train", "--resume", str(folder)]) == 0
    assert "nothing to resume" in capsys.readouterr().err


def test_interrupted_while_joining_it_names_the_command_that_goes_on(
    members: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Of `ensemble` too, which then joins the same runs anew; another verb's --resume says whose it is."""

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    runs = runs_in(members)
    with monkeypatch.context() as patch:
        patch.setattr(joining, "finish", interrupt)
        with pytest.raises(RunError, match=r"interrupted.*tumortrace train --resume"):
            ensemble(runs, out=tmp_path)
    (folder,) = tmp_path.iterdir()
    assert json.loads((folder / "run.json").read_text())["status"] == "interrupted"
    assert command(["crossval", "--resume", str(folder)]) == 1
    assert f"`tumortrace train --resume {folder}`" in capsys.readouterr().err
    monkeypatch.setattr(experiment, "renew_report", lambda folder: None)
    assert resume_ensemble(folder) == folder
    assert (folder / "predictions.csv").read_bytes() == (members / "predictions.csv").read_bytes()


def test_runs_that_leave_images_out_are_joined(tissue: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The images that their recipe leaves out stay out; the command names the runs also where a folder has a space."""
    ids = open_cohort(tissue).table["id"][:7]
    ids.to_frame().to_csv(tmp_path / "quarantine.csv", index=False)
    monkeypatch.setattr(joining, "finish", lambda *_: "")
    monkeypatch.setattr(experiment, "renew_report", lambda folder: None)
    changes = [*SMALL, f"leave_out={tmp_path / 'quarantine.csv'}"]
    folder = train_members(tissue, 2, changes=changes, epochs=1, out=tmp_path / "my runs")
    again = ensemble(runs_in(folder), out=tmp_path / "again")
    line = json.loads((again / "run.json").read_text())["command"]
    assert shlex.split(line) == ["tumortrace", "ensemble", *map(str, runs_in(folder))]
    for run in (folder, again):
        splits = pd.read_csv(run / "splits.csv", dtype=str)
        assert len(splits) == 393
        assert not set(splits["id"]) & set(ids)


def test_too_few_members_are_refused(tissue: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """None of them, and nothing is made; unfit data are refused before a folder is made, too."""
    assert command(["train", str(tissue), "--members", "0", "-o", str(tmp_path)]) == 1
    assert "at least 2" in capsys.readouterr().err
    assert command(["train", str(tissue), "--members", "2", "--set", "splits={train: 1}", "-o", str(tmp_path)]) == 1
    assert len(capsys.readouterr().err.strip().splitlines()) == 1
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("positive", [(), (True, False, True)])
def test_members_that_are_trained_together_learn_each_for_itself(positive: tuple[bool, ...]) -> None:
    """Their gradients are those of each alone; what is told of the batch is the mean of their probabilities."""
    members = [{"name": "plain-cnn", "arguments": {"blocks": [4]}}] * 2
    recipe = load_recipe("cnn-64").model_copy(update={"model": Architecture(name="ensemble", arguments={})})
    network = build_network("ensemble", (16, 16), {"members": members}, positive)
    descent = Descent(network, recipe, stages_of(recipe)[0], device=torch.device("cpu"), head_alone=False)
    images, labels = torch.rand(6, 3, 16, 16), torch.tensor([0, 1, 1, 0, 0, 1])
    learners, logits = descent.forward(0, images, torch.Generator())
    measure = cross_entropy if positive else lambda z, y: binary_cross_entropy_with_logits(z.view(-1), y.float())
    gradients = iter(descent.gradients(torch.stack([measure(one, labels) for one in learners]).sum()))
    probabilities = []
    for member, _ in network.members():
        alone = member(images)
        for expected in torch.autograd.grad(measure(alone, labels), list(member.parameters())):
            torch.testing.assert_close(next(gradients), expected)
        probabilities.append(alone.softmax(1) if positive else alone.sigmoid())
    mean = (probabilities[0] + probabilities[1]) / 2
    torch.testing.assert_close(logits.softmax(1) if positive else logits.view(-1).sigmoid(), mean)
    assert not logits.requires_grad
