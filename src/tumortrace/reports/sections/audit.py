"""What the audit of the data found."""

from __future__ import annotations

from typing import Any

from tumortrace.reports.records import Records, read_json


def context(records: Records) -> dict[str, Any] | None:
    """`audit`: audit.json, where there is one."""
    audit = read_json(records.folder / "audit.json")
    return {"audit": audit} if audit else None
