"""Figures of an exploration that show each image as a point: stains, and maps by simple features."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke
from matplotlib.ticker import StrMethodFormatter

from tumortrace.reports.exploration_sheet import CLASS_COLOURS, MOST_GROUPS, legend_below, sheet, short
from tumortrace.reports.figures import INK, LINES
from tumortrace.reports.records import called

GROUP_COLOURS = (*LINES[:5], "#999933", "#332288", "#44aa99")
STAINS = ("haematoxylin", "eosin")
FAINT = "#d3d9de"
MARKERS = "osD^vPX*"


def _stains(statistics: dict[str, Any], table: pd.DataFrame) -> Figure | None:
    """Each image's two stain vectors, as points in the colour that the stain has."""
    stains = statistics["stains"]
    if not stains["applies"]:
        return None
    figure, axes = sheet("Stains of each image", "Red absorbed", "Blue absorbed", 5.0)
    for stain, marker in zip(STAINS, "oD", strict=True):
        columns = [f"{stain}_{channel}" for channel in ("red", "green", "blue")]
        vectors = table[columns].dropna().to_numpy()
        size = 26 if len(vectors) < 300 else 12
        style: dict[str, Any] = {"c": _rendered(vectors), "s": size, "marker": marker, "linewidth": 0, "alpha": 0.75}
        axes.scatter(vectors[:, 0], vectors[:, 2], rasterized=True, **style)
        red, _, blue = stains[stain]["vector"]
        axes.plot(red, blue, marker, color="white", markeredgecolor=INK, markeredgewidth=1.8, markersize=9, zorder=4)
        halo = [withStroke(linewidth=4, foreground="white")]
        style = {"ha": "center", "fontweight": "bold", "path_effects": halo, "zorder": 5}
        axes.annotate(stain.capitalize(), (red, blue), (0, 12), textcoords="offset points", **style)
    every = table[[f"{stain}_{channel}" for stain in STAINS for channel in ("red", "blue")]].dropna().to_numpy()
    low, high = np.percentile(every.reshape(-1, 2), (0.5, 99.5), axis=0)
    reach = 0.58 * max(high - low)  # far outliers are left outside
    (left, bottom), (right, top) = (low + high) / 2 - reach, (low + high) / 2 + reach
    axes.set(xlim=(left, right), ylim=(bottom, top))
    axes.set_aspect("equal")
    return figure


def _rendered(vectors: np.ndarray, density: float = 1.1) -> np.ndarray:
    """The colour of light that has passed a stain of this optical density (natural logarithm)."""
    return np.clip(np.exp(-density * vectors), 0, 1)


def _stains_by_group(statistics: dict[str, Any], table: pd.DataFrame) -> Figure | None:
    """The colour of both stains in each slide or patient, side by side, from blue to red haematoxylin."""
    groups = [group for group in statistics["stains"].get("groups", []) if group["images"] >= 3]
    if len(groups) < 2:
        return None
    groups = sorted(groups, key=lambda group: -group["images"])[:MOST_GROUPS]
    groups = sorted(groups, key=lambda group: group["haematoxylin"]["vector"][2] - group["haematoxylin"]["vector"][0])
    colours = np.array([[_rendered(np.array(group[stain]["vector"])) for group in groups] for stain in STAINS])
    figure, axes = sheet(f"Stain colours of {len(groups)} slides or patients", "One column each", "", 2.6)
    axes.imshow(colours, aspect="auto", interpolation="nearest")
    axes.set_yticks([0, 1], [stain.capitalize() for stain in STAINS])
    axes.set_xticks([])
    axes.axhline(0.5, color="white", linewidth=3)
    axes.tick_params(length=0, labelcolor=INK)
    axes.spines[:].set_visible(False)
    axes.grid(False)
    return figure


def _map(method: str, by: str) -> Callable[[dict[str, Any], pd.DataFrame], Figure | None]:
    """The figure of a map, `pca` or `umap`, coloured by `class` or `group`."""

    def draw(statistics: dict[str, Any], table: pd.DataFrame) -> Figure | None:
        columns = [f"{method}_1", f"{method}_2"]
        if columns[0] not in table or table[columns[0]].std() == 0 or len(table) < 3:
            return None
        parts = _class_parts(statistics, table) if by == "class" else _group_parts(table)
        if len(parts) < 2:
            return None
        title = "Map by class" if by == "class" else "The same map by slide or patient"
        x, y = "UMAP 1", "UMAP 2"
        if method == "pca":
            shares = statistics["map"]["explained_variance"]
            x, y = (f"Component {n} ({100 * share:.0f} % of variance)" for n, share in enumerate(shares, 1))
        figure, axes = sheet(title, x, y, 5.4)
        size = float(np.clip(24000 / len(table), 5, 40))
        order = np.argsort(np.concatenate([part.index.to_numpy() for _, part, _, _ in parts]), kind="stable")
        if by == "class":  # in the order of the table, so that no class lies on top
            colours = np.concatenate([np.repeat(colour, len(part)) for _, part, colour, _ in parts])[order]
            points = pd.concat([part for _, part, _, _ in parts]).iloc[order]
            style: dict[str, Any] = {"s": size, "alpha": 0.6, "linewidth": 0, "rasterized": True}
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


Part = tuple[str, pd.DataFrame, str, str]


def _class_parts(statistics: dict[str, Any], table: pd.DataFrame) -> list[Part]:
    labels = table["label"].fillna(2).astype(int)
    classes = statistics["sample"]["classes"]
    return [
        (short(called(each["name"])), table[labels == each["label"]], CLASS_COLOURS[each["label"]], "o")
        for each in classes
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


MAPS: dict[str, Callable[[dict[str, Any], pd.DataFrame], Figure | None]] = {
    "stains": _stains,
    "stains_by_group": _stains_by_group,
    "map_class": _map("pca", "class"),
    "map_group": _map("pca", "group"),
    "umap_class": _map("umap", "class"),
    "umap_group": _map("umap", "group"),
}
