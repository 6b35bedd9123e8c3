"""Every metric of every split with its interval, and the curves behind them."""

from __future__ import annotations

from typing import Any

from tumortrace.reports.records import Records


def context(records: Records) -> dict[str, Any] | None:
    """`alt`; None where no metric is on record."""
    if not records.metrics:
        return None
    on = f"on the {records.split} split"
    return {
        "alt": {
            "roc": f"ROC curve {on}: AUROC {records.metric('auroc')}",
            "precision_recall": f"Precision-recall curve {on}: average precision {records.metric('average_precision')}",
        }
    }
