"""ROC, precision-recall and decision curves with their bands."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from tumortrace.evaluation.curves import DRAWN, precision_recall_band, roc_band
from tumortrace.evaluation.replicates import Replicates
from tumortrace.reports.figures import INK, MUTED, POSITIVE, Drawings, curves_of, legend_below, sheet, unit_square
from tumortrace.reports.records import Records, decimals

BAND: dict[str, Any] = {"color": INK, "alpha": 0.16, "linewidth": 0}


def roc(records: Records) -> Figure | None:
    """The ROC curve with its band and the operating point."""
    points = curves_of(records, records.split)
    if points is None:
        return None
    figure, axes = sheet(f"ROC curve, {records.split} split", "1 − specificity", "Sensitivity", 5.2)
    axes.plot([0, 1], [0, 1], "--", color=MUTED, linewidth=1)
    places, low, high = roc_band(Replicates(records.scored(records.split), DRAWN))
    if len(places):
        axes.fill_between(places, low, high, label="95 % band", **BAND)
    axes.plot(points.fpr, points.tpr, color=INK, label=f"AUROC {records.metric('auroc')}")
    specificity = _value(records, "specificity")
    chosen = None if specificity is None else 1 - specificity
    _operating_point(axes, chosen, _value(records, "sensitivity"), records.threshold)
    unit_square(axes)
    axes.legend(loc="lower right")
    return figure


def precision_recall(records: Records) -> Figure | None:
    """The precision-recall curve with its band and the operating point."""
    points = curves_of(records, records.split)
    if points is None:
        return None
    title = f"Precision and recall, {records.split} split"
    figure, axes = sheet(title, "Recall (sensitivity)", "Precision", 5.2)
    table = records.scored(records.split)
    prevalence = table["label"].mean()
    axes.axhline(prevalence, linestyle="--", color=MUTED, linewidth=1, label=f"By chance {decimals(prevalence)}")
    places, low, high = precision_recall_band(Replicates(table, DRAWN))
    if len(places):
        axes.fill_between(places, low, high, step="pre", label="95 % band", **BAND)
    label = f"Average precision {records.metric('average_precision')}"
    axes.plot(points.recall, points.precision, color=INK, drawstyle="steps-pre", label=label)
    _operating_point(axes, _value(records, "sensitivity"), _value(records, "precision"), records.threshold)
    unit_square(axes)
    axes.legend(loc="lower left")
    return figure


def decision_curve(records: Records) -> Figure | None:
    """Net benefit of the model beside acting on all images and on none."""
    points = records.judged.get("decision_curve")
    if not points:
        return None
    figure, axes = sheet(
        f"Decision curve, {records.split} split", "Probability from which one acts", "Net benefit", 4.8
    )
    places = [point["threshold"] for point in points]
    values = np.array([point["model"]["value"] for point in points], dtype=float)
    ends = [point["model"].get("ci95") or (np.nan, np.nan) for point in points]
    axes.axhline(0, color=MUTED, linewidth=1, label="Act on none")
    everyone = [point["all"]["value"] for point in points]
    axes.plot(places, everyone, "--", color=MUTED, linewidth=1.4, label="Act on all")
    axes.fill_between(places, [low for low, _ in ends], [high for _, high in ends], label="95 % band", **BAND)
    axes.plot(places, values, color=INK, label="Model")
    if records.threshold is not None:
        label = f"Threshold {decimals(records.threshold)}"
        axes.axvline(records.threshold, linestyle="--", color=POSITIVE, linewidth=1.2, label=label)
    highest = max(float(np.nanmax(values)), everyone[0], *(high for _, high in ends if np.isfinite(high)), 0.05)
    axes.set(xlim=(0, 1), ylim=(-0.25 * highest, 1.1 * highest))
    legend_below(figure, 3)
    return figure


def _value(records: Records, name: str) -> float | None:
    return (records.judged.get(name) or {}).get("value")


def _operating_point(axes: Axes, x: float | None, y: float | None, threshold: float | None) -> None:
    if x is not None and y is not None:
        label = f"Operating point, threshold {decimals(threshold)}"
        axes.plot(x, y, "o", color=POSITIVE, markersize=9, markeredgecolor="white", label=label, zorder=4)


CURVES: Drawings = {"roc": roc, "precision_recall": precision_recall, "decision_curve": decision_curve}
