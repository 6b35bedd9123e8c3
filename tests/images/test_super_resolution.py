"""Super-resolution: Lanczos as Pillow does it, generators as published, and files that must be refused."""

from __future__ import annotations

import os
import pickle
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from pydantic import ValidationError
from safetensors.torch import save_file
from skimage.metrics import peak_signal_noise_ratio, structural_similarity
from spandrel.architectures.ESRGAN import ESRGAN
from torch import Tensor, nn

from tumortrace.errors import DataError, ModelError
from tumortrace.images.super_resolution import SuperResolution, downsample, restoration_quality


def network(seed: int = 0, **arguments: Any) -> ESRGAN:
    """A small generator with weights that are not trained but lively."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        made = ESRGAN(**{"num_filters": 8, "num_blocks": 2, "scale": 4, **arguments})
    return made.eval()


def expected(generator: nn.Module, images: np.ndarray) -> np.ndarray:
    with torch.no_grad():
        pixels = generator(torch.from_numpy(images).permute(0, 3, 1, 2).float() / 255)
    return (pixels.clamp(0, 1) * 255).round().to(torch.uint8).permute(0, 2, 3, 1).numpy()


def as_published(state: dict[str, Tensor]) -> dict[str, Any]:
    """The same weights under the names of Real-ESRGAN's files, with their wrapper."""
    names = {"model.0": "conv_first", "model.1.sub.2": "conv_body", "model.3": "conv_up1", "model.6": "conv_up2"}
    names |= {"model.8": "conv_hr", "model.10": "conv_last"}
    renamed = {}
    for key, value in state.items():
        layer, kind = key.rsplit(".", 1)
        inner = re.fullmatch(r"model\.1\.sub\.(\d)\.RDB(\d)\.(conv\d)\.0", layer)
        renamed[f"body.{inner[1]}.rdb{inner[2]}.{inner[3]}.{kind}" if inner else f"{names[layer]}.{kind}"] = value
    return {"params_ema": renamed}


@pytest.fixture
def images() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (3, 12, 10, 3), dtype=np.uint8)


def test_without_weights_it_is_pillows_lanczos(images: np.ndarray) -> None:
    """Each image is enlarged by Pillow's own Lanczos filter, rows and columns kept apart."""
    enlarged = SuperResolution(scale=3)(images)
    assert enlarged.shape == (3, 36, 30, 3)
    assert enlarged.dtype == np.uint8
    reference = Image.fromarray(images[1]).resize((30, 36), Image.Resampling.LANCZOS)
    assert np.array_equal(enlarged[1], np.asarray(reference))


def _legacy(state: dict[str, Any], path: Path) -> None:
    torch.save(state, path, _use_new_zipfile_serialization=False)


@pytest.mark.parametrize(
    ("name", "save"),
    [
        ("esrgan.pth", torch.save),
        ("old.pth", _legacy),
        ("realesrgan.pth", lambda state, path: torch.save(as_published(state), path)),
        ("mine.safetensors", save_file),
    ],
)
def test_generator_files_as_they_are_published(
    name: str, save: Callable[[Any, Path], None], images: np.ndarray, tmp_path: Path
) -> None:
    """ESRGAN's and Real-ESRGAN's key names, zip, legacy and safetensors files give the very network's pictures."""
    generator = network()
    save(dict(generator.state_dict()), tmp_path / name)
    enlarge = SuperResolution(weights=str(tmp_path / name))
    assert np.array_equal(enlarge(images), expected(generator, images))
    described = enlarge.describe()
    assert (described["method"], described["file"]) == ("generator", name)
    assert described["architecture"] == "ESRGAN 8nf 2nb"


def test_batches_and_layout_do_not_matter(tmp_path: Path) -> None:
    """Images beyond one batch, none at all, and views of larger patches come out as each by itself."""
    save_file(network().state_dict(), tmp_path / "g.safetensors")
    enlarge = SuperResolution(weights=str(tmp_path / "g.safetensors"))
    patches = np.random.default_rng(1).integers(0, 256, (35, 48, 48, 3), dtype=np.uint8)
    crops = patches[:, 8:40, 8:40]
    together = enlarge(crops)
    for row in (0, 31, 32, 34):
        alone = enlarge(np.ascontiguousarray(crops[row : row + 1]))[0]
        assert np.abs(together[row].astype(int) - alone).max() <= 1
    assert enlarge(crops[:0]).shape == (0, 128, 128, 3)


def test_the_hash_is_recorded_and_checked(images: np.ndarray, tmp_path: Path) -> None:
    """A file that was exchanged is used where no hash is given, and refused where one is."""
    file = tmp_path / "g.safetensors"
    save_file(network().state_dict(), file)
    free, pinned = SuperResolution(weights=str(file)), SuperResolution(weights=str(file)).pinned()
    assert pinned.sha256 == free.describe()["sha256"]
    before = pinned(images)
    save_file(network(seed=1).state_dict(), file)
    os.utime(file, ns=(1, 1))
    assert not np.array_equal(free(images), before)
    with pytest.raises(ModelError, match="another file than meant"):
        pinned(images)


class Malicious:
    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (f"touch '{self.trace}'",)


