"""Where positive begins, what that does, and whether it fits the data."""

from __future__ import annotations

from typing import Any

from tumortrace.evaluation.measures import CALLED, TITLES
from tumortrace.reports.records import Records, decimals
from tumortrace.reports.threshold_figures import THRESHOLD as FIGURES

__all__ = ["FIGURES", "context"]


def context(records: Records) -> dict[str, Any]:
    """`shares` (see `_shares`), `half` with what is `compared`, and `alt`."""
    half = records.judged.get("at_half")
    if half and half["threshold"] == records.threshold:
        half = None
    chosen = decimals(records.model.get("threshold"))
    on = f"on the {records.split} split"
    return {
        "shares": _shares(records),
        "half": half,
        "compared": {name: TITLES[name] for name in CALLED},
        "alt": {
            "confusion_matrix": f"Confusion matrix {on}: {_counted(records.judged)}",
            "confusion_matrix_at_half": f"Confusion matrix {on} at the threshold .5: {_counted(half or {})}",
            "threshold": f"Sensitivity, specificity, precision and F1 by threshold; {chosen} was chosen",
            "before_after": f"Metrics {on} at the threshold .5 and at {decimals(records.threshold)}",
        },
    }


def _counted(entries: dict[str, Any]) -> str:
    cells = entries.get("confusion_matrix") or {}
    words = {"tn": "true negatives", "fp": "false positives", "fn": "false negatives", "tp": "true positives"}
    return ", ".join(f"{cells.get(key, '—')} {each}" for key, each in words.items())


def _shares(records: Records) -> dict[str, Any]:
    """The share of images predicted positive beside that of training, and whether they are far apart."""
    cells = records.judged.get("confusion_matrix")
    trained = records.model.get("training", {}).get("prevalence")
    if not cells or not sum(cells.values()) or not trained:
        return {}
    predicted = (cells["tp"] + cells["fp"]) / sum(cells.values())
    return {"predicted": predicted, "training": trained, "far": not 2 / 3 <= predicted / trained <= 3 / 2}
