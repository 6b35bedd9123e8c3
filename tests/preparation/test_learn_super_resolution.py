"""Learning a generator: it learns, it is written whole, and an interruption leaves no trace."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional

from tumortrace.errors import DataError, RunError, SplitError
from tumortrace.images.super_resolution import SuperResolution, downsample
from tumortrace.preparation import generator_learner as module
from tumortrace.preparation.generator_learner import Learner
from tumortrace.preparation.learn_super_resolution import learn_super_resolution

TINY: dict[str, Any] = {"filters": 6, "batch_size": 2, "crop": 16, "seed": 5, "device": "cpu"}


@pytest.fixture(scope="module")
def patches() -> np.ndarray:
    """Sharp discs on a bright ground, which interpolation blurs and a network soon learns to sharpen."""
    draw = np.random.default_rng(0)
    rows, columns = np.mgrid[:48, :48]
    images = np.full((24, 48, 48, 3), (230, 190, 220), np.uint8)
    for image in images:
        for top, left, radius in draw.integers((0, 0, 3), (48, 48, 8), (12, 3)):
            image[(rows - top) ** 2 + (columns - left) ** 2 < radius**2] = (90, 50, 130)
    return images


def learn(patches: np.ndarray, out: Path, **changes: Any) -> dict[str, Any]:
    learn_super_resolution(patches, np.arange(24), out, **{**TINY, **changes})
    return json.loads(out.with_suffix(".json").read_text("utf-8"))


def test_it_learns_and_is_loaded_again(patches: np.ndarray, tmp_path: Path) -> None:
    """The loss falls, what is held out gains by it, and the record is of the file that is there."""
    out = tmp_path / "g.safetensors"
    first = learn(patches, tmp_path / "first.safetensors", scale=2, steps=1)
    record = learn(patches, out, scale=2, steps=50, batch_size=8, learning_rate=5e-3, adversarial_share=0.1)
    pixel = [each["pixel"] for each in record["losses"]]
    assert np.mean(pixel[-15:]) < 0.95 * np.mean(pixel[:15])
    assert record["held_out"]["generator"]["psnr"]["value"] > first["held_out"]["generator"]["psnr"]["value"] + 0.2
    assert record["images"] == {"learnt_from": 22, "held_out": 2}
    assert record["pixel_steps"] == 45
    adversarial = [each["step"] for each in record["losses"] if each["adversarial"] > 0]
    assert adversarial[0] == 46
    assert record["held_out_pixel_loss_alone"]["patches"] == 2
    enlarge = SuperResolution(scale=2, weights=str(out), sha256=record["sha256"])
    assert enlarge.describe()["architecture"] == "ESRGAN 6nf 1nb"
    assert sorted(file.name for file in tmp_path.glob("g*")) == ["g.json", "g.safetensors"]


def test_it_starts_as_bilinear_interpolation(patches: np.ndarray, tmp_path: Path) -> None:
    """Before the first step the network doubles twice by bilinear interpolation, away from the border."""
    changes = {
        "scale": 4,
        "steps": 1,
        "blocks": 2,
        "learning_rate": 1e-3,
        "adversarial_share": 0.0,
        "adversarial_weight": 0.1,
    }
    settings = module.Settings(**{name: value for name, value in {**TINY, **changes}.items() if name != "device"})
    learner = Learner(patches, np.arange(24), tmp_path / "none", settings, torch.device("cpu"))
    small = torch.from_numpy(downsample(patches[:2], 4)).permute(0, 3, 1, 2) / 255
    reference = small
    for _ in range(2):
        reference = functional.interpolate(reference, scale_factor=2, mode="bilinear", align_corners=False)
    with torch.no_grad():
        inner = (learner.generator(small) - reference)[..., 4:-4, 4:-4]
    assert inner.abs().max() < 1e-6


def test_the_network_in_memory_is_the_one_on_disk(
    patches: np.ndarray, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The file restores pictures exactly as the learner that wrote it."""
    learners: list[Learner] = []
    resume = Learner.resume
    monkeypatch.setattr(Learner, "resume", lambda self: (learners.append(self), resume(self)))
    learn(patches, tmp_path / "g.safetensors", steps=3)
    small = downsample(patches, 4)
    assert np.array_equal(SuperResolution(weights=str(tmp_path / "g.safetensors"))(small), learners[0]._enlarge(small))


