"""The audit report says what audit.json says."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tumortrace.errors import RunError
from tumortrace.reports.audit_report import write_audit_report


def audit(folder: Path, *findings: tuple[str, str]) -> str:
    listed = [
        {"name": name, "verdict": verdict, "count": 1, "message": "<i>m</i>", "remedy": "r", "examples": ["<u>"]}
        for name, verdict in findings
    ]
    record = {"cohort": "<b>mine</b>", "images": 1200, "classes": {"no": 900, "yes": 300}, "findings": listed}
    (folder / "audit.json").write_text(json.dumps(record))
    return write_audit_report(folder).read_text("utf-8")


def test_worst_findings_come_first(tmp_path: Path) -> None:
    """Errors stand before warnings before notes, and the verdict counts them."""
    page = audit(tmp_path, ("third", "note"), ("first", "error"), ("second", "warning"), ("also first", "error"))
    assert "need repair before training: 2 errors, 1 warning, 1 note." in page
    assert page.index(">first<") < page.index(">also first<") < page.index(">second<") < page.index(">third<")


def test_class_shares_and_banner(tmp_path: Path) -> None:
    """Images and classes are counted, nothing is taken for markup, and the banner is there."""
    page = audit(tmp_path, ("a", "warning"))
    assert all(told in page for told in ("1,200", "75.0 %", "25.0 %", "with care: 1 warning", "Not a medical device"))
    assert "<b>mine" not in page
    assert "<i>" not in page
    assert "<u>" not in page


def test_missing_audit_is_refused(tmp_path: Path) -> None:
    """A folder without audit.json is refused, and no page appears."""
    with pytest.raises(RunError, match=r"no audit\.json"):
        write_audit_report(tmp_path)
    assert list(tmp_path.iterdir()) == []
