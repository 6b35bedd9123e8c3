"""Figures of an exploration that count: classes, slides or patients, sizes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from tumortrace.reports.exploration_sheet import CLASS_COLOURS, MOST_GROUPS, WIDTH, percent_axis, sheet, short
from tumortrace.reports.figures import INK, POSITIVE
from tumortrace.reports.records import called


def _classes(statistics: dict[str, Any], table: pd.DataFrame) -> Figure:
    classes = statistics["cohort"]["classes"]
    figure, axes = sheet("Images by class", "", "", 1.1 + 0.62 * len(classes))
    counts = [each["images"] for each in classes]
    axes.barh(range(len(classes)), counts, height=0.64, color=[CLASS_COLOURS[each["label"]] for each in classes])
    for row, count in enumerate(counts):
        text = f"{count:,}  ({100 * count / sum(counts):.1f} %)"
        axes.annotate(text, (count, row), (6, 0), textcoords="offset points", va="center", fontweight="bold")
    axes.set_yticks(range(len(classes)), [short(called(each["name"]), 16) for each in classes])
    axes.tick_params(axis="y", length=0, labelcolor=INK, labelsize=12)
    axes.set(xlim=(0, 1.42 * max(counts)), xticks=[])
    axes.spines[["left", "bottom"]].set_visible(False)
    axes.invert_yaxis()
    axes.grid(False)
    return figure


def _groups(statistics: dict[str, Any], table: pd.DataFrame) -> Figure | None:
    """Images of each slide or patient, and below them the share of positives with its interval."""
    cohort = statistics["cohort"]
    shown = cohort["groups"]["each"][:MOST_GROUPS]
    if len(shown) < 2:
        return None
    labelled = cohort["prevalence"] is not None
    figure = Figure(figsize=(WIDTH, 5.4 if labelled else 3.6), layout="constrained")
    panels = figure.subplots(1 + labelled, 1, sharex=True, squeeze=False, height_ratios=(3, 2)[: 1 + labelled])[:, 0]
    above, lowest = panels[0], panels[-1]
    places, width = np.arange(len(shown)), 0.9 if len(shown) < 40 else 1.0
    bottom = np.zeros(len(shown))
    for each in cohort["classes"]:
        counts = np.array([_of_class(group, each["label"]) for group in shown])
        style: dict[str, Any] = {"color": CLASS_COLOURS[each["label"]], "label": short(called(each["name"]))}
        above.bar(places, counts, width, bottom, **style)
        bottom += counts
    several = "the largest " if len(shown) < cohort["groups"]["count"] else ""
    above.set(title=f"{several.capitalize()}{len(shown)} slides or patients", ylabel="Images")
    above.yaxis.set_major_locator(MaxNLocator(5, integer=True))
    if labelled:
        _shares(lowest, shown, cohort)
    lowest.set_xlabel("Largest first")
    if len(shown) <= 12:
        lowest.set_xticks(places, [short(group["group"], 12) for group in shown], rotation=35, ha="right")
    else:
        lowest.set_xticks([])
    for axes in panels:
        axes.grid(axis="x", visible=False)
        axes.margins(x=0.01)
    handles, labels = above.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=3, columnspacing=1.4, handlelength=1.2)
    return figure


def _shares(axes: Axes, groups: list[dict[str, Any]], cohort: dict[str, Any]) -> None:
    """The share of positives of each group with its interval, and that of all."""
    known = [(place, group) for place, group in enumerate(groups) if group["prevalence"] is not None]
    share = np.array([group["prevalence"] for _, group in known])
    ends = np.array([group["ci95"] for _, group in known]).reshape(-1, 2)
    style: dict[str, Any] = {"fmt": "o", "color": POSITIVE, "elinewidth": 0.9}
    size = 6 if len(groups) < 40 else 3
    axes.errorbar([place for place, _ in known], share, np.abs(ends.T - share), markersize=size, **style)
    axes.axhline(cohort["prevalence"], linestyle="--", color=INK, linewidth=1)
    axes.set(ylabel=f"Share of {short(called(cohort['positive_class']), 14)}", ylim=(-0.03, 1.03))
    percent_axis(axes.yaxis)


def _of_class(group: dict[str, Any], label: int) -> int:
    counts = (group["labelled"] - group["positives"], group["positives"], group["images"] - group["labelled"])
    return int(counts[label])


def _sizes(statistics: dict[str, Any], table: pd.DataFrame) -> Figure | None:
    sizes = statistics["sample"]["sizes"]
    if len(sizes) < 2:
        return None
    images = np.array([size["images"] for size in sizes])
    usual = f"{sizes[0]['width']} × {sizes[0]['height']}"
    title = f"Sizes: {100 * images[0] / images.sum():.1f} % are {usual}"
    figure, axes = sheet(title, "Width in pixels", "Height in pixels", 4.6)
    area = 14 + 900 * images / images.sum()
    places = [size["width"] for size in sizes], [size["height"] for size in sizes]
    axes.scatter(*places, area, color=INK, alpha=0.55, linewidth=0, clip_on=False, zorder=3)
    axes.set(xlim=(0, 1.05 * max(places[0])), ylim=(0, 1.08 * max(places[1])))
    return figure


COUNTS: dict[str, Callable[[dict[str, Any], pd.DataFrame], Figure | None]] = {
    "classes": _classes,
    "groups": _groups,
    "sizes": _sizes,
}