class Killed(BaseException):
    """What a signal does to a process, as far as files are concerned."""


@pytest.mark.parametrize("moment", [2, 7, 9])
def test_killed_and_resumed_is_bit_identical(
    moment: int, patches: np.ndarray, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed in the pixel part, at its end or in the adversarial part: weights and losses end the same."""
    arguments: dict[str, Any] = {"steps": 12, "adversarial_share": 0.4}  # adversarial from step 7 on
    undisturbed = learn(patches, tmp_path / "a.safetensors", **arguments)
    step = Learner._step

    def killing(self: Learner) -> list[float]:
        if self.state.step == moment:
            raise Killed
        return step(self)

    with monkeypatch.context() as patch:
        patch.setattr(module, "CHECKPOINT_SECONDS", -1)
        patch.setattr(Learner, "_step", killing)
        with pytest.raises(Killed):
            learn(patches, tmp_path / "b.safetensors", **arguments)
    assert not (tmp_path / "b.safetensors").exists()
    taken: list[int] = []
    monkeypatch.setattr(Learner, "_step", lambda self: (taken.append(self.state.step), step(self))[1])
    resumed = learn(patches, tmp_path / "b.safetensors", **arguments)
    assert taken == list(range(moment, 12))
    assert (tmp_path / "a.safetensors").read_bytes() == (tmp_path / "b.safetensors").read_bytes()
    assert {**resumed, "seconds": 0} == {**undisturbed, "seconds": 0}


def test_other_arguments_do_not_take_up_what_is_unfinished(
    patches: np.ndarray, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Changed settings and changed images are named; the unfinished work stays as it was."""
    out, step = tmp_path / "g.safetensors", Learner._step
    monkeypatch.setattr(module, "CHECKPOINT_SECONDS", -1)

    def killing(self: Learner) -> list[float]:
        if self.state.step == 2:
            raise Killed
        return step(self)

    monkeypatch.setattr(Learner, "_step", killing)
    with pytest.raises(Killed):
        learn(patches, out, steps=4)
    checkpoint = out.with_suffix(".checkpoint.safetensors")
    before = checkpoint.read_bytes()
    with pytest.raises(RunError, match="differs in steps"):
        learn(patches, out, steps=5)
    with pytest.raises(RunError, match="differs in data"):
        learn(255 - patches, out, steps=4)
    assert checkpoint.read_bytes() == before


def test_what_is_there_is_not_overwritten(patches: np.ndarray, tmp_path: Path) -> None:
    """A generator, or a file that merely has the record's name, is kept."""
    for name in ("g.safetensors", "g.json"):
        (tmp_path / name).write_text("mine")
        with pytest.raises(RunError, match="there already"):
            learn(patches, tmp_path / "g.safetensors", steps=1)
        assert (tmp_path / name).read_text() == "mine"
        (tmp_path / name).unlink()


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"held_out": np.arange(20, 26)}, DataError),
        ({"held_out": np.array([3])}, SplitError),
        ({"rows": np.array([], np.int64)}, DataError),
        ({"rows": np.array([-1, 2])}, DataError),
        ({"rows": np.array([2])}, DataError),
        ({"steps": 0}, DataError),
        ({"scale": 3}, DataError),
        ({"crop": 8}, DataError),
        ({"adversarial_share": 1.5}, DataError),
        ({"out": Path("g.pth")}, DataError),
    ],
)
def test_what_nothing_can_be_learnt_from(
    changes: dict[str, Any], error: type[Exception], patches: np.ndarray, tmp_path: Path
) -> None:
    """Rows that are not there, none, or on both sides, and senseless settings are refused before any work."""
    arguments = {**TINY, "rows": np.arange(20), "out": Path("g.safetensors"), **changes}
    arguments["out"] = tmp_path / arguments["out"]
    with pytest.raises(error):
        learn_super_resolution(patches, **arguments)
    assert not list(tmp_path.iterdir())
