"""Weights to start from: files fit or are refused, origins are recorded, nothing is run from a file."""

from __future__ import annotations

import hashlib
import os
import pickle
from pathlib import Path

import pytest
import timm
import torch
import torchvision
from safetensors.torch import save_file
from torch import nn

from tumortrace.errors import ModelError
from tumortrace.models import hub
from tumortrace.models.architecture import build_network
from tumortrace.models.weights import load_weights, read_weights


def resnet() -> nn.Module:
    return build_network("backbone", (32, 32), {"body": "resnet18"})


@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
@pytest.mark.parametrize("prefix", ["", "module.", "backbone."])
def test_a_file_fills_the_body(tmp_path: Path, suffix: str, prefix: str) -> None:
    """Under the usual prefixes, with a classifier that is left over; the record has the file's hash."""
    published = timm.create_model("resnet18", num_classes=7).state_dict()
    tensors = {prefix + name: value.contiguous() for name, value in published.items()}
    path = tmp_path / f"weights{suffix}"
    if suffix == ".pth":
        torch.save({"state_dict": tensors, "epoch": 3}, path)
    else:
        save_file(tensors, path)
    network = resnet()
    record = load_weights(network, str(path))
    assert record == {
        "origin": f"file {path.name}",
        "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
        "unused": 2,
    }
    for name, value in network.get_submodule("body").state_dict().items():
        assert torch.equal(value, published[name]), name


def test_torchvisions_names_fit(tmp_path: Path) -> None:
    """A state dict of torchvision's MobileNetV2 fills the body, which then computes the same features."""
    published = torchvision.models.mobilenet_v2(weights=None).eval()
    save_file(published.state_dict(), tmp_path / "m.safetensors")
    network = build_network("backbone", (64, 64), {"body": "torchvision/mobilenet_v2"}).eval()
    assert load_weights(network, str(tmp_path / "m.safetensors"))["unused"] == 2
    images = torch.rand(2, 3, 64, 64)
    with torch.no_grad():
        expected = published.features(images).mean((2, 3))
        torch.testing.assert_close(network.features(images), expected)  # type: ignore[operator]


def test_a_file_of_another_network_is_refused(tmp_path: Path) -> None:
    """It says how much is missing, what first, and its shape; the network stays as it was."""
    save_file(timm.create_model("resnet34", num_classes=0).state_dict(), tmp_path / "34.safetensors")
    save_file({"conv1.weight": torch.zeros(2, 2)}, tmp_path / "odd.safetensors")
    network = build_network("backbone", (32, 32), {"body": "resnet50"})
    before = {name: value.clone() for name, value in network.state_dict().items()}
    for name in ("34", "odd"):
        with pytest.raises(ModelError, match=r"tensors are missing or have another shape, first"):
            load_weights(network, str(tmp_path / f"{name}.safetensors"))
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())


class Evil:
    """Unpickled freely, it would make a file."""

    def __init__(self, path: Path) -> None:
        self.path = str(path)

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, (self.path,)


def test_no_code_of_a_pth_file_runs(tmp_path: Path) -> None:
    """A pickle that would make a folder is refused in one line that names the call, and the folder is not there."""
    torch.save({"state_dict": Evil(tmp_path / "made")}, tmp_path / "evil.pth")
    (tmp_path / "bare.pt").write_bytes(pickle.dumps(Evil(tmp_path / "made"), protocol=0))
    for name in ("evil.pth", "bare.pt"):
        with pytest.raises(ModelError, match=r"it names posix\.mkdir, which is not run") as refused:
            read_weights(tmp_path / name)
        assert "\n" not in str(refused.value)
    assert not (tmp_path / "made").exists()


def test_a_pickled_network_is_refused_in_our_words(tmp_path: Path) -> None:
    """The line names its class and says what to save instead; it has no colours and no advice of torch."""
    torch.save(nn.Linear(2, 2), tmp_path / "whole.pth")
    with pytest.raises(ModelError, match=r"names torch\.nn\.modules\.linear\.Linear.*state_dict alone") as refused:
        read_weights(tmp_path / "whole.pth")
    assert "\x1b" not in str(refused.value)
    assert "PyTorch" not in str(refused.value)


def test_values_that_are_no_numbers_are_refused(tmp_path: Path) -> None:
    """A flawed file would otherwise show as a loss that is no number, epochs later."""
    tensors = timm.create_model("resnet18", num_classes=0).state_dict()
    tensors["layer1.0.conv1.weight"][0, 0, 0, 0] = float("nan")
    save_file(tensors, tmp_path / "nan.safetensors")
    with pytest.raises(ModelError, match=r"no numbers in 1 of 100 tensors, first 'layer1\.0\.conv1\.weight'"):
        load_weights(resnet(), str(tmp_path / "nan.safetensors"))


@pytest.mark.parametrize("content", [b"", b"\x00" * 40, b"PK\x03\x04 no", b"{}"])
@pytest.mark.parametrize("name", ["a.pth", "a.safetensors"])
def test_broken_files_are_refused(tmp_path: Path, name: str, content: bytes) -> None:
    """Empty, zeros, half a zip, JSON: one line each."""
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ModelError) as refused:
        read_weights(tmp_path / name)
    assert name in str(refused.value)
    assert "\n" not in str(refused.value)


def test_missing_and_strange_files_are_refused(tmp_path: Path) -> None:
    """No such file; an ending that says nothing."""
    with pytest.raises(ModelError, match="no such file"):
        load_weights(resnet(), str(tmp_path / "none.pth"))
    (tmp_path / "w.h5").write_bytes(b"x")
    with pytest.raises(ModelError, match=r"\.h5 file name ending"):
        load_weights(resnet(), str(tmp_path / "w.h5"))


def test_without_a_network_it_says_which_file_to_fetch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One line with the address and the place; a file put there is taken."""

    def unreachable(request: object, timeout: float) -> None:
        raise OSError("no route")

    monkeypatch.setattr(hub.urllib.request, "urlopen", unreachable)
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "hub"))
    monkeypatch.setenv("TUMORTRACE_WEIGHTS", str(tmp_path))
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    with pytest.raises(ModelError) as refused:
        load_weights(resnet(), "imagenet")
    line = str(refused.value)
    assert "/timm/resnet18." in line
    assert str(tmp_path / "resnet18.safetensors") in line
    assert "\n" not in line
    save_file(timm.create_model("resnet18", num_classes=0).state_dict(), tmp_path / "resnet18.safetensors")
    assert load_weights(resnet(), "imagenet")["origin"] == "published weights of resnet18, resnet18.safetensors"
    with pytest.raises(ModelError, match=r"config\.json"):
        build_network("backbone", (32, 32), {"body": "hf-hub:owner/name"})


def test_imagenet_weights_need_a_body() -> None:
    """A plain network has none."""
    with pytest.raises(ModelError, match="without a published body"):
        load_weights(build_network("plain-cnn", (32, 32), {}), "imagenet")