@pytest.mark.parametrize("wrapper", ["torch", "pickle"])
def test_a_file_that_runs_a_program_is_refused(wrapper: str, images: np.ndarray, tmp_path: Path) -> None:
    """A pickle that calls os.system when read the ordinary way does not get to do so."""
    file, trace = tmp_path / "evil.pth", tmp_path / "trace"
    if wrapper == "torch":
        torch.save({**network().state_dict(), "extra": Malicious(trace)}, file)
        torch.load(file, weights_only=False)
    else:
        file.write_bytes(pickle.dumps(Malicious(trace)))
        pickle.loads(file.read_bytes())  # noqa: S301  shows that the file would do harm
    assert trace.exists()
    trace.unlink()
    with pytest.raises(ModelError) as caught:
        SuperResolution(weights=str(file))(images)
    assert "\n" not in str(caught.value)
    assert not trace.exists()


@pytest.mark.filterwarnings("ignore")
def test_torchscript_is_refused(images: np.ndarray, tmp_path: Path) -> None:
    """An archive of TorchScript, which is a program, is not run."""
    torch.jit.script(nn.Conv2d(3, 3, 1)).save(tmp_path / "program.pth")
    with pytest.raises(ModelError):
        SuperResolution(weights=str(tmp_path / "program.pth"))(images)


def _damaged() -> dict[str, Tensor]:
    state = {name: value.clone() for name, value in network().state_dict().items()}
    state["model.0.weight"][0, 0, 0, 0] = float("nan")
    return state


@pytest.mark.parametrize(
    ("state", "message"),
    [
        (lambda: network(scale=2).state_dict(), "enlarges 2 times; expected 4 times"),
        (lambda: network(scale=1).state_dict(), "not for super-resolution"),
        (lambda: network(in_nc=1, out_nc=1).state_dict(), "1 channels in and 1 out; expected 3 and 3"),
        (lambda: nn.Conv2d(3, 8, 3).state_dict(), "UnsupportedModelError"),
        (lambda: {key: value for key, value in network().state_dict().items() if "RDB2" not in key}, "no checkpoint"),
        (_damaged, "not finite"),
    ],
)
def test_files_that_do_not_fit_are_refused_in_one_line(
    state: Callable[[], dict[str, Tensor]], message: str, images: np.ndarray, tmp_path: Path
) -> None:
    """Another scale, another purpose, grey images, another kind of network, missing and damaged weights."""
    torch.save(state(), tmp_path / "g.pth")
    with pytest.raises(ModelError, match=message) as caught:
        SuperResolution(weights=str(tmp_path / "g.pth"))(images)
    assert "\n" not in str(caught.value)
    assert str(tmp_path / "g.pth") in str(caught.value)


@pytest.mark.parametrize("content", [None, b"", b"not a checkpoint", "half"])
@pytest.mark.parametrize("ending", [".pth", ".safetensors"])
def test_missing_and_broken_files(content: bytes | str | None, ending: str, images: np.ndarray, tmp_path: Path) -> None:
    """A missing, empty, foreign or truncated file is a refusal in one line; so is a folder."""
    file = tmp_path / f"g{ending}"
    if content == "half":
        (save_file if ending == ".safetensors" else torch.save)(dict(network().state_dict()), file)
        content = file.read_bytes()[: file.stat().st_size // 2]
    if content is not None:
        file.write_bytes(content)  # type: ignore[arg-type]
    for path in (file, tmp_path):
        with pytest.raises(ModelError) as caught:
            SuperResolution(weights=str(path))(images)
        assert "\n" not in str(caught.value)


def test_settings_and_images_that_make_no_sense() -> None:
    """A hash without a file, a scale of 1, floats and grey images are refused."""
    for wrong in ({"sha256": "0" * 64}, {"scale": 1}, {"weights": "a.pth", "sha256": "0"}, {"factor": 4}):
        with pytest.raises(ValidationError):
            SuperResolution(**wrong)
    for images in (np.zeros((1, 8, 8, 3)), np.zeros((8, 8, 3), np.uint8), np.zeros((1, 0, 8, 3), np.uint8)):
        with pytest.raises(DataError, match="expected uint8"):
            SuperResolution()(images)


def test_quality_agrees_with_scikit_image() -> None:
    """PSNR and SSIM of bicubic interpolation are scikit-image's, of Pillow's pictures; the gain is a difference."""
    truth = np.random.default_rng(2).integers(0, 256, (4, 25, 24, 3), dtype=np.uint8)
    quality = restoration_quality(SuperResolution(), truth, scale=4)
    psnr, ssim = [], []
    for image in truth[:, :24]:
        small = Image.fromarray(image).resize((6, 6), Image.Resampling.BICUBIC)
        assert np.array_equal(downsample(image[None], 4)[0], np.asarray(small))
        large = np.asarray(small.resize((24, 24), Image.Resampling.BICUBIC))
        psnr.append(peak_signal_noise_ratio(image, large))
        options = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False}
        ssim.append(structural_similarity(image, large, channel_axis=2, **options))
    assert quality["patches"] == 4
    assert quality["bicubic"]["psnr"]["value"] == pytest.approx(np.mean(psnr))
    assert quality["bicubic"]["ssim"]["value"] == pytest.approx(np.mean(ssim))
    gain = quality["generator"]["psnr"]["value"] - quality["bicubic"]["psnr"]["value"]
    assert quality["gain_over_bicubic"]["psnr"]["value"] == pytest.approx(gain)
    low, high = quality["bicubic"]["psnr"]["ci95"]
    assert min(psnr) <= low < np.mean(psnr) < high <= max(psnr)


def test_a_patch_restored_exactly_counts_as_60_decibels() -> None:
    """A blank patch has no error at all, and its PSNR is not infinite."""
    blank = np.full((2, 16, 16, 3), 240, np.uint8)
    assert restoration_quality(SuperResolution(), blank, scale=4)["lanczos"]["psnr"]["value"] == pytest.approx(60)
