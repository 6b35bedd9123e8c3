"""Predictions from a model that was exported: the same as from the run, without torch."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from tests.situations.situation import situation
from tumortrace import export
from tumortrace.cli.main import run as command

PROGRAM = """
import sys
from tumortrace.cli.main import run
code = run(["predict", *sys.argv[1:]])
heavy = {"torch", "sklearn", "matplotlib", "scipy", "skimage", "joblib", "rich", "timm", "torchvision"}
print(code, sorted(heavy & set(sys.modules)), file=sys.stderr)
"""


@pytest.fixture(scope="module")
def exported(small_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the small run with its export."""
    run = Path(shutil.copytree(small_run, tmp_path_factory.mktemp("exported") / "run"))
    export(run)
    return run


@pytest.fixture(scope="module")
def pictures(tissue: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six patches in a folder."""
    folder = tmp_path_factory.mktemp("pictures")
    for file in sorted((tissue / "patches").iterdir())[:6]:
        shutil.copy(file, folder)
    return folder


@situation(
    "runs",
    there="a run that was exported, and one image",
    typed="tumortrace predict RUN IMAGE",
    right="every column as from torch, to 1e-5, and torch is not loaded",
)
@pytest.mark.parametrize("named", ["run", "file"])
def test_one_image_from_an_exported_run_without_torch(
    exported: Path, pictures: Path, tmp_path: Path, named: str
) -> None:
    image, model = min(pictures.iterdir()), exported / "model" / "model.onnx" if named == "file" else exported
    out, other = tmp_path / "exported.csv", tmp_path / "torch.csv"
    typed = [sys.executable, "-c", PROGRAM, str(model), str(image), "-o", str(out)]
    done = subprocess.run(typed, capture_output=True, text=True, check=True)
    assert done.stderr.splitlines()[-1] == "0 []"
    assert "note: onnx computes, from the exported file" in done.stderr
    assert command(["predict", str(exported), str(image), "-o", str(other), "--backend", "torch"]) == 0
    same(pd.read_csv(out), pd.read_csv(other))
    assert not pd.read_csv(out)["probability"].equals(pd.read_csv(other)["probability"])  # each computed by itself


@situation(
    "runs",
    there="a bundle with `model.onnx` and without the network's weights",
    typed="tumortrace predict BUNDLE IMAGES --backend openvino",
    right="predictions; what needs the network says that its weights are missing",
)
def test_an_exported_bundle_needs_no_weights(
    exported: Path, pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bundle = Path(shutil.copytree(exported / "model", tmp_path / "model"))
    (bundle / "weights.safetensors").unlink()
    tables = {}
    for backend in ("onnx", "openvino"):
        out = tmp_path / f"{backend}.csv"
        assert command(["predict", str(bundle), str(pictures), "-o", str(out), "--backend", backend]) == 0
        tables[backend] = pd.read_csv(out)
    same(tables["onnx"], tables["openvino"])
    capsys.readouterr()
    assert command(["predict", str(bundle), str(pictures), "-o", str(tmp_path / "no.csv"), "--backend", "torch"]) == 1
    told = capsys.readouterr().err
    assert "weights.safetensors: SHA-256 is no file" in told


def same(one: pd.DataFrame, two: pd.DataFrame) -> None:
    """The same columns and calls, and numbers to 1e-5."""
    assert (
        list(one)
        == list(two)
        == ["id", "label", "probability", "prediction", "decision", "ood_score", "in_distribution"]
    )
    numbers = ["probability", "ood_score"]
    np.testing.assert_allclose(one[numbers], two[numbers], atol=1e-5)
    pd.testing.assert_frame_equal(one.drop(columns=numbers), two.drop(columns=numbers))
