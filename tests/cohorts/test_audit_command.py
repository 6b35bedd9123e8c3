"""The verb `check`: its files, its lines and its exit code."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from tests.slides.bags import write_bags
from tumortrace.cli.main import run
from tumortrace.records.data import AuditRecord


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Two class folders of ten pictures, with the patient in the name."""
    rng = np.random.default_rng(0)
    for name in ("benign", "malignant"):
        (tmp_path / "data" / name).mkdir(parents=True)
        for number in range(10):
            pixels = rng.normal((200, 120, 180), 25, (16, 16, 3)).clip(0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(tmp_path / "data" / name / f"p{number}_{name}.png")
    return tmp_path / "data"


def check(data: Path, out: Path, *options: str) -> int:
    return run(["check", str(data), "-o", str(out), "--group-from-name", r"^(p\d+)_", *options])


def test_clean_data_pass(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Exit code 0, strict or not, three files, and a line that says so."""
    assert check(data, tmp_path / "out", "--strict") == 0
    assert {file.name for file in (tmp_path / "out").iterdir()} == {"audit.json", "audit.html", "quarantine.csv"}
    assert json.loads((tmp_path / "out" / "audit.json").read_text())["findings"] == []
    printed = capsys.readouterr()
    assert printed.out == ""
    assert "check: 20 images looked at; nothing found" in printed.err


def test_warnings_fail_only_when_strict(data: Path, tmp_path: Path) -> None:
    """One odd size."""
    Image.open(data / "benign" / "p0_benign.png").crop((0, 0, 16, 9)).save(data / "benign" / "p0_benign.png")
    assert check(data, tmp_path / "out") == 0
    assert check(data, tmp_path / "out", "--strict") == 1


def test_errors_fail_and_are_listed(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """One line per finding with an example, one on what to do; the image stands in quarantine with its reason."""
    (data / "benign" / "p3_benign.png").write_bytes(b"no image")
    assert check(data, tmp_path / "out") == 1
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("error    unreadable: 1 of 20 images is not readable (p3_benign)")
    assert lines[1].strip().startswith("-> restore")
    quarantine = pd.read_csv(tmp_path / "out" / "quarantine.csv")
    assert quarantine[["id", "finding"]].to_numpy().tolist() == [["p3_benign", "unreadable"]]
    assert "not an image" in quarantine["reason"][0]


def test_a_random_split_of_patients_is_an_error(data: Path, tmp_path: Path) -> None:
    """As is asked for with --split random."""
    assert check(data, tmp_path / "out", "--split", "random") == 1
    names = [each["name"] for each in json.loads((tmp_path / "out" / "audit.json").read_text())["findings"]]
    assert names == ["groups-across-splits"]


def test_a_table_that_training_refuses_is_audited_and_fails(data: Path, tmp_path: Path) -> None:
    """Three classes and a contradicting row are findings with their lines, not one refusal."""
    rows = [f"{file.parent.name}/{file.name},{file.parent.name}" for file in sorted(data.glob("*/*.png"))]
    rows += ["benign/p0_benign.png,malignant", "benign/none.png,unsure"]
    (data / "labels.csv").write_text("file,label\n" + "\n".join(rows) + "\n")
    assert run(["check", str(data / "labels.csv"), "-o", str(tmp_path / "out")]) == 1
    found = {each["name"]: each for each in json.loads((tmp_path / "out" / "audit.json").read_text())["findings"]}
    assert {"files-missing", "labels-not-binary", "ids-conflict"} <= set(found)
    assert found["labels-not-binary"]["examples"][0]["says"] == "'unsure', line 23"


def test_what_is_no_data_set_is_refused_in_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """As every verb does."""
    assert run(["check", str(tmp_path / "none")]) == 1
    assert capsys.readouterr().err.count("\n") == 1


def test_an_audit_of_features_speaks_of_slides(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """On the screen, in the record and on the page."""
    data = write_bags(tmp_path / "bags", patients=6, slides=1, tiles=3, width=2)
    table = pd.read_csv(data / "slides.csv")
    table.assign(label=table["label"].where(table.index > 0)).to_csv(data / "slides.csv", index=False)
    run(["check", str(data), "-o", str(tmp_path / "out")])
    told = capsys.readouterr()
    assert "1 of 6 slides carry no label" in " ".join(told.out.split())
    assert AuditRecord.read(tmp_path / "out").unit == "slide"
    page = (tmp_path / "out" / "audit.html").read_text("utf-8")
    assert "<span>Slides</span><strong>6</strong>" in page
    assert not re.search(r"\b[Ii]mages?\b", re.sub(r"<style>.*?</style>|<[^>]*>", " ", page, flags=re.DOTALL))
