"""The wrong predictions that the model was surest of."""

from __future__ import annotations

from typing import Any

from tumortrace.reports.records import Records
from tumortrace.reports.sections.explanations import explained

MOST = 10  # rows in the table


def context(records: Records) -> dict[str, Any] | None:
    """`mistakes`, and `explanations` for their pictures."""
    mistakes = _mistakes(records)
    return {"mistakes": mistakes, "explanations": explained(records)} if mistakes else None


def _mistakes(records: Records) -> list[dict[str, Any]]:
    table = records.scored(records.split)
    if "prediction" not in table:
        return []
    wrong = table[table["prediction"].notna() & (table["prediction"] != table["label"])]
    sureness = wrong["probability"].where(wrong["prediction"] == 1, 1 - wrong["probability"])
    surest = wrong.loc[sureness.sort_values(ascending=False, kind="stable").index[:MOST]]
    surest = surest.astype(object).where(surest.notna(), None).assign(of=len(wrong))
    return [{str(name): value for name, value in row.items()} for row in surest.to_dict("records")]
