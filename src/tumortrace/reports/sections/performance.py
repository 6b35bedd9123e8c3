"""Sections on how well the model does: metrics and curves, by slide or patient, and on other data."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from tumortrace.evaluation.curves import DRAWN, precision_recall_band, roc_band
from tumortrace.evaluation.measures import prominent
from tumortrace.evaluation.replicates import Replicates
from tumortrace.reports.drawing import (
    BAND,
    INK,
    MUTED,
    NEGATIVE,
    POSITIVE,
    ends,
    legend_below,
    name_rows,
    number,
    sheet,
    short,
    unit_square,
)
from tumortrace.reports.page import Context
from tumortrace.reports.records import Records
from tumortrace.reports.story import evaluations
from tumortrace.reports.wording import decimals

OPEN = 12  # groups up to which their table is shown at once
NAMED = 40  # groups for whose names the figure has room


def tell_metrics(records: Records) -> Context | None:
    """`alt`, `by_class` and `operating_points` of the judged split; None where no metric is on record."""
    if not len(records.metrics):
        return None
    on = f"on the {records.split} split"
    return {
        "by_class": records.judged.classification_report,
        "operating_points": records.judged.operating_points,
        "alt": {
            "roc": f"ROC curve {on}: AUROC {records.metric('auroc')}",
            "precision_recall": f"Precision-recall curve {on}: average precision {records.metric('average_precision')}",
            "decision_curve": f"Net benefit by the probability from which one acts, {on}, of the model, all and none",
        },
    }


def draw_roc(records: Records) -> Figure | None:
    """The ROC curve with its band and the operating point."""
    points = records.curves(records.split)
    if points is None:
        return None
    figure, axes = sheet(f"ROC curve, {records.split} split", "1 − specificity", "Sensitivity", 5.2)
    axes.plot([0, 1], [0, 1], "--", color=MUTED, linewidth=1)
    places, low, high = roc_band(Replicates(records.scored(records.split), DRAWN))
    if len(places):
        axes.fill_between(places, low, high, label="95 % band", **BAND)
    axes.plot(points.fpr, points.tpr, color=INK, label=f"AUROC {records.metric('auroc')}")
    specificity = records.value("specificity")
    _mark_operating_point(axes, records, None if specificity is None else 1 - specificity, records.value("sensitivity"))
    unit_square(axes)
    axes.legend(loc="lower right")
    return figure


def draw_precision_recall(records: Records) -> Figure | None:
    """The precision-recall curve with its band and the operating point."""
    points = records.curves(records.split)
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
    _mark_operating_point(axes, records, records.value("sensitivity"), records.value("precision"))
    unit_square(axes)
    axes.legend(loc="lower left")
    return figure


def _mark_operating_point(axes: Axes, records: Records, x: float | None, y: float | None) -> None:
    if x is not None and y is not None:
        label = f"Operating point, threshold {decimals(records.threshold)}"
        axes.plot(x, y, "o", color=POSITIVE, markersize=9, markeredgecolor="white", label=label, zorder=4)


def draw_decision_curve(records: Records) -> Figure | None:
    """Net benefit of the model beside acting on all images and on none."""
    points = records.judged.decision_curve
    if not points:
        return None
    title = f"Decision curve, {records.split} split"
    figure, axes = sheet(title, "Probability from which one acts", "Net benefit", 4.8)
    places = [point.threshold for point in points]
    values = np.array([number(point.model) for point in points])
    everyone = np.array([number(point.all) for point in points])
    low, high = np.array([ends(point.model) for point in points]).T
    axes.axhline(0, color=MUTED, linewidth=1, label="Act on none")
    axes.plot(places, everyone, "--", color=MUTED, linewidth=1.4, label="Act on all")
    axes.fill_between(places, low, high, label="95 % band", **BAND)
    axes.plot(places, values, color=INK, label="Model")
    if records.threshold is not None:
        label = f"Threshold {decimals(records.threshold)}"
        axes.axvline(records.threshold, linestyle="--", color=POSITIVE, linewidth=1.2, label=label)
    highest = max(float(np.nanmax(values)), everyone[0], *high[np.isfinite(high)], 0.05)
    axes.set(xlim=(0, 1), ylim=(-0.25 * highest, 1.1 * highest))
    legend_below(figure, 3)
    return figure


def tell_groups(records: Records) -> Context | None:
    """`groups`, `subgroups` and `subgroup_metrics` of the judged split, and `alt`; None where there are none."""
    groups, subgroups = records.judged.groups or [], records.judged.subgroups
    if len(groups) < 2 and not subgroups:
        return None
    return {
        "groups": groups if len(groups) > 1 else [],
        "groups_open": len(groups) <= OPEN,
        "subgroups": subgroups,
        "subgroup_metrics": prominent(2),
        "alt": {"accuracy_by_group": f"Accuracy of {len(groups)} slides or patients on the {records.split} split"},
    }


def draw_accuracy_by_group(records: Records) -> Figure | None:
    """Accuracy of each slide or patient with Wilson's interval, the worst at the top."""
    groups = records.judged.groups or []
    if len(groups) < 2:
        return None
    groups = sorted(groups, key=lambda row: (-number(row["accuracy"]), -row.n))
    values = np.array([number(row["accuracy"]) for row in groups])
    low, high = np.array([ends(row["accuracy"]) for row in groups]).T
    named = len(groups) <= NAMED
    height = 1.4 + (0.24 * len(groups) if named else 5.0)
    figure, axes = sheet(f"Accuracy by slide or patient, {records.split} split", "Accuracy", "", height)
    error = np.maximum([values - low, high - values], 0)
    axes.errorbar(values, range(len(groups)), xerr=error, fmt="o", color=NEGATIVE, markersize=4, elinewidth=1)
    overall = records.value("accuracy")
    if overall is not None:
        axes.axvline(overall, linestyle="--", color=INK, linewidth=1)
    name_rows(axes, [f"{short(row.group)} ({row.n:,})" for row in groups] if named else [], 9)
    axes.set(xlim=(-0.02, 1.02), ylim=(-0.8, len(groups) - 0.2))
    return figure


def tell_elsewhere(records: Records) -> Context | None:
    """`evaluations` and the `columns` of their table; None where there is none."""
    made = evaluations(records)
    return {"evaluations": made, "columns": prominent()} if made else None
