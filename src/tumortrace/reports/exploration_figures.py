"""Figures of an exploration, drawn from its statistics.json and sample.csv."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke
from matplotlib.ticker import MaxNLocator, StrMethodFormatter

from tumortrace.records.data import (
    ExplorationRecord,
    ExploredCohort,
    ExploredSample,
    GroupImages,
    Groups,
    GroupStains,
    Stains,
)
from tumortrace.reports.drawing import (
    CHANNELS,
    CLASS_COLOURS,
    FAINT,
    INK,
    LINES,
    POSITIVE,
    WIDTH,
    Drawings,
    legend_below,
    name_rows,
    percent_axis,
    sheet,
    short,
)
from tumortrace.reports.wording import called

MOST_GROUPS = 120  # drawn side by side
GROUP_COLOURS = (*LINES[:5], "#999933", "#332288", "#44aa99")
STAINS = ("haematoxylin", "eosin")
MARKERS = "osD^vPX*"
Part = tuple[str, pd.DataFrame, str, str]  # name, rows, colour, marker


@dataclass(frozen=True)
class Exploration:
    """What an exploration has on record, and a row for each image of the sample."""

    record: ExplorationRecord
    table: pd.DataFrame


def _intensity(exploration: Exploration) -> Figure:
    sample = exploration.record.sample
    figure, axes = sheet("Pixel values, all images", "Pixel value", "Share of pixels", 4.2)
    edges = np.linspace(0, 256, sample.intensity.bins + 1)
    for channel, colour in _channels(sample).items():
        shares = np.array(sample.intensity.all[channel])
        axes.stairs(shares, edges, color=colour, linewidth=1.8, label=channel.capitalize() if colour != INK else "Grey")
        axes.stairs(shares, edges, color=colour, fill=True, alpha=0.1)
    _value_axis(axes)
    legend_below(figure, 3)
    return figure


def _channels(sample: ExploredSample) -> dict[str, str]:
    """The channels to draw with their colours: one where all images are grey."""
    return CHANNELS if sample.grey < sample.images else {"red": INK}


def _value_axis(axes: Axes) -> None:
    axes.set(xlim=(0, 256), xticks=[0, 64, 128, 192, 255])
    axes.set_ylim(0)
    axes.yaxis.set_major_locator(MaxNLocator(4))
    percent_axis(axes.yaxis)


def _by_class(exploration: Exploration, title: str, x: str, shares: Callable[[Any, str], np.ndarray]) -> Figure:
    """One panel per channel, one outline per class."""
    sample = exploration.record.sample
    channels = list(_channels(sample))
    figure = Figure(figsize=(WIDTH, 1.2 + 1.75 * len(channels)), layout="constrained")
    panels = figure.subplots(len(channels), 1, sharex=True, squeeze=False)[:, 0]
    for axes, channel in zip(panels, channels, strict=True):
        for part in sample.classes:
            values = shares(part, channel)
            edges = np.linspace(0, 256, len(values) + 1)
            colour = CLASS_COLOURS[part.label]
            label = short(called(part.name)) if axes is panels[0] else None
            axes.stairs(values, edges, color=colour, linewidth=1.8, label=label)
            axes.stairs(values, edges, color=colour, fill=True, alpha=0.14)
        _value_axis(axes)
        if len(channels) > 1:
            style: Any = {"color": CHANNELS[channel], "fontweight": "bold", "va": "top"}
            axes.text(0.015, 0.94, channel.capitalize(), transform=axes.transAxes, **style)
    panels[0].set_title(title)
    panels[-1].set_xlabel(x)
    legend_below(figure, 3)
    return figure


def _intensity_by_class(exploration: Exploration) -> Figure | None:
    classes = exploration.record.sample.intensity.classes
    if len(classes) < 2:
        return None
    by_label = {part.label: part for part in classes}
    return _by_class(
        exploration,
        "Pixel values by class",
        "Pixel value",
        lambda part, channel: np.array(by_label[part.label].extra[channel]),
    )


def _mean_colour(exploration: Exploration) -> Figure:
    labels = exploration.table["label"].fillna(2).astype(int)
    bins = 32 if len(exploration.table) >= 200 else 16

    def shares(part: Any, channel: str) -> np.ndarray:
        means = exploration.table.loc[labels == part.label, f"{channel}_mean"]
        return np.histogram(means, bins, (0, 256))[0] / max(1, len(means))

    what = "colour" if len(_channels(exploration.record.sample)) > 1 else "brightness"
    return _by_class(exploration, f"Mean {what} of each image", "Mean of the image's pixels", shares)


def _classes(exploration: Exploration) -> Figure:
    classes = exploration.record.cohort.classes
    figure, axes = sheet("Images by class", "", "", 1.1 + 0.62 * len(classes))
    counts = [part.images for part in classes]
    axes.barh(range(len(classes)), counts, height=0.64, color=[CLASS_COLOURS[part.label] for part in classes])
    for row, count in enumerate(counts):
        text = f"{count:,}  ({100 * count / sum(counts):.1f} %)"
        axes.annotate(text, (count, row), (6, 0), textcoords="offset points", va="center", fontweight="bold")
    name_rows(axes, [short(called(part.name), 16) for part in classes], 12)
    axes.set(xlim=(0, 1.42 * max(counts)), xticks=[])
    axes.spines[["left", "bottom"]].set_visible(False)
    axes.invert_yaxis()
    axes.grid(False)
    return figure


def _groups(exploration: Exploration) -> Figure | None:
    """Images of each slide or patient, and below them the share of positives with its interval."""
    cohort = exploration.record.cohort
    groups = cohort.groups or Groups()
    shown = groups.each[:MOST_GROUPS]
    if len(shown) < 2:
        return None
    labelled = cohort.prevalence is not None
    figure = Figure(figsize=(WIDTH, 5.4 if labelled else 3.6), layout="constrained")
    panels = figure.subplots(1 + labelled, 1, sharex=True, squeeze=False, height_ratios=(3, 2)[: 1 + labelled])[:, 0]
    above, lowest = panels[0], panels[-1]
    places, width = np.arange(len(shown)), 0.9 if len(shown) < 40 else 1.0
    bottom = np.zeros(len(shown))
    for part in cohort.classes:
        counts = np.array([_of_class(group, part.label) for group in shown])
        style: Any = {"color": CLASS_COLOURS[part.label], "label": short(called(part.name))}
        above.bar(places, counts, width, bottom, **style)
        bottom += counts
    several = "the largest " if len(shown) < groups.count else ""
    above.set(title=f"{several.capitalize()}{len(shown)} slides or patients", ylabel="Images")
    above.yaxis.set_major_locator(MaxNLocator(5, integer=True))
    if labelled:
        _shares(lowest, shown, cohort)
    lowest.set_xlabel("Largest first")
    if len(shown) <= 12:
        lowest.set_xticks(places, [short(group.group, 12) for group in shown], rotation=35, ha="right")
    else:
        lowest.set_xticks([])
    for axes in panels:
        axes.grid(axis="x", visible=False)
        axes.margins(x=0.01)
    legend_below(figure, 3)
    return figure


def _shares(axes: Axes, groups: list[GroupImages], cohort: ExploredCohort) -> None:
    """The share of positives of each group with its interval, and that of all."""
    known = [(place, group) for place, group in enumerate(groups) if group.prevalence is not None]
    share = np.array([group.prevalence for _, group in known])
    ends = np.array([group.ci95 for _, group in known]).reshape(-1, 2)
    style: Any = {"fmt": "o", "color": POSITIVE, "elinewidth": 0.9}
    size = 6 if len(groups) < 40 else 3
    axes.errorbar([place for place, _ in known], share, np.abs(ends.T - share), markersize=size, **style)
    axes.axhline(cohort.prevalence or 0, linestyle="--", color=INK, linewidth=1)
    axes.set(ylabel=f"Share of {short(called(cohort.positive_class), 14)}", ylim=(-0.03, 1.03))
    percent_axis(axes.yaxis)


def _of_class(group: GroupImages, label: int) -> int:
    counts = (group.labelled - group.positives, group.positives, group.images - group.labelled)
    return int(counts[label])


def _sizes(exploration: Exploration) -> Figure | None:
    sizes = exploration.record.sample.sizes
    if len(sizes) < 2:
        return None
    images = np.array([size.images for size in sizes])
    usual = f"{sizes[0].width} × {sizes[0].height}"
    title = f"Sizes: {100 * images[0] / images.sum():.1f} % are {usual}"
    figure, axes = sheet(title, "Width in pixels", "Height in pixels", 4.6)
    area = 14 + 900 * images / images.sum()
    places = [size.width for size in sizes], [size.height for size in sizes]
    axes.scatter(*places, area, color=INK, alpha=0.55, linewidth=0, clip_on=False, zorder=3)
    axes.set(xlim=(0, 1.05 * max(places[0])), ylim=(0, 1.08 * max(places[1])))
    return figure


def _stains(exploration: Exploration) -> Figure | None:
    """Each image's two stain vectors, as points in the colour that the stain has."""
    stains = exploration.record.stains
    if not stains.applies:
        return None
    figure, axes = sheet("Stains of each image", "Red absorbed", "Blue absorbed", 5.0)
    for stain, marker in zip(STAINS, "oD", strict=True):
        columns = [f"{stain}_{channel}" for channel in ("red", "green", "blue")]
        vectors = exploration.table[columns].dropna().to_numpy()
        size = 26 if len(vectors) < 300 else 12
        style: Any = {"c": _rendered(vectors), "s": size, "marker": marker, "linewidth": 0, "alpha": 0.75}
        axes.scatter(vectors[:, 0], vectors[:, 2], rasterized=True, **style)
        red, _, blue = _vector(stains, stain)
        axes.plot(red, blue, marker, color="white", markeredgecolor=INK, markeredgewidth=1.8, markersize=9, zorder=4)
        halo = [withStroke(linewidth=4, foreground="white")]
        style = {"ha": "center", "fontweight": "bold", "path_effects": halo, "zorder": 5}
        axes.annotate(stain.capitalize(), (red, blue), (0, 12), textcoords="offset points", **style)
    every = (
        exploration.table[[f"{stain}_{channel}" for stain in STAINS for channel in ("red", "blue")]].dropna().to_numpy()
    )
    low, high = np.percentile(every.reshape(-1, 2), (0.5, 99.5), axis=0)
    reach = 0.58 * max(high - low)  # far outliers are left outside
    (left, bottom), (right, top) = (low + high) / 2 - reach, (low + high) / 2 + reach
    axes.set(xlim=(left, right), ylim=(bottom, top))
    axes.set_aspect("equal")
    return figure


