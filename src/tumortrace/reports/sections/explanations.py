"""What the model looked at."""

from __future__ import annotations

from collections import Counter
from typing import Any

from tumortrace.reports.embedding import embed_picture
from tumortrace.reports.records import Records, read_json

MOST = 12  # pictures


def context(records: Records) -> dict[str, Any] | None:
    """`explanations` (see `explained`) and the contact `sheets`; None where there is no picture."""
    explanations, sheets = explained(records), _sheets(records)
    return {"explanations": explanations, "sheets": sheets} if explanations["pictured"] or sheets["pictures"] else None


def _sheets(records: Records) -> dict[str, Any]:
    """The record of the contact sheets with their `pictures`."""
    folder = records.folder / "explanations"
    record = read_json(folder / "sheets.json")
    pictures = [embed_picture(folder, name, 1400) for name in record.get("figures", [])]
    return record | {"pictures": [picture for picture in pictures if picture]}


def explained(records: Records) -> dict[str, Any]:
    """The record of the explanations with the first pictures, in order and by id (where no two share one)."""
    folder = records.folder / "explanations"
    record = read_json(folder / "explanations.json")
    items = [
        item | {"picture": embed_picture(folder, item.get("figure"), 640)} for item in record.get("items", [])[:MOST]
    ]
    count = Counter(item.get("id") for item in items)
    by_id = {item["id"]: item["picture"] for item in items if item["picture"] and count[item.get("id")] == 1}
    pictured = [item for item in items if item["picture"]]
    return record | {"pictured": pictured, "by_id": by_id, "count": len(record.get("items", []))}
