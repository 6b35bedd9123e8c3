"""Every metric of every split with its interval, the classification report, operating points, and the curves."""

from __future__ import annotations

from typing import Any

from tumortrace.reports.curve_figures import CURVES as FIGURES
from tumortrace.reports.records import Records

__all__ = ["FIGURES", "context"]


def context(records: Records) -> dict[str, Any] | None:
    """`alt`, `by_class` and `operating_points` of the judged split; None where no metric is on record."""
    if not records.metrics:
        return None
    on = f"on the {records.split} split"
    return {
        "by_class": records.judged.get("classification_report"),
        "operating_points": records.judged.get("operating_points"),
        "alt": {
            "roc": f"ROC curve {on}: AUROC {records.metric('auroc')}",
            "precision_recall": f"Precision-recall curve {on}: average precision {records.metric('average_precision')}",
            "decision_curve": f"Net benefit by the probability from which one acts, {on}, of the model, all and none",
        },
    }
