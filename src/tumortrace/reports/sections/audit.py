"""What the audit of the data found."""

from __future__ import annotations

from typing import Any

from tumortrace.reports.records import Records, read_json


def context(records: Records) -> dict[str, Any] | None:
    """`audit`: audit.json, or what the training's own check found; `allowed`: the findings that it was let pass."""
    own = records.run.get("audit") or {}
    audit = read_json(records.folder / "audit.json") or own
    return {"audit": audit, "allowed": own.get("allowed") or []} if audit else None
