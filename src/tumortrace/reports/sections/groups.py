"""How each slide or patient fares, and each level of the columns that were named."""

from __future__ import annotations

from typing import Any

from tumortrace.evaluation.measures import prominent
from tumortrace.reports.group_figure import GROUPS as FIGURES
from tumortrace.reports.records import Records

__all__ = ["FIGURES", "context"]

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
        "subgroup_metrics": prominent(2),
        "alt": {"accuracy_by_group": f"Accuracy of {len(groups)} slides or patients on the {records.split} split"},
    }
