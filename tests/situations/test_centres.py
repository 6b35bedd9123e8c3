"""Tissue of several hospitals: whether the features of a probe tell the one or the other."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from tests.situations.situation import situation
from tumortrace.cli.main import run as command
from tumortrace.evaluation.centres import neighbourhoods, robustness
from tumortrace.records.centres import CentreRecord
from tumortrace.records.tables import CENTRES
from tumortrace.reports import report
from tumortrace.reports.sections.centres import draw_margins

BODY = ["--set", "model.arguments.body=resnet18", "--set", "preprocessing.size=32", "--weights", "random"]
FAST = [*BODY, "--set", "probe={heads: [knn], neighbours: [5], shots: [1], repeats: 1}"]


def of_hospitals(folder: Path, column: str = "Hospital") -> Path:
    """A table of 240 images of 24 patients of three hospitals, each with its own stain; tumour is coarser."""
    folder.mkdir()
    random = np.random.default_rng(0)
    rows = []
    for number in range(240):
        patient, tumour = number // 10, number % 2
        hospital = patient % 3
        grain = random.normal(0, 1, (8, 8, 3)).repeat(4, 0).repeat(4, 1) * tumour
        pixels = 130 + 11 * grain + random.normal(0, 22, (32, 32, 3))
        pixels[:, :, hospital] += 30
        Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(folder / f"{number:03}.png")
        rows.append((f"{number:03}.png", tumour, f"p{patient}", f"h{hospital}" if number else ""))
    pd.DataFrame(rows, columns=["file", "label", "patient", column]).to_csv(folder / "labels.csv", index=False)
    return folder / "labels.csv"


@pytest.fixture(scope="module")
def probed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run of a probe, by its command; its report draws one figure alone."""
    folder = tmp_path_factory.mktemp("centres")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(report, "DRAWINGS", {"centre_margins": draw_margins})
        data, out = of_hospitals(folder / "data"), folder / "runs"
        assert command(["train", str(data), "--recipe", "probe", *FAST, "--out", str(out)]) == 0
    (run,) = out.iterdir()
    return run


@situation(
    "runs",
    there="a table with a column Hospital",
    typed="tumortrace train labels.csv --recipe probe",
    right="robustness index and margin: do the body's features tell tissue or hospital",
)
def test_a_probe_says_whether_its_features_tell_the_hospital(probed: Path) -> None:
    """Of training and validation images alone; stains are nearer to each other than tissue is."""
    measured, near = CentreRecord.read(probed), CENTRES.read(probed)
    assert measured.column.lower() == "hospital"
    assert set(measured.centres) == {"h0", "h1", "h2"}
    assert measured.index.value < measured.chance
    assert measured.margin.value < 0
    splits = pd.read_csv(probed / "splits.csv", dtype={"id": str}).set_index("id")["split"]
    assert set(splits[near["id"]]) == {"train", "validation"}
    assert (
        len(near) + sum("1 images without" in note for note in measured.notes)
        == splits.isin(["train", "validation"]).sum()
    )
    page = (probed / "report.html").read_text()
    assert 'id="centres-table"' in page
    assert "Images by how much nearer" in page
    assert "3 of them): robustness index" in (probed / "model_card.md").read_text()


@situation(
    "runs",
    there="two bodies probed on images of several hospitals",
    typed="tumortrace compare RUN OTHER",
    right="both bodies' robustness beside their AUROC, with paired differences",
)
def test_bodies_side_by_side_across_hospitals(probed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The other run's features are put there: tissue alone. Of other images nothing is set side by side."""
    monkeypatch.setattr("tumortrace.reports.compare.FIGURES", {})
    other = tmp_path / "other"
    shutil.copytree(probed, other)
    near = CENTRES.read(other)
    tissue = np.random.default_rng(0).normal(size=(len(near), 4)) + 9 * near[["kind"]].to_numpy()
    better = neighbourhoods(tissue, near["kind"].to_numpy(), near["centre"].to_numpy(), near["group"].to_numpy())
    CENTRES.write(other, better.assign(id=near["id"]))
    robustness(better, CentreRecord.read(probed).column, 11).write(other)
    out = tmp_path / "compared"
    words = ["compare", str(probed), str(other), "-o", str(out), "--replicates", "20"]
    assert command(words) == 0
    found = json.loads((out / "compare.json").read_text())
    one, two = (run["centres"] for run in found["runs"])
    assert one["neighbours"] == two["neighbours"]
    assert two["margin"]["value"] > 0 > one["margin"]["value"]
    gained = found["differences"][0]["centres"]["index"]
    assert gained["value"] == pytest.approx(two["index"]["value"] - one["index"]["value"])
    assert gained["ci95"][0] > 0
    page = (out / "compare.html").read_text()
    assert 'data-measure="margin"' in page
    assert 'data-metric="centres/index"' in page
    CENTRES.write(other, better.assign(id=near["id"]).iloc[1:])
    assert command(words) == 0
    found = json.loads((out / "compare.json").read_text())
    assert any("on other images" in note for note in found["notes"])
    assert not any("centres" in run for run in found["runs"])


@situation(
    "runs",
    there="a table whose hospitals stand under a name of its own",
    typed="tumortrace train labels.csv --recipe probe --set probe.centre=klinik",
    right="a column that is not there is refused by name, with those that are",
)
def test_a_column_that_is_not_there(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = of_hospitals(tmp_path / "data", "origin")
    words = ["train", str(data), "--recipe", "probe", *BODY, "--set", "probe.centre=klinik", "--out", str(tmp_path)]
    assert command(words) == 1
    line = capsys.readouterr().err.strip().splitlines()[-1]
    assert "no column 'klinik'" in line
    assert "origin" in line
    assert "probe.centre" in line
