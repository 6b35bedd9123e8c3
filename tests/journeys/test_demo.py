"""The demo from its first line to its last, with all figures of its report."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tumortrace.cli.main import run

pytestmark = pytest.mark.painted


def test_demo(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """It goes through every step, here on fewer patches, and ends with figures, intervals and a report."""
    monkeypatch.setattr("tumortrace.cli.demo.QUICK_PATCHES", 400)
    monkeypatch.setattr("tumortrace.cli.demo.QUICK_EPOCHS", 1)
    assert run(["demo", "--quick", "-o", str(tmp_path / "demo")]) == 0
    shown = capsys.readouterr()
    assert re.search(r"auroc +0\.\d{3} +\[0\.\d{3}, [01]\.\d{3}\]", shown.out)
    for step in ("synth:", "check:", "train:", "test:", "explain:", "scan:", "open "):
        assert step in shown.err, step
    assert "could not be" not in shown.err
    report = Path(shown.err.rsplit("open ", 1)[1].strip())
    html = report.read_text(encoding="utf-8")
    assert "Research use only" in html
    assert not re.search(r"(src|href)=[\"']https?:", html)
