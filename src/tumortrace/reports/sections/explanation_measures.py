"""Whether the heat maps can be believed, as `explain --measure` found."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.figure import Figure

from tumortrace.reports.figures import INK, MUTED, NEGATIVE, Drawings
from tumortrace.reports.records import Records, decimals, interval, read_json

PANELS: dict[str, tuple[str, float | None]] = {  # title, what chance gives; None for the tumour's share of the area
    "pointing": ("Hottest pixel on tumour", None),
    "energy": ("Share of heat on tumour", None),
    "mask_auc": ("AUC against the mask", 0.5),
    "insertion_gain": ("Insertion, gain over others", 0.0),
    "random": ("Kept with random weights", 0.0),
}


def context(records: Records) -> dict[str, Any] | None:
    """`measures`, the record with `random` (the last stage of randomisation) in each method, and `alt`."""
    measures = _measures(records)
    if measures is None:
        return None
    spoken = [
        f"{entry['title']} "
        + ", ".join(
            f"{title.lower()} {decimals(entry[key]['value'])}{interval(entry[key], ' ')}"
            for key, (title, _) in PANELS.items()
            if entry.get(key)
        )
        for entry in measures["methods"].values()
    ]
    alt = {"explanation_measures": "Measures of the heat maps with 95 % intervals: " + "; ".join(spoken)}
    return {"measures": measures, "alt": alt}


def _measures(records: Records) -> dict[str, Any] | None:
    found = read_json(records.folder / "explanations" / "measures.json")
    if not found.get("methods"):
        return None
    methods = {}
    for name, entry in found["methods"].items():
        stages = entry.get("randomised") or []
        methods[name] = entry | {"random": stages[-1]["rank_correlation"] if stages else None}
    return found | {"methods": methods, "masked": any(entry.get("energy") for entry in methods.values())}


def _draw(records: Records) -> Figure | None:
    """Each method's measures with intervals; a dashed line where chance would be."""
    measures = _measures(records)
    if measures is None:
        return None
    methods = list(measures["methods"].values())[::-1]
    panels = [key for key in PANELS if any(entry.get(key) for entry in methods)]
    area = ((measures.get("chance") or {}).get("area") or {}).get("value")
    figure = Figure(figsize=(1.75 * len(panels) + 1.8, 1.2 + 0.34 * len(methods)), layout="constrained")
    axes = figure.subplots(1, len(panels), sharey=True, squeeze=False)[0]
    for place, key in zip(axes, panels, strict=True):
        title, chance = PANELS[key]
        level = area if chance is None else chance
        if level is not None:
            place.axvline(level, linestyle="--", color=MUTED, linewidth=1)
        for row, entry in enumerate(methods):
            value = (entry.get(key) or {}).get("value")
            if value is None:
                continue
            ends = entry[key].get("ci95") or [value, value]
            colour = MUTED if entry.get("control") else NEGATIVE
            place.plot(ends, [row, row], color=colour, linewidth=2)
            place.plot(value, row, "o", color=colour, markersize=6)
        place.set_title(title, fontsize=9.5, pad=6)
        place.tick_params(axis="x", labelsize=8)
    axes[0].set_yticks(np.arange(len(methods)), [str(entry["title"]) for entry in methods])
    axes[0].tick_params(axis="y", length=0, labelcolor=INK, labelsize=9)
    return figure


FIGURES: Drawings = {"explanation_measures": _draw}
