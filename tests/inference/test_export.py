"""The verb `export`, and models that compute with what it wrote."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from tumortrace import export, load_model
from tumortrace.errors import ModelError
from tumortrace.inference import export as verb
from tumortrace.models.runtimes import Outputs, open_runtime


@pytest.fixture(scope="module")
def exported(small_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the small run with its export."""
    run = Path(shutil.copytree(small_run, tmp_path_factory.mktemp("exported") / "run"))
    export(run)
    return run


@pytest.fixture
def bundle(exported: Path, tmp_path: Path) -> Path:
    """A copy of its bundle, to be damaged."""
    return Path(shutil.copytree(exported / "model", tmp_path / "model"))


@pytest.mark.parametrize("backend", ["onnx", "openvino", "auto"])
def test_every_backend_says_the_same(exported: Path, backend: str) -> None:
    """Probabilities to 1e-5 and the same decisions, on noise that training has not seen; and torch did not compute."""
    images = np.random.default_rng(1).integers(0, 256, (7, 96, 96, 3), dtype=np.uint8)
    torch, other = load_model(exported, device="cpu"), load_model(exported, device="cpu", backend=backend)
    assert torch.runtime is None
    assert other.runtime is not None
    assert other.runtime.name == ("onnx" if backend == "auto" else backend)
    one, two = torch.assess(images), other.assess(images)
    np.testing.assert_allclose(two.probability, one.probability, atol=1e-5)
    assert two.decision.tolist() == one.decision.tolist()
    assert one.ood_score is not None
    np.testing.assert_allclose(two.ood_score, one.ood_score, rtol=1e-4)
    assert not np.array_equal(two.logit, one.logit)


def test_the_record_says_how_far_from_torch(exported: Path) -> None:
    """On images of the run's own data, with both runtimes."""
    record = json.loads((exported / "model" / "model.onnx.json").read_text())
    assert record["checked"]["images"] == 32
    assert record["checked"]["of"] == json.loads((exported / "run.json").read_text())["data"]["name"]
    for found in record["checked"]["largest_difference"].values():
        assert 0 <= found["probability"] <= 1e-5
    assert record["weights_sha256"] == load_model(exported).info.weights_sha256


def test_a_file_that_says_something_else_is_not_written(
    small_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Compared before it appears: one wrong answer refuses it, in one line."""

    class Wrong(verb.RUNTIMES["onnx"]):  # type: ignore[name-defined, misc]
        def __call__(self, images: np.ndarray) -> Outputs:
            said = super().__call__(images)
            return said._replace(logit=said.logit + np.eye(len(images))[3] * 1e-2)

    monkeypatch.setitem(verb.RUNTIMES, "onnx", Wrong)
    monkeypatch.delitem(verb.RUNTIMES, "openvino")
    with pytest.raises(ModelError, match="onnx differs from torch"):
        export(small_run, out=tmp_path / "model.onnx")
    assert not list(tmp_path.iterdir())


def test_a_bundle_by_itself_has_its_file_in_it(bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever it is called: there it is found."""
    alone = bundle.rename(tmp_path / "mine")
    content = (alone / "model.onnx").read_bytes()
    for file in alone.glob("model.onnx*"):
        file.unlink()
    monkeypatch.setattr(verb, "export_graph", lambda info, network, file: file.write_bytes(content))
    assert export(alone) == alone / "model.onnx"
    assert load_model(alone, device="cpu", backend="auto").runtime is not None


def test_what_is_not_of_these_weights_is_refused(bundle: Path, small_run: Path) -> None:
    """A damaged file, another's file, none at all, another device; `auto` falls back to torch but for the damaged."""
    file, record = bundle / "model.onnx", bundle / "model.onnx.json"
    info = load_model(bundle).info
    damaged = bytearray(file.read_bytes())
    damaged[len(damaged) // 2] ^= 1
    file.write_bytes(damaged)
    for backend in ("onnx", "auto"):
        with pytest.raises(ModelError, match="SHA-256"):
            load_model(bundle, device="cpu", backend=backend)
    record.write_text(json.dumps(json.loads(record.read_text()) | {"weights_sha256": "0" * 64}))
    with pytest.raises(ModelError, match="other weights"):
        load_model(bundle, device="cpu", backend="openvino")
    assert load_model(bundle, device="cpu", backend="auto").runtime is None
    with pytest.raises(ModelError, match="not exported yet"):
        load_model(small_run, device="cpu", backend="onnx")
    assert load_model(small_run, backend="auto").runtime is None
    with pytest.raises(ModelError, match="backend 'tensorrt'"):
        open_runtime(bundle, info, "tensorrt", "cpu")  # type: ignore[arg-type]
