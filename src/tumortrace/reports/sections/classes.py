"""The section on more than two classes: what is measured of all, of each, and which is taken for which."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.figure import Figure

from tumortrace.evaluation.class_measures import TITLES
from tumortrace.reports.drawing import INK, NEGATIVE, POSITIVE, ends, name_rows, number, sheet, short
from tumortrace.reports.page import Context
from tumortrace.reports.records import Records
from tumortrace.reports.sections.threshold import CONFUSION

SCORES = {"precision": "Precision", "recall": "Recall", "f1": "F1", "auroc": "AUROC", "ece": "Calibration error"}
READABLE = 12  # classes up to which cells have room for their numbers


def tell_classes(records: Records) -> Context | None:
    """`several`, its titles and `alt`; None where there are two classes."""
    several = records.judged.classes
    if several is None:
        return None
    scores = dict(SCORES)
    if several.get("set_coverage") is not None:
        scores["set_coverage"] = "In their sets"
    positive = records.model.positive_names
    return {
        "several": several,
        "several_titles": {name: title for name, title in TITLES.items() if several.get(name) is not None},
        "several_scores": scores,
        "positive_names": positive,
        "alt": {
            "class_confusion": f"Which of {len(several.names)} classes is taken for which, {records.split} split",
            "class_recall": f"Share of each class called rightly, {records.split} split",
        },
    }


def draw_class_confusion(records: Records) -> Figure | None:
    """Counts by class and predicted class, shaded by the share of the class."""
    several = records.judged.classes
    if several is None:
        return None
    counts = np.array(several.confusion_matrix)
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    side = min(9.0, 2.4 + 0.62 * len(counts))
    figure, axes = sheet(f"Classes, {records.split} split", "Predicted", "Actual", side)
    names = [short(name, 14) for name in several.names]
    axes.imshow(shares, cmap=CONFUSION, vmin=0, vmax=1)
    axes.set_xticks(range(len(names)), names, rotation=40, ha="right", rotation_mode="anchor")
    name_rows(axes, names)
    axes.grid(False)
    axes.tick_params(length=0, labelcolor=INK)
    axes.spines[:].set_visible(False)
    if len(counts) <= READABLE:
        for row, column in np.ndindex(*counts.shape):
            place: Any = {"ha": "center", "va": "center", "color": "white" if shares[row, column] > 0.55 else INK}
            axes.text(column, row, f"{counts[row, column]:,}", fontsize=11, **place)
    return figure


def draw_class_recall(records: Records) -> Figure | None:
    """The share of each class called rightly, with its interval; the positive ones in their colour."""
    several = records.judged.classes
    if several is None:
        return None
    names = several.names[::-1]
    positive = set(records.model.positive_names)
    figure, axes = sheet(f"Called rightly, {records.split} split", "Recall", "", 1.5 + 0.42 * len(names))
    for place, name in enumerate(names):
        entry = several.by_class[name].get("recall")
        value, (low, high) = number(entry), ends(entry)
        colour = POSITIVE if name in positive else NEGATIVE
        error = np.maximum([[value - low], [high - value]], 0)
        axes.errorbar([value], [place], xerr=error, fmt="o", color=colour, markersize=6, elinewidth=1.4)
    name_rows(axes, [f"{short(name, 18)} ({several.by_class[name].support:,})" for name in names])
    axes.set(xlim=(-0.02, 1.02), ylim=(-0.7, len(names) - 0.3))
    return figure
