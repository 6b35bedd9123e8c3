"""Figures of an exploration, drawn from its statistics.json and sample.csv."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from tumortrace.reports.exploration_counts import COUNTS
from tumortrace.reports.exploration_maps import MAPS
from tumortrace.reports.exploration_sheet import (
    CLASS_COLOURS,
    WIDTH,
    legend_below,
    percent_axis,
    save_figure,
    sheet,
    short,
)
from tumortrace.reports.figures import INK, STYLE
from tumortrace.reports.records import called, read_json, read_table

CHANNELS = {"red": "#b8332a", "green": "#2e8540", "blue": "#3355c4"}


def draw_exploration(folder: Path) -> list[str]:
    """Draw every figure that the numbers of an exploration allow, as PNG (150 dpi) and SVG in `figures/`.

    Args:
        folder: Holds statistics.json and sample.csv.

    Returns:
        Names of the figures drawn, without ending.

    Raises:
        RunError: A record is damaged.
    """
    statistics, table = read_json(Path(folder) / "statistics.json"), read_table(Path(folder) / "sample.csv")
    drawn = []
    for name, draw in FIGURES.items():
        with rc_context(STYLE):
            figure = draw(statistics, table)
            if figure is not None:
                save_figure(figure, Path(folder) / "figures", name)
                drawn.append(name)
    return drawn


def _intensity(statistics: dict[str, Any], table: pd.DataFrame) -> Figure:
    sample = statistics["sample"]
    figure, axes = sheet("Pixel values, all images", "Pixel value", "Share of pixels", 4.2)
    edges = np.linspace(0, 256, sample["intensity"]["bins"] + 1)
    for channel, colour in _channels(sample).items():
        shares = np.array(sample["intensity"]["all"][channel])
        axes.stairs(shares, edges, color=colour, linewidth=1.8, label=channel.capitalize() if colour != INK else "Grey")
        axes.stairs(shares, edges, color=colour, fill=True, alpha=0.1)
    _value_axis(axes)
    legend_below(figure)
    return figure


def _channels(sample: dict[str, Any]) -> dict[str, str]:
    """The channels to draw with their colours: one where all images are grey."""
    return CHANNELS if sample["grey"] < sample["images"] else {"red": INK}


def _value_axis(axes: Axes) -> None:
    axes.set(xlim=(0, 256), xticks=[0, 64, 128, 192, 255])
    axes.set_ylim(0)
    axes.yaxis.set_major_locator(MaxNLocator(4))
    percent_axis(axes.yaxis)


def _by_class(
    statistics: dict[str, Any], title: str, x: str, shares: Callable[[dict[str, Any], str], np.ndarray]
) -> Figure:
    """One panel per channel, one outline per class."""
    sample = statistics["sample"]
    channels = list(_channels(sample))
    figure = Figure(figsize=(WIDTH, 1.2 + 1.75 * len(channels)), layout="constrained")
    panels = figure.subplots(len(channels), 1, sharex=True, squeeze=False)[:, 0]
    for axes, channel in zip(panels, channels, strict=True):
        for each in sample["classes"]:
            values = shares(each, channel)
            edges = np.linspace(0, 256, len(values) + 1)
            colour = CLASS_COLOURS[each["label"]]
            label = short(called(each["name"])) if axes is panels[0] else None
            axes.stairs(values, edges, color=colour, linewidth=1.8, label=label)
            axes.stairs(values, edges, color=colour, fill=True, alpha=0.14)
        _value_axis(axes)
        if len(channels) > 1:
            style: dict[str, Any] = {"color": CHANNELS[channel], "fontweight": "bold", "va": "top"}
            axes.text(0.015, 0.94, channel.capitalize(), transform=axes.transAxes, **style)
    panels[0].set_title(title)
    panels[-1].set_xlabel(x)
    legend_below(figure)
    return figure


def _intensity_by_class(statistics: dict[str, Any], table: pd.DataFrame) -> Figure | None:
    classes = statistics["sample"]["intensity"]["classes"]
    if len(classes) < 2:
        return None
    by_label = {each["label"]: each for each in classes}
    return _by_class(
        statistics,
        "Pixel values by class",
        "Pixel value",
        lambda each, channel: np.array(by_label[each["label"]][channel]),
    )


def _mean_colour(statistics: dict[str, Any], table: pd.DataFrame) -> Figure:
    labels = table["label"].fillna(2).astype(int)
    bins = 32 if len(table) >= 200 else 16

    def shares(each: dict[str, Any], channel: str) -> np.ndarray:
        means = table.loc[labels == each["label"], f"{channel}_mean"]
        return np.histogram(means, bins, (0, 256))[0] / max(1, len(means))

    what = "colour" if len(_channels(statistics["sample"])) > 1 else "brightness"
    return _by_class(statistics, f"Mean {what} of each image", "Mean of the image's pixels", shares)


FIGURES: dict[str, Callable[[dict[str, Any], pd.DataFrame], Figure | None]] = {
    **COUNTS,
    "intensity": _intensity,
    "intensity_by_class": _intensity_by_class,
    "mean_colour": _mean_colour,
    **MAPS,
}
