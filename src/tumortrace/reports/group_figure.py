"""How each slide or patient fares."""

from __future__ import annotations

import numpy as np
from matplotlib.figure import Figure

from tumortrace.reports.figures import INK, NEGATIVE, Drawings, sheet, short
from tumortrace.reports.records import Records

NAMED = 40  # groups whose names there is room for


def accuracy_by_group(records: Records) -> Figure | None:
    """Accuracy of each slide or patient with Wilson's interval, the worst at the top."""
    groups = records.judged.get("groups") or []
    if len(groups) < 2:
        return None
    groups = sorted(groups, key=lambda row: (-row["accuracy"]["value"], -row["n"]))
    places = np.arange(len(groups))
    values = np.array([row["accuracy"]["value"] for row in groups])
    ends = np.array([row["accuracy"]["ci95"] for row in groups])
    named = len(groups) <= NAMED
    height = 1.4 + (0.24 * len(groups) if named else 5.0)
    figure, axes = sheet(f"Accuracy by slide or patient, {records.split} split", "Accuracy", "", height)
    error = np.maximum([values - ends[:, 0], ends[:, 1] - values], 0)
    axes.errorbar(values, places, xerr=error, fmt="o", color=NEGATIVE, markersize=4, elinewidth=1)
    overall = (records.judged.get("accuracy") or {}).get("value")
    if overall is not None:
        axes.axvline(overall, linestyle="--", color=INK, linewidth=1)
    if named:
        axes.set_yticks(places, [f"{short(row['group'])} ({row['n']:,})" for row in groups])
    else:
        axes.set_yticks([])
    axes.tick_params(axis="y", length=0, labelcolor=INK, labelsize=9)
    axes.set(xlim=(-0.02, 1.02), ylim=(-0.8, len(groups) - 0.2))
    axes.grid(axis="y", visible=False)
    return figure


GROUPS: Drawings = {"accuracy_by_group": accuracy_by_group}
