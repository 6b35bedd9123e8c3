"""Predictions from a model that was exported: the same as from the run, without torch."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import roc_auc_score

from tests.situations.situation import situation
from tumortrace import export, load_model
from tumortrace.cli.main import run as command
from tumortrace.inference import quantise
from tumortrace.records.data import ExportRecord
from tumortrace.records.tables import SPLITS

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


@pytest.fixture(scope="module")
def calibrated(exported: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy whose calibration split has several slides."""
    run = Path(shutil.copytree(exported, tmp_path_factory.mktemp("calibrated") / "run"))
    splits = SPLITS.read(run)
    SPLITS.write(run, splits.assign(split=splits["split"].replace("train", "calibration")))
    return run


@situation(
    "runs",
    there="a run whose AUROC changes by more than .002 in 8 bits",
    typed="tumortrace export RUN --int8",
    right="refused with the change, its interval and the number of images; nothing is written",
)
def test_int8_that_changes_the_auroc_is_refused(
    calibrated: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(quantise, "TOLERANCE", -1.0)  # whatever the change, which differs by processor
    before = sorted((calibrated / "model").iterdir())
    assert command(["export", str(calibrated), "--int8"]) == 1
    told = capsys.readouterr().err.splitlines()[-1]
    figure = r"int8 changes the AUROC by [+-]0\.\d{4} \[[+-]0\.\d{4}, [+-]0\.\d{4}\] on \d+ images of the cal"
    assert re.search(figure, told), told
    assert sorted((calibrated / "model").iterdir()) == before


@situation(
    "runs",
    there="a run whose calibration split has one slide",
    typed="tumortrace export RUN --int8",
    right="refused: what gives the ranges cannot judge them",
)
def test_int8_is_not_judged_by_what_gave_its_ranges(exported: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert command(["export", str(exported), "--int8"]) == 1
    assert "too few slides or patients in the calibration split" in capsys.readouterr().err


@situation(
    "runs",
    there="a run whose AUROC stays in 8 bits",
    typed="tumortrace export RUN --int8; tumortrace predict RUN IMAGES --backend int8",
    right="another file beside the exact one, judged on slides that gave no ranges",
)
def test_int8_is_judged_on_other_slides(
    calibrated: Path,
    pictures: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    run = Path(shutil.copytree(calibrated, tmp_path / "run"))
    monkeypatch.setattr(quantise, "TOLERANCE", 0.1)
    assert command(["export", str(run), "--int8"]) == 0
    made = ExportRecord.read_file(run / "model" / "model.int8.onnx.json").quantised
    assert made is not None
    exact, int8 = (load_model(run, device="cpu", backend=backend) for backend in ("onnx", "int8"))
    parts = quantise.calibration_parts(exact)
    assert not set(parts.table["group"][parts.ranges]) & set(parts.table["group"][parts.judged])
    assert (made.ranges, made.judged) == (len(parts.ranges), len(parts.judged))
    assert made.time is not None
    assert f"It takes {made.time:g} times as long as the exact file" in capsys.readouterr().err
    assert SPLITS.read(run).set_index("id")["split"].loc[parts.table["id"]].eq("calibration").all()
    label, images = parts.table["label"][parts.judged].astype(int), parts.images[parts.judged]
    first, second = (roc_auc_score(label, model.logits(images)) for model in (exact, int8))
    assert made.auroc_change.value == pytest.approx(second - first, abs=1e-9)
    tables = []
    for backend in ("int8", "onnx"):
        out = tmp_path / f"{backend}.csv"
        assert command(["predict", str(run), str(pictures), "-o", str(out), "--backend", backend]) == 0
        tables.append(pd.read_csv(out)["probability"])
    assert 1e-5 < (tables[0] - tables[1]).abs().max() < 0.02


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
