"""Scans in bfloat16 and from exported files: the same calls, and the same bytes however they came about."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import tifffile

from tests.situations.situation import situation
from tumortrace import export
from tumortrace.app.processes import load as served
from tumortrace.cli.main import run as command
from tumortrace.models import precision
from tumortrace.records.scans import ScanRecord
from tumortrace.records.tables import TILES
from tumortrace.slides.scan import scan


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine on which bfloat16 is quicker, slides large enough, and no pictures."""
    monkeypatch.setattr(precision, "fast_bfloat16", lambda _: True)
    monkeypatch.setattr(precision, "times_as_fast", lambda _: 2.3)
    monkeypatch.setattr(precision, "FEWEST", 10)
    monkeypatch.setattr(precision, "_FLIPS", 1.0)  # a network that has hardly learnt calls by a hair's breadth
    monkeypatch.setattr("tumortrace.slides.scan.draw_heatmap", lambda target, *_, **__: target.write_bytes(b"picture"))
    monkeypatch.setattr("tumortrace.reports.report.renew_report", lambda *_: None)


@pytest.fixture(scope="module")
def slide(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Tissue of 700 x 700 px."""
    file = tmp_path_factory.mktemp("slide") / "a.tif"
    noise = np.random.default_rng(0).integers(-30, 30, (70, 70, 3)).repeat(10, 0).repeat(10, 1)
    pixels = (np.array([180, 90, 160]) + noise).astype(np.uint8)
    tifffile.imwrite(file, pixels, tile=(128, 128), photometric="rgb", metadata=None)
    return file


RESOLUTIONS = {"resolution": 1.0, "patch_resolution": 1.0}
TYPED = ["--resolution", "1", "--patch-resolution", "1"]


@situation(
    "slides",
    there="a scan in bfloat16 that was killed, on a machine that is busier now",
    typed="tumortrace scan RUN a.tif",
    right="goes on in bfloat16, to the bytes of one that was not killed; kept when asked again",
)
def test_a_scan_keeps_its_precision(
    small_run: Path, slide: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(done: int, total: int) -> None:
        if done:
            raise KeyboardInterrupt

    asked: dict[str, Any] = {"run": small_run, "slide": slide, "device": "cpu", "batch_size": 16, **RESOLUTIONS}
    whole = scan(out=tmp_path / "whole", **asked)
    assert whole.record.precision.taken == "bf16"
    assert whole.record.precision.checked == whole.record.tiles
    assert whole.record.precision.line in whole.record.notes
    with pytest.raises(KeyboardInterrupt):
        scan(out=tmp_path / "killed", progress=stop, **asked)
    monkeypatch.setattr(precision, "times_as_fast", lambda _: 0.9)
    killed = scan(out=tmp_path / "killed", **asked)
    assert killed.record.precision == whole.record.precision
    assert killed.record.request == whole.record.request
    assert TILES.file(killed.folder).read_bytes() == TILES.file(whole.folder).read_bytes()
    assert scan(out=tmp_path / "whole", **asked).kept
    exact = scan(out=tmp_path / "whole", precision="fp32", **asked)
    assert not exact.kept
    assert exact.record.precision.taken == "fp32"
    apart = np.abs(exact.tiles["probability"] - whole.tiles["probability"]).max()
    assert 0 < apart <= whole.record.precision.apart + 1e-12  # all tiles were in the sample
    assert scan(out=tmp_path / "new", **asked).record.precision.why == "bfloat16 is 0.9 times as fast"


@pytest.fixture(scope="module")
def exported(small_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = Path(shutil.copytree(small_run, tmp_path_factory.mktemp("exported") / "run"))
    export(run)
    return run


@situation(
    "slides",
    there="a run that was exported, or a bundle that holds `model.onnx` alone",
    typed="tumortrace scan RUN/model/model.onnx a.tif",
    right="the exported file computes, to 1e-5 of torch; `--dense` and `--precision bf16` are refused",
)
def test_an_exported_file_scans(
    exported: Path, slide: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bundle = Path(shutil.copytree(exported / "model", tmp_path / "bundle"))
    (bundle / "weights.safetensors").unlink()
    tables, file = {}, str(exported / "model" / "model.onnx")
    for name, model in (("torch", str(exported)), ("file", file), ("bundle", str(bundle))):
        typed = ["scan", model, str(slide), "-o", str(tmp_path / name), *TYPED, "--precision", "auto"]
        assert command(typed if name != "torch" else [*typed[:-1], "fp32"]) == 0
        folder = next((tmp_path / name).rglob(ScanRecord.FILE)).parent
        assert ScanRecord.read(folder).precision.taken == ("fp32" if name == "torch" else "onnx")
        tables[name] = TILES.read(folder)
    pd.testing.assert_frame_equal(tables["file"], tables["torch"], rtol=0, atol=2e-5)
    pd.testing.assert_frame_equal(tables["bundle"], tables["file"])
    assert not tables["file"]["probability"].equals(tables["torch"]["probability"])
    assert [served(Path(one), "cpu", None).runtime is None for one in (exported, file, bundle)] == [True, False, False]
    capsys.readouterr()
    refused = {
        "--dense --overlap 0.5": "--dense with an exported file",
        "--precision bf16": "the exported file computes",
    }
    for options, told in refused.items():
        assert command(["scan", file, str(slide), "-o", str(tmp_path / "no"), *TYPED, *options.split()]) == 1
        assert told in capsys.readouterr().err
    assert command(["scan", str(exported), str(slide), "-o", str(tmp_path / "no"), *TYPED, "--backend", "int8"]) == 1
    assert "not exported yet" in capsys.readouterr().err
