"""The HTML report of a comparison of runs, from what its folder has on record."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from tumortrace.evaluation.centres import TITLES as CENTRE_TITLES
from tumortrace.evaluation.class_measures import TITLES as CLASS_TITLES
from tumortrace.evaluation.curves import curves
from tumortrace.evaluation.measures import MEASURES, TITLES
from tumortrace.records.evaluation import ComparisonRecord, Difference
from tumortrace.records.metrics import Estimate, SplitMetrics
from tumortrace.records.tables import PREDICTIONS
from tumortrace.reports.drawing import (
    COLOURS,
    INK,
    MUTED,
    Drawings,
    draw_figures,
    ends,
    legend_below,
    name_rows,
    sheet,
    short,
    unit_square,
)
from tumortrace.reports.page import write_page
from tumortrace.reports.wording import decimals, interval, p_text, signed

REPORT = "compare.html"


def write_compare_report(folder: Path) -> Path:
    """Write compare.html: the runs' metrics, their differences with intervals and tests, and figures.

    Args:
        folder: Folder of a comparison; its compare.json and predictions.csv are read.

    Returns:
        Path of compare.html, in the same folder.

    Raises:
        RunError: There is no such folder, or a record is damaged.
    """
    folder = Path(folder)
    comparison = Comparison(ComparisonRecord.read(folder), PREDICTIONS.find(folder))
    return write_page(
        folder / REPORT,
        "compare.html.j2",
        draw_figures(folder, FIGURES, comparison),
        outcome=comparison.outcome.as_json(),
        runs={name: metrics.as_json() for name, metrics in comparison.runs.items()},
        verdict=_verdict(comparison),
        metric_names=TITLES,
        class_names=CLASS_TITLES,
        centre_titles=CENTRE_TITLES,
    )


@dataclass(frozen=True)
class Comparison:
    """What the folder of a comparison has on record; a missing table is empty."""

    outcome: ComparisonRecord
    predictions: pd.DataFrame

    @property
    def runs(self) -> dict[str, SplitMetrics]:
        """Metrics with intervals by the run's name."""
        return {run.name: run.metrics for run in self.outcome.runs}

    @property
    def to_the_first(self) -> dict[str, Difference]:
        """Differences to the first run by the other's name."""
        first = next(iter(self.runs), None)
        return {pair.second: pair for pair in self.outcome.differences if pair.first == first}

    def colour(self, name: str) -> str:
        """The same colour for a run in every figure."""
        return COLOURS[list(self.runs).index(name) % len(COLOURS)]


def _verdict(comparison: Comparison) -> list[str]:
    outcome = comparison.outcome
    groups = f" of {outcome.groups:,} groups (slides or patients)" if outcome.groups else ""
    sentences = [f"{len(comparison.runs)} sets of predictions of the same {outcome.images:,} images{groups}."]
    for pair in comparison.to_the_first.values():
        entry, test = pair.metrics["auroc"], pair.delong
        if entry.value is not None:
            tested = "no test is defined" if test.p is None else f"corrected p {p_text(test.p_holm)}"
            text = f"AUROC of {pair.second} minus that of {pair.first}"
            sentences.append(f"{text}: {signed(entry.value)}{interval(entry, ' ')} ({tested}).")
    return sentences


def _auroc(comparison: Comparison) -> Figure | None:
    entries = {name: metrics["auroc"] for name, metrics in comparison.runs.items()}
    if not any(entry.value is not None for entry in entries.values()):
        return None
    figure, axes = sheet("AUROC with 95 % interval", "AUROC", "", 1.5 + 0.5 * len(entries))
    for place, (name, entry) in enumerate(entries.items()):
        _dot(axes, entry, place, comparison.colour(name))
    _names(axes, list(entries))
    return figure


def _differences(comparison: Comparison) -> Figure | None:
    """A row per metric, a dot per run; what has a scale of its own, as the log loss, is left to the table."""
    others = comparison.to_the_first
    names = [metric for metric, row in MEASURES.items() if math.isfinite(row.bounds[1])]
    if not others:
        return None
    first = next(iter(comparison.runs))
    height = 1.6 + len(names) * (0.26 + 0.14 * len(others))
    figure, axes = sheet("Differences to the first run", f"Run minus {short(first)}", "", height)
    axes.axvline(0, color=INK, linewidth=1)
    for number, (name, pair) in enumerate(others.items()):
        offset = 0.6 * ((number + 0.5) / len(others) - 0.5)
        for place, metric in enumerate(names):
            _dot(
                axes,
                pair.metrics.get(metric),
                place + offset,
                comparison.colour(name),
                short(name, 40) if place == 0 else "",
            )
    _names(axes, [TITLES[metric] for metric in names])
    legend_below(figure, 1)
    return figure


def _dot(axes: Axes, entry: Estimate | None, place: float, colour: str, label: str = "") -> None:
    if entry and entry.value is not None:
        axes.plot(entry.value, place, "o", color=colour, markersize=6, label=label, zorder=3)
        axes.plot(ends(entry), [place, place], "-", color=colour, linewidth=1.8, zorder=2)


def _names(axes: Axes, names: list[str]) -> None:
    name_rows(axes, [short(name, 26) for name in names])
    axes.set_ylim(len(names) - 0.45, -0.55)


def _roc(comparison: Comparison) -> Figure | None:
    table = comparison.predictions
    if table.empty or table["label"].nunique() < 2:
        return None
    figure, axes = sheet("ROC curves", "1 − specificity", "Sensitivity", 5.4)
    axes.plot([0, 1], [0, 1], "--", color=MUTED, linewidth=1)
    for name, metrics in comparison.runs.items():
        part = table[table["run"] == name]
        points = curves(part["label"], part["probability"])
        colour = comparison.colour(name)
        label = f"{short(name, 30)}, AUROC {decimals(metrics['auroc'].value)}"
        axes.plot(points.fpr, points.tpr, color=colour, linewidth=1.6, label=label)
        specificity, sensitivity = metrics["specificity"].value, metrics["sensitivity"].value
        if specificity is not None and sensitivity is not None:
            axes.plot(1 - specificity, sensitivity, "o", color=colour, markersize=8, markeredgecolor="white", zorder=3)
    axes.plot([], [], "o", color=MUTED, markersize=8, label="At the run's own threshold")
    unit_square(axes)
    legend_below(figure, 1)
    return figure


FIGURES: Drawings = {
    "auroc": _auroc,
    "differences": _differences,
    "roc": _roc,
}
