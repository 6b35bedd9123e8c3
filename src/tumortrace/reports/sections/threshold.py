"""The section on where positive begins, what that does, and whether it fits the data."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure

from tumortrace.evaluation.measures import CALLED, MEASURES, TITLES
from tumortrace.records.metrics import Called, ConfusionMatrix
from tumortrace.reports.drawing import INK, MUTED, POSITIVE, ends, legend_below, name_rows, number, sheet, short
from tumortrace.reports.page import Context
from tumortrace.reports.records import Records
from tumortrace.reports.wording import decimals

CONFUSION = LinearSegmentedColormap.from_list("confusion", ["#f4f7f9", "#33556e"])
CELLS = {"tn": "true negatives", "fp": "false positives", "fn": "false negatives", "tp": "true positives"}


def tell_threshold(records: Records) -> Context:
    """`shares` (see `_shares`), `half` with what is `compared`, and `alt`."""
    half = _at_half(records)
    on = f"on the {records.split} split"
    return {
        "shares": _shares(records),
        "half": half,
        "compared": {name: TITLES[name] for name in CALLED},
        "alt": {
            "confusion_matrix": f"Confusion matrix {on}: {_count(records.judged)}",
            "confusion_matrix_at_half": f"Confusion matrix {on} at the threshold .5: {_count(half)}",
            "threshold": "Sensitivity, specificity, precision and F1 by threshold; "
            f"{decimals(records.model.threshold)} was chosen",
            "before_after": f"Metrics {on} at the threshold .5 and at {decimals(records.threshold)}",
        },
    }


def _at_half(records: Records) -> Called | None:
    """The metrics at the threshold .5, where another is in force."""
    half = records.judged.at_half
    return half if half and half.threshold != records.threshold else None


def _count(calls: Called | None) -> str:
    cells = calls and calls.confusion_matrix
    return ", ".join(f"{getattr(cells, key, '—')} {name}" for key, name in CELLS.items())


def _shares(records: Records) -> Context:
    """The share of images predicted positive beside that of training, and whether they are far apart."""
    cells, trained = records.judged.confusion_matrix, records.model.training.prevalence
    images = cells.tn + cells.fp + cells.fn + cells.tp if cells else 0
    if not cells or not images or not trained:
        return {}
    predicted = (cells.tp + cells.fp) / images
    return {"predicted": predicted, "training": trained, "far": not 2 / 3 <= predicted / trained <= 3 / 2}


def draw_threshold(records: Records) -> Figure | None:
    """Metrics of the calibration split, the only one on which a threshold is chosen."""
    points = records.curves("calibration")
    if points is None:
        return None
    f1 = 2 * points.precision * points.recall / np.maximum(points.precision + points.recall, 1e-12)
    lines = {
        "sensitivity": points.recall,
        "specificity": 1 - points.fpr[1:],
        "precision": points.precision,
        "f1": f1,
    }
    figure, axes = sheet("Metrics by threshold, calibration split", "Threshold", "", 4.8)
    for name, values in lines.items():
        # each value holds for the thresholds above the next lower probability, its own included
        style: Any = {"color": MEASURES[name].colour, "drawstyle": "steps-pre"}
        axes.plot(points.pr_threshold[::-1], values[::-1], label=TITLES[name], **style)
    chosen = records.model.threshold
    if chosen is not None:
        axes.axvline(chosen, linestyle="--", color=INK, linewidth=1.2, label=f"Chosen, {decimals(chosen)}")
    axes.set(xlim=(0, 1), ylim=(-0.01, 1.01))
    legend_below(figure, 3)
    return figure


def draw_confusion_matrix(records: Records) -> Figure | None:
    """Counts at the threshold in force."""
    return _draw_matrix(records, records.judged.confusion_matrix, records.threshold)


def draw_confusion_matrix_at_half(records: Records) -> Figure | None:
    """Counts at the threshold .5, where another is in force."""
    half = _at_half(records)
    return _draw_matrix(records, half.confusion_matrix, half.threshold) if half else None


def _draw_matrix(records: Records, cells: ConfusionMatrix | None, threshold: float | None) -> Figure | None:
    if not cells:
        return None
    counts = np.array([[cells.tn, cells.fp], [cells.fn, cells.tp]])
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    title = f"Confusion matrix, {records.split} split, threshold {decimals(threshold)}"
    figure, axes = sheet(title, "Predicted", "Actual", 4.8)
    names = [short(name) for name in records.classes]
    axes.imshow(shares, cmap=CONFUSION, vmin=0, vmax=1)
    axes.set(xticks=[0, 1], yticks=[0, 1], xticklabels=names)
    axes.set_yticklabels(names, rotation=90, va="center")
    axes.grid(False)
    axes.tick_params(length=0, labelcolor=INK)
    axes.spines[:].set_visible(False)
    for row, column in np.ndindex(2, 2):
        colour = "white" if shares[row, column] > 0.55 else INK
        place: Any = {"ha": "center", "va": "center", "color": colour}
        axes.text(column, row - 0.07, f"{counts[row, column]:,}", fontsize=19, fontweight="bold", **place)
        axes.text(column, row + 0.15, f"{100 * shares[row, column]:.1f} % of {names[row]}", fontsize=10, **place)
    return figure


def draw_before_after(records: Records) -> Figure | None:
    """Metrics at .5 and at the threshold in force, with their intervals; None where these are the same."""
    half = _at_half(records)
    if not half:
        return None
    names = [name for name in CALLED if _defined(half, name) or _defined(records.judged, name)][::-1]
    figure, axes = sheet(f"Before and after, {records.split} split", "", "", 1.7 + 0.42 * len(names))
    for entries, shift, colour, label in (
        (half, 0.14, MUTED, f"At {decimals(half.threshold)}"),
        (records.judged, -0.14, POSITIVE, f"At {decimals(records.threshold)}, the threshold"),
    ):
        known = [(place, entries[name]) for place, name in enumerate(names) if _defined(entries, name)]
        values = np.array([number(entry) for _, entry in known])
        low, high = np.array([ends(entry) for _, entry in known]).reshape(-1, 2).T
        error = np.maximum([values - low, high - values], 0)
        heights = [place + shift for place, _ in known]
        axes.errorbar(values, heights, xerr=error, fmt="o", color=colour, markersize=5, elinewidth=1.4, label=label)
    name_rows(axes, [TITLES[name] for name in names])
    legend_below(figure)
    return figure


def _defined(calls: Called, name: str) -> bool:
    entry = calls.get(name)
    return entry is not None and entry.value is not None