def _vector(stains: Stains | GroupStains, name: str) -> list[float]:
    stain = stains.haematoxylin if name == STAINS[0] else stains.eosin
    return stain.vector if stain else [np.nan] * 3


def _rendered(vectors: np.ndarray, density: float = 1.1) -> np.ndarray:
    """The colour of light that has passed a stain of this optical density (natural logarithm)."""
    return np.clip(np.exp(-density * vectors), 0, 1)


def _stains_by_group(exploration: Exploration) -> Figure | None:
    """The colour of both stains in each slide or patient, side by side, from blue to red haematoxylin."""
    groups = [group for group in exploration.record.stains.groups if group.images >= 3]
    if len(groups) < 2:
        return None
    groups = sorted(groups, key=lambda group: -group.images)[:MOST_GROUPS]
    groups = sorted(groups, key=lambda group: group.haematoxylin.vector[2] - group.haematoxylin.vector[0])
    colours = np.array([[_rendered(np.array(_vector(group, stain))) for group in groups] for stain in STAINS])
    figure, axes = sheet(f"Stain colours of {len(groups)} slides or patients", "One column each", "", 2.6)
    axes.imshow(colours, aspect="auto", interpolation="nearest")
    axes.set_yticks([0, 1], [stain.capitalize() for stain in STAINS])
    axes.set_xticks([])
    axes.axhline(0.5, color="white", linewidth=3)
    axes.tick_params(length=0, labelcolor=INK)
    axes.spines[:].set_visible(False)
    axes.grid(False)
    return figure


