"""How many images are decided, how many are referred to a person, and how often a decision is right."""

from __future__ import annotations

from typing import Any

from tumortrace.reports.records import Records


def context(records: Records) -> dict[str, Any] | None:
    """`decisions`: per split, the shares of each decision, and how often those that were made are right."""
    table = records.predictions
    if not {"split", "decision"} <= set(table) or table["decision"].isna().all():
        return None
    rows = []
    for split, part in table.groupby("split", sort=False):
        shares = part["decision"].value_counts(normalize=True)
        row: dict[str, Any] = {key: float(shares.get(key, 0)) for key in ("positive", "negative", "refer")}
        decided = part[part["decision"].isin(["positive", "negative"]) & part["label"].notna()]
        right = (decided["decision"] == "positive") == (decided["label"] == 1)
        rows.append(row | {"split": split, "images": len(part), "right": right.mean() if len(right) else None})
    return {"decisions": rows}
