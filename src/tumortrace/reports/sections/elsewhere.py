"""How well the model does on the other data that it was evaluated on."""

from __future__ import annotations

from typing import Any

from tumortrace.evaluation.measures import prominent
from tumortrace.reports.evaluations import evaluations
from tumortrace.reports.records import Records


def context(records: Records) -> dict[str, Any] | None:
    """`evaluations` and the `columns` of their table; None where there is none."""
    found = evaluations(records)
    return {"evaluations": found, "columns": prominent()} if found else None
