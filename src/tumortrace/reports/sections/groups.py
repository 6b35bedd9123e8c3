"""How each slide or patient fares, and each level of the columns that were named."""

from __future__ import annotations

from typing import Any

from tumortrace.reports.group_figure import GROUPS as FIGURES
from tumortrace.reports.records import METRICS, Records

__all__ = ["FIGURES", "context"]

SHOWN = ("auroc", "sensitivity", "specificity", "ece")
OPEN = 12  # groups up to which their table is shown at once


def context(records: Records) -> dict[str, Any] | None:
    """`groups`, `subgroups` and `subgroup_metrics` of the judged split, and `alt`; None where there are none."""
    groups, subgroups = records.judged.get("groups") or [], records.judged.get("subgroups") or {}
    if len(groups) < 2 and not subgroups:
        return None
    return {
        "groups": groups if len(groups) > 1 else [],
        "groups_open": len(groups) <= OPEN,
        "subgroups": subgroups,
        "subgroup_metrics": {name: METRICS[name] for name in SHOWN},
        "alt": {"accuracy_by_group": f"Accuracy of {len(groups)} slides or patients on the {records.split} split"},
    }
