"""The section on whether the images as a whole lie apart from the training images."""

from __future__ import annotations

import numpy as np
from matplotlib.figure import Figure

from tumortrace.evaluation.drift import drift_line
from tumortrace.records.metrics import Drift, DriftRecord
from tumortrace.reports.drawing import INK, MUTED, NEGATIVE, POSITIVE, legend_below, sheet
from tumortrace.reports.page import Context
from tumortrace.reports.records import Records


def tell_drift(records: Records) -> Context | None:
    """`sets`: of each split its record and a sentence; `further`, whether the judged one lies apart; `alt`."""
    record = DriftRecord.find(records.folder)
    if not record or not record.splits:
        return None
    judged = _judged(record)
    told = {name: _sentence(drift) for name, drift in record.splits.items()}
    return {
        "sets": {name: {"drift": drift, "line": told[name]} for name, drift in record.splits.items()},
        "drift": judged,
        "split": record.split,
        "further": judged.verdict == "further",
        "alt": {"drift": f"Distances of {judged.compared} of the training data, and of the {record.split} images"},
    }


def _judged(record: DriftRecord) -> Drift:
    return record.splits.get(record.split) or next(iter(record.splits.values()))


def _sentence(drift: Drift) -> str:
    return drift_line(drift).removeprefix("warning: ") + "."


def draw_drift(records: Records) -> Figure | None:
    """The set's distance beside those of what was drawn from the training data."""
    record = DriftRecord.find(records.folder)
    drift = None if record is None or not record.splits else _judged(record)
    if record is None or drift is None or drift.distance is None or not drift.distances:
        return None
    figure, axes = sheet("The images as a whole", "Distance from the training images (squared MMD)", "", 2.9)
    aside = np.random.default_rng(0).uniform(-0.22, 0.22, len(drift.distances))
    label = f"{drift.compared.capitalize()} of the training data ({len(drift.distances)})"
    axes.plot(drift.distances, aside, "o", color=NEGATIVE, alpha=0.55, markersize=5, markeredgewidth=0, label=label)
    if not drift.grouped or drift.known_groups >= drift.needed:  # of fewer there is no nineteenth of twenty
        limit = float(np.quantile(drift.distances, 0.95))
        axes.axvline(limit, linestyle="--", color=MUTED, linewidth=1.2, label="19 of 20 of these lie below")
    value, (low, high) = drift.distance.value or 0.0, drift.distance.ci95 or (np.nan, np.nan)
    colour = POSITIVE if drift.verdict == "further" else INK
    named = f"{record.split.capitalize()} images ({drift.images:,}), 95 % interval"
    axes.errorbar([value], [0.6], xerr=[[value - low], [high - value]], fmt="D", color=colour, capsize=3, label=named)
    axes.set(ylim=(-0.5, 0.95), yticks=[])
    axes.spines["left"].set_visible(False)
    axes.grid(axis="y", visible=False)
    legend_below(figure, 1)
    return figure