def _map(method: str, by: str) -> Callable[[Exploration], Figure | None]:
    """The figure of a map, `pca` or `umap`, coloured by `class` or `group`."""

    def draw(exploration: Exploration) -> Figure | None:
        record, table = exploration.record, exploration.table
        columns = [f"{method}_1", f"{method}_2"]
        if columns[0] not in table or table[columns[0]].std() == 0 or len(table) < 3:
            return None
        parts = _class_parts(exploration) if by == "class" else _group_parts(table)
        if len(parts) < 2:
            return None
        title = "Map by class" if by == "class" else "The same map by slide or patient"
        x, y = "UMAP 1", "UMAP 2"
        if method == "pca":
            shares = record.map.explained_variance
            x, y = (f"Component {n} ({100 * share:.0f} % of variance)" for n, share in enumerate(shares, 1))
        figure, axes = sheet(title, x, y, 5.4)
        size = float(np.clip(24000 / len(table), 5, 40))
        order = np.argsort(np.concatenate([part.index.to_numpy() for _, part, _, _ in parts]), kind="stable")
        if by == "class":  # in the order of the table, so that no class lies on top
            colours = np.concatenate([np.repeat(colour, len(part)) for _, part, colour, _ in parts])[order]
            points = pd.concat([part for _, part, _, _ in parts]).iloc[order]
            style: Any = {"s": size, "alpha": 0.6, "linewidth": 0, "rasterized": True}
            axes.scatter(points[columns[0]], points[columns[1]], c=colours, **style)
            for name, _, colour, _ in parts:
                axes.scatter([], [], color=colour, label=name, s=36)
        else:
            for name, part, colour, marker in parts:
                style = {"color": colour, "marker": marker, "label": name, "linewidth": 0, "rasterized": True}
                axes.scatter(part[columns[0]], part[columns[1]], size if colour == FAINT else 1.8 * size, **style)
        axes.xaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
        legend_below(figure, 3)
        return figure

    return draw


