"""The HTML report of an audit, from audit.json and the images that it names."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

from PIL import Image

from tumortrace.errors import ImageError, RunError
from tumortrace.images.decoding import read_image
from tumortrace.reports.page import embed_image, write_page
from tumortrace.reports.records import read_json
from tumortrace.reports.wording import enumerate_kinds

ORDER = ("error", "warning", "note")
_THUMBNAIL = 192  # pixels of the longer side: sharp on screens with two pixels per point
_MEANS = {
    "error": "Results on these data would be wrong. Repair them before training.",
    "warning": "Training works, but results may mislead. Look at these before you trust a number.",
    "note": "Good to know; nothing has to be done.",
}


def write_audit_report(folder: Path) -> Path:
    """Write audit.html, one file that opens anywhere, from the audit.json of a folder.

    Args:
        folder: Folder that holds audit.json. Images that it names are shown where they are still there.

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
    findings = [finding | {"sets": _sets(finding.get("examples") or [])} for finding in findings]
    return write_page(
        Path(folder) / "audit.html",
        "audit.html.j2",
        audit=audit | {"findings": findings},
        verdict=_verdict(findings),
        kinds=[
            (kind, means, [finding for finding in findings if finding.get("verdict") == kind])
            for kind, means in _MEANS.items()
        ],
    )


def _rank(verdict: str | None) -> int:
    return ORDER.index(verdict) if verdict in ORDER else len(ORDER)


def _verdict(findings: list[dict[str, Any]]) -> str:
    """One sentence on what the findings mean for training."""
    counts = Counter(str(finding.get("verdict")) for finding in findings)
    told = enumerate_kinds({kind: counts[kind] for kind in ORDER})
    if counts["error"]:
        return f"These data need repair before training: {told}."
    if counts["warning"]:
        return f"These data can be trained on, with care: {told}."
    return f"Nothing stands against training on these data{f': {told}' if told else ''}."


def _sets(examples: list[Any]) -> list[list[dict[str, Any]]]:
    """Examples with their pictures, those that belong together side by side; plain text is an example without one."""
    sets: dict[int, list[dict[str, Any]]] = {}
    for number, example in enumerate(examples):
        known = (
            example
            if isinstance(example, dict)
            else {"id": example if isinstance(example, str) else ", ".join(example)}
        )
        sets.setdefault(int(known.get("set") or -number - 1), []).append(
            known | {"picture": _thumbnail(known.get("path"))}
        )
    return list(sets.values())


def _thumbnail(path: str | None) -> str | None:
    """A small picture as a data URI; None where there is none to see."""
    if not path:
        return None
    try:
        image = Image.fromarray(read_image(path))
    except ImageError:
        return None
    return embed_image(image, _THUMBNAIL, "JPEG", quality=88)
