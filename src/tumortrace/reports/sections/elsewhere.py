"""How well the model does on the other data that it was evaluated on."""

from __future__ import annotations

from typing import Any

from tumortrace.reports.evaluations import evaluations
from tumortrace.reports.records import METRICS, Records
from tumortrace.reports.story import HEADLINES


def context(records: Records) -> dict[str, Any] | None:
    """`evaluations` and the `columns` of their table; None where there is none."""
    found = evaluations(records)
    return {"evaluations": found, "columns": {name: METRICS[name] for name in HEADLINES}} if found else None