def _class_parts(exploration: Exploration) -> list[Part]:
    table = exploration.table
    labels = table["label"].fillna(2).astype(int)
    return [
        (short(called(part.name)), table[labels == part.label], CLASS_COLOURS[part.label], "o")
        for part in exploration.record.sample.classes
    ]


def _group_parts(table: pd.DataFrame) -> list[Part]:
    """The groups with the most images in colours of their own, the others together and faint beneath them."""
    if "group" not in table or table["group"].nunique() < 2:
        return []
    largest = table["group"].value_counts(sort=True).index[: len(GROUP_COLOURS)]
    rest = table[~table["group"].isin(largest)]
    parts: list[Part] = [("others", rest, FAINT, "o")] if len(rest) else []
    styles = zip(largest, GROUP_COLOURS, MARKERS, strict=False)
    return parts + [
        (short(str(name), 14), table[table["group"] == name], colour, mark) for name, colour, mark in styles
    ]


FIGURES: Drawings = {
    "classes": _classes,
    "groups": _groups,
    "sizes": _sizes,
    "intensity": _intensity,
    "intensity_by_class": _intensity_by_class,
    "mean_colour": _mean_colour,
    "stains": _stains,
    "stains_by_group": _stains_by_group,
    "map_class": _map("pca", "class"),
    "map_group": _map("pca", "group"),
    "umap_class": _map("umap", "class"),
    "umap_group": _map("umap", "group"),
}
