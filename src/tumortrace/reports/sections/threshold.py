"""Where positive begins, and whether that fits the data."""

from __future__ import annotations

from typing import Any

from tumortrace.reports.records import Records, decimals


def context(records: Records) -> dict[str, Any]:
    """`shares` (see `_shares`) and `alt`."""
    cells = records.judged.get("confusion_matrix") or {}
    words = {"tn": "true negatives", "fp": "false positives", "fn": "false negatives", "tp": "true positives"}
    counts = ", ".join(f"{cells.get(key, '—')} {each}" for key, each in words.items())
    chosen = decimals(records.model.get("threshold"))
    return {
        "shares": _shares(records),
        "alt": {
            "confusion_matrix": f"Confusion matrix on the {records.split} split: {counts}",
            "threshold": f"Sensitivity, specificity, precision and F1 by threshold; {chosen} was chosen",
        },
    }


def _shares(records: Records) -> dict[str, Any]:
    """The share of images predicted positive beside that of training, and whether they are far apart."""
    cells = records.judged.get("confusion_matrix")
    trained = records.model.get("training", {}).get("prevalence")
    if not cells or not sum(cells.values()) or not trained:
        return {}
    predicted = (cells["tp"] + cells["fp"]) / sum(cells.values())
    return {"predicted": predicted, "training": trained, "far": not 2 / 3 <= predicted / trained <= 3 / 2}
