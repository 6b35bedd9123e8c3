"""What a classifier on hand-made descriptors leans on."""

from __future__ import annotations

from typing import Any

import pandas as pd

from tumortrace.reports.records import Records, decimals, read_table


def context(records: Records) -> dict[str, Any] | None:
    """`alt`: the first rows of both tables of importances in words."""
    falls = read_table(records.folder / "importances.csv")
    if falls.empty:
        return None
    shares = read_table(records.folder / "feature_importances.csv")
    fall = _first(falls, "descriptor", "auroc_fall")
    share = _first(shares, "feature", "importance")
    return {
        "alt": {
            "importances": f"Fall of the validation AUROC when a descriptor is shuffled: {fall}",
            "feature_importances": f"Share of the importance by feature: {share}",
        }
    }


def _first(table: pd.DataFrame, by: str, value: str) -> str:
    rows = table.head(5).to_dict("records")
    return ", ".join(f"{row[by]} {decimals(row[value])}" for row in rows) or "not available"
