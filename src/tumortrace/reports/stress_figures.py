"""Figures of a stress test, drawn from what its folder has on record."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from tumortrace.evaluation.measures import MEASURES
from tumortrace.reports.crossval import signed
from tumortrace.reports.exploration_sheet import WIDTH, draw_each, legend_below, percent_axis, sheet
from tumortrace.reports.figures import INK, MUTED, NEGATIVE

LOSS = LinearSegmentedColormap.from_list("loss", ["#f4f7f9", "#e8a56b", "#8c2f00"])
COLUMNS = 3  # panels side by side
LEAST_SCALE = 0.05  # AUROC lost at the dark end of the scale, at least: what is less should not look dark


def draw_stress_figures(folder: Path, record: dict[str, Any]) -> dict[str, Path]:
    """Draw what the record allows, as PNG and SVG in `figures/`; returns the SVG files by name.

    The figures are loss, auroc, thresholded, ece and symmetries.

    Args:
        folder: Of the stress test.
        record: The content of its stress.json.
    """
    return draw_each(folder, FIGURES, record)


def ordered(record: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """The corruptions whose strengths grow."""
    return {name: entry for name, entry in record.get("corruptions", {}).items() if entry["ordered"]}


def amount_text(amount: float, unit: str) -> str:
    """An amount as an axis shows it: shares as per cent.

    Example:
        >>> amount_text(0.08, "share of the side"), amount_text(1.5, "sigma, px")
        ('8 %', '1.5')
    """
    return f"{100 * amount:g} %" if "share" in unit else f"{amount:g}"


def loss_figure(record: dict[str, Any]) -> Figure | None:
    """By how much AUROC changes, corruption by strength; None where no AUROC is defined.

    Args:
        record: The content of a stress.json.
    """
    entries = ordered(record)
    width = max((len(entry["levels"]) for entry in entries.values()), default=0)
    values = np.full((len(entries), width), np.nan)
    for row, entry in zip(values, entries.values(), strict=True):
        for place, level in enumerate(entry["levels"]):
            value = level["difference"]["auroc"]["value"]
            row[place] = np.nan if value is None else value
    if not np.isfinite(values).any():
        return None
    figure, axes = sheet("Change of AUROC", "Strength", "", 1.5 + 0.33 * len(entries))
    most = max(LEAST_SCALE, float(-np.nanmin(values)))
    axes.imshow(np.ma.masked_invalid(-values), cmap=LOSS, vmin=0, vmax=most, aspect="auto")
    for y, entry in enumerate(entries.values()):
        for x, level in enumerate(entry["levels"]):
            change = level["difference"]["auroc"]
            dark = change["value"] is not None and -change["value"] > 0.6 * most
            sure = bool(change.get("ci95")) and not change["ci95"][0] <= 0 <= change["ci95"][1]
            colour, weight = "white" if dark else INK, "bold" if sure else "normal"
            axes.text(x, y, signed(change["value"]), ha="center", va="center", size=9, color=colour, weight=weight)
    axes.set_xticks(range(width), [str(place + 1) for place in range(width)])
    axes.set_yticks(range(len(entries)), [entry["label"] for entry in entries.values()])
    axes.tick_params(length=0, labelcolor=INK)
    axes.grid(visible=False)
    axes.spines[:].set_visible(False)
    return figure


def _panels(record: dict[str, Any], title: str, *metrics: str, lowest: float | None = None) -> Figure | None:
    """A panel for each corruption, a line with its interval for each metric; the clean value is dashed."""
    entries = ordered(record)
    if not entries:
        return None
    rows = -(-len(entries) // COLUMNS)
    figure = Figure(figsize=(1.35 * WIDTH, 1.1 + 1.75 * rows), layout="constrained")
    grid = figure.subplots(rows, COLUMNS, sharey=True, squeeze=False)
    for axes in grid.flat[len(entries) :]:
        axes.set_axis_off()
    for axes, entry in zip(grid.flat, entries.values(), strict=False):
        for metric in metrics:
            _curve(axes, record["clean"][metric], entry["levels"], metric, MEASURES[metric].colour)
        axes.set_title(entry["label"], fontsize=10, pad=4)
        ticks = [amount_text(level["amount"], entry["unit"]) for level in entry["levels"]]
        axes.set_xticks(range(len(ticks) + 1), ["clean", *ticks])
        axes.set_xlabel(entry["unit"], fontsize=8, labelpad=1)
        axes.tick_params(labelsize=7.5)
        axes.yaxis.set_major_locator(MaxNLocator(4))
    if lowest is not None:
        grid[0, 0].set_ylim(bottom=lowest)
    for metric in metrics:
        row = MEASURES[metric]
        grid[0, 0].plot([], [], "-o", markersize=3.5, color=row.colour, label=row.title)
    grid[0, 0].plot([], [], "--", color=MUTED, linewidth=1, label="Clean")
    legend_below(figure, len(metrics) + 1)
    figure.suptitle(title, fontsize=12.5, fontweight="bold", x=0.01, ha="left")
    return figure


def _curve(axes: Axes, clean: dict[str, Any], levels: list[dict[str, Any]], metric: str, colour: str) -> None:
    points = [clean, *(level["metrics"][metric] for level in levels)]
    values = [np.nan if point["value"] is None else point["value"] for point in points]
    ends = np.array([point.get("ci95") or [np.nan, np.nan] for point in points])
    places = np.arange(len(points))
    if np.isfinite(values[0]):
        axes.axhline(values[0], linestyle="--", color=colour if len(levels) < 2 else MUTED, linewidth=1)
    axes.fill_between(places, ends[:, 0], ends[:, 1], color=colour, alpha=0.18, linewidth=0)
    axes.plot(places, values, "-o", color=colour, markersize=3.5, linewidth=1.5)


def _symmetries(record: dict[str, Any]) -> Figure | None:
    """Share of calls that stay, for each quarter turn and mirroring."""
    entry = record.get("corruptions", {}).get("symmetry")
    if not entry or not entry["levels"]:
        return None
    figure, axes = sheet("Calls that stay when turned", "", "Share of images", 3.4)
    for place, level in enumerate(entry["levels"]):
        share = level["agreement"]
        axes.plot([place, place], share["ci95"], "-", color=NEGATIVE, linewidth=1.8)
        axes.plot(place, share["value"], "o", color=NEGATIVE, markersize=6)
    axes.set_xticks(range(len(entry["levels"])), [symmetry_text(int(level["amount"])) for level in entry["levels"]])
    axes.tick_params(axis="x", labelsize=8.5, length=0)
    lowest = min(level["agreement"]["ci95"][0] for level in entry["levels"])
    axes.set_ylim(min(lowest - 0.01, 0.98), 1.002)
    percent_axis(axes.yaxis)
    return figure


def symmetry_text(index: int) -> str:
    """What a symmetry of the square does, by its number.

    Example:
        >>> symmetry_text(1), symmetry_text(4), symmetry_text(6)
        ('90°', 'mirror', 'mirror\\n+ 180°')
    """
    turn = f"{90 * (index % 4)}°"
    return turn if index < 4 else "mirror" + (f"\n+ {turn}" if index % 4 else "")


FIGURES: dict[str, Callable[[dict[str, Any]], Figure | None]] = {
    "loss": loss_figure,
    "auroc": lambda record: _panels(record, "AUROC", "auroc"),
    "thresholded": lambda record: _panels(record, "At the model's threshold", "sensitivity", "specificity"),
    "ece": lambda record: _panels(record, "Calibration error", "ece", lowest=0),
    "symmetries": _symmetries,
}
