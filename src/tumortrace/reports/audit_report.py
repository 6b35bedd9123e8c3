"""The HTML report of an audit, from audit.json."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

from tumortrace.errors import RunError
from tumortrace.reports.records import read_json
from tumortrace.reports.report import render
from tumortrace.runs.files import write_text

ORDER = ("error", "warning", "note")


def write_audit_report(folder: Path) -> Path:
    """Write audit.html, one file that opens anywhere, from the audit.json of a folder.

    Args:
        folder: Folder that holds audit.json.

    Returns:
        Path of audit.html, in the same folder.

    Raises:
        RunError: There is no audit.json, or it is damaged.

    Example:
        >>> import tempfile
        >>> folder = Path(tempfile.mkdtemp())
        >>> _ = (folder / "audit.json").write_text('{"cohort": "mine", "images": 0, "classes": {}, "findings": []}')
        >>> page = write_audit_report(folder).read_text()
        >>> "Nothing stands against" in page
        True
    """
    audit = read_json(Path(folder) / "audit.json")
    if not audit:
        raise RunError("no audit.json", where=folder, expected="the folder of an audit", remedy="run the check first")
    findings = sorted(audit.get("findings", []), key=lambda finding: _rank(finding.get("verdict")))
    target = Path(folder) / "audit.html"
    write_text(target, render("audit.html.j2", audit=audit | {"findings": findings}, verdict=_verdict(findings)))
    return target


def _rank(verdict: str | None) -> int:
    return ORDER.index(verdict) if verdict in ORDER else len(ORDER)


def _verdict(findings: list[dict[str, Any]]) -> str:
    """One sentence on what the findings mean for training."""
    counts = Counter(str(finding.get("verdict")) for finding in findings)
    found = ", ".join(f"{counts[kind]} {kind}{'s' if counts[kind] > 1 else ''}" for kind in ORDER if counts[kind])
    if counts["error"]:
        return f"These data need repair before training: {found}."
    if counts["warning"]:
        return f"These data can be trained on, with care: {found}."
    return f"Nothing stands against training on these data{f': {found}' if found else ''}."
