"""Whole slides that the model was run over."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tumortrace.reports.embedding import embed_picture
from tumortrace.reports.records import Records, read_json


def context(records: Records) -> dict[str, Any] | None:
    """`scans`: the record of each, with its heat map; None where there is none."""
    scans = [_scan(path.parent) for path in sorted(records.folder.glob("scans/*/scan.json"))]
    return {"scans": scans} if scans else None


def _scan(folder: Path) -> dict[str, Any]:
    record = read_json(folder / "scan.json")
    heatmap = embed_picture(folder, (record.get("files") or {}).get("heatmap"), 1200)
    return record | {"name": folder.name, "heatmap": heatmap}
