"""The HTML report of an audit, from audit.json and the images that it names."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from PIL import Image

from tumortrace.errors import ImageError
from tumortrace.images.decoding import read_image
from tumortrace.records.data import AuditRecord, ExampleFound, FindingRecord
from tumortrace.reports.page import Context, embed_image, write_page
from tumortrace.reports.wording import enumerate_kinds

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
    audit = AuditRecord.read(folder)
    ranks = {kind: rank for rank, kind in enumerate(_MEANS)}
    ranked = sorted(audit.findings, key=lambda finding: ranks.get(finding.verdict, len(ranks)))
    findings: list[Context] = [finding.as_json() | {"sets": _sets(finding)} for finding in ranked]
    return write_page(
        Path(folder) / "audit.html",
        "audit.html.j2",
        audit=audit.as_json() | {"findings": findings},
        verdict=[_verdict(audit)],
        kinds=[
            (kind, means, [told for told in findings if told.get("verdict") == kind]) for kind, means in _MEANS.items()
        ],
    )


def _verdict(audit: AuditRecord) -> str:
    """One sentence on what the findings mean for training."""
    counts = Counter(finding.verdict for finding in audit.findings)
    told = enumerate_kinds({kind: counts[kind] for kind in _MEANS})
    if counts["error"]:
        return f"These data need repair before training: {told}."
    if counts["warning"]:
        return f"These data can be trained on, with care: {told}."
    return f"Nothing stands against training on these data{f': {told}' if told else ''}."


def _sets(finding: FindingRecord) -> list[list[Context]]:
    """Examples with their pictures, those that belong together side by side; plain text is an example without one."""
    sets: dict[int, list[Context]] = {}
    for number, example in enumerate(finding.examples):
        if not isinstance(example, ExampleFound):
            example = ExampleFound(id=example if isinstance(example, str) else ", ".join(example))
        shown = example.as_json() | {"picture": _thumbnail(example.path)}
        sets.setdefault(example.set or -number - 1, []).append(shown)
    return list(sets.values())


def _thumbnail(path: str) -> str | None:
    """A small picture as a data URI; None where there is none to see."""
    if not path:
        return None
    try:
        image = Image.fromarray(read_image(path))
    except ImageError:
        return None
    return embed_image(image, _THUMBNAIL, "JPEG", quality=88)
