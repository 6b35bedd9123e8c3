"""The audit report says what audit.json says, and shows the images that it names."""

from __future__ import annotations

import base64
import io
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tumortrace.errors import RunError
from tumortrace.reports.audit import write_audit_report


def audit(folder: Path, *findings: tuple[str, str], examples: list[Any] | None = None) -> str:
    shown = ["<u>"] if examples is None else examples
    listed = [
        {"name": name, "verdict": verdict, "count": 1, "message": "<i>m</i>", "remedy": "r", "examples": shown}
        for name, verdict in findings
    ]
    record = {"cohort": "<b>mine</b>", "images": 1200, "classes": {"no": 900, "yes": 300}, "findings": listed}
    (folder / "audit.json").write_text(json.dumps(record))
    return write_audit_report(folder).read_text("utf-8")


def test_worst_findings_come_first(tmp_path: Path) -> None:
    """Errors stand before warnings before notes, and the verdict counts them."""
    page = audit(tmp_path, ("third", "note"), ("first", "error"), ("second", "warning"), ("also-first", "error"))
    assert "need repair before training: 2 errors, 1 warning, 1 note." in page
    assert page.index(">first<") < page.index(">also-first<") < page.index(">second<") < page.index(">third<")


def test_the_glance_leads_to_each_finding(tmp_path: Path) -> None:
    """One line per finding at the top, in words, linked to its panel."""
    page = audit(tmp_path, ("odd-size", "warning"), ("copies-conflict", "error"))
    links = re.findall(r'href="#(finding-\d)"><b>(\w+)</b>([\w ]+)<', page)
    assert links == [("finding-1", "error", "Copies conflict"), ("finding-2", "warning", "Odd size")]
    assert all(f'id="finding-{number}"' in page for number in (1, 2))


def test_class_shares_and_banner(tmp_path: Path) -> None:
    """Images and classes are counted, nothing is taken for markup, and the banner is there."""
    page = audit(tmp_path, ("a", "warning"))
    assert all(told in page for told in ("1,200", "75.0 %", "25.0 %", "with care: 1 warning", "Not a medical device"))
    assert "<b>mine" not in page
    assert "<i>" not in page
    assert "<u>" not in page


def test_examples_are_shown_and_copies_side_by_side(tmp_path: Path) -> None:
    """Pictures are embedded; those of one set share a frame; what cannot be shown is named with its reason."""
    rng = np.random.default_rng(0)
    for name in "abc":
        Image.fromarray(rng.integers(0, 255, (300, 150, 3), np.uint8)).save(tmp_path / f"{name}.png")
    examples = [
        {"id": "a", "path": str(tmp_path / "a.png"), "set": 1, "says": "train"},
        {"id": "b", "path": str(tmp_path / "b.png"), "set": 1, "says": "test"},
        {"id": "c", "path": str(tmp_path / "c.png")},
        {"id": "lost", "path": str(tmp_path / "none.png"), "says": "there is no such file"},
    ]
    page = audit(tmp_path, ("copies", "error"), examples=examples)
    sets = [set_.count("<img") for set_ in page.split('<div class="set">')[1:]]
    assert sets == [2, 1]
    pictures = re.findall(r'src="data:image/jpeg;base64,([^"]+)" alt="(\w)"', page)
    assert [name for _, name in pictures] == ["a", "b", "c"]
    assert Image.open(io.BytesIO(base64.b64decode(pictures[0][0]))).size == (96, 192)
    assert "<code>lost</code>: there is no such file" in page


def test_missing_audit_is_refused(tmp_path: Path) -> None:
    """A folder without audit.json is refused, and no page appears."""
    with pytest.raises(RunError, match=r"no audit\.json"):
        write_audit_report(tmp_path)
    assert list(tmp_path.iterdir()) == []
