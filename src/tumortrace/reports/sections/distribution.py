"""How many images do not look like the training data."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.figure import Figure

from tumortrace.evaluation.abstention import MANY
from tumortrace.reports.figures import INK, LINES, MUTED, Drawings, legend_below, sheet
from tumortrace.reports.records import Records, read_json

#: Scores beyond this stand at the edge of the figure.
FARTHEST = 4.0


def context(records: Records) -> dict[str, Any] | None:
    """`outside`: per split, how many images and their share; `limits`; `strange`, whether they are many; `alt`."""
    record = read_json(records.folder / "distribution.json")
    parts = record.get("splits")
    if not parts:
        return None
    judged = parts.get(record.get("split")) or {}
    interval = (judged.get("outside") or {}).get("ci95")
    return {
        "outside": parts,
        "limits": record.get("limits") or {},
        "strange": bool(interval and interval[0] > MANY),
        "alt": {"likeness": f"Histogram of distances from the training images, {records.split} split, limit at 1"},
    }


def _likeness(records: Records) -> Figure | None:
    """Scores of the judged split beside those of the validation split, which set the limit."""
    table = records.predictions
    if "ood_score" not in table or table["ood_score"].isna().all():
        return None
    figure, axes = sheet("Likeness to the training images", "Distance, the limit being 1", "Share of images")
    edges = np.linspace(0, FARTHEST, 41).tolist()
    splits = [name for name in dict.fromkeys(["validation", records.split]) if (table["split"] == name).any()]
    for name in splits:
        values = table.loc[table["split"] == name, "ood_score"].clip(upper=FARTHEST - 0.01)
        colour = INK if name == records.split else LINES[3]
        style: dict[str, Any] = {"color": colour, "histtype": "step", "linewidth": 1.6}
        weights = np.full(len(values), 1 / len(values))
        axes.hist(values, edges, weights=weights, label=f"{name.capitalize()} ({len(values):,})", **style)
    axes.axvline(1, linestyle="--", color=MUTED, linewidth=1.2, label="Limit")
    axes.set(xlim=(0, FARTHEST))
    legend_below(figure, 3)
    return figure


FIGURES: Drawings = {"likeness": _likeness}
