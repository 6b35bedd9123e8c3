"""Pictures of an exploration: samples, mean images, edges."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib import colormaps, rc_context
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from skimage.color import rgb2gray
from skimage.filters import sobel

from tumortrace.reports.exploration_sheet import CLASS_COLOURS, WIDTH, short
from tumortrace.reports.figures import NEGATIVE, POSITIVE, STYLE
from tumortrace.reports.records import called

CENTRE = 32
LARGEST_OUTLINED = 256  # pixels of a side from which on an image is no patch whose centre decides
CENTRE_COLOUR = "#16a34a"
COLUMNS = 4
TITLE, GAP = 0.26, 0.012  # in cells: height of a title's line, and space around an image
EDGES = colormaps["magma"]
DIFFERENCE = LinearSegmentedColormap.from_list("difference", [NEGATIVE, "#f7f7f7", POSITIVE])


def samples_figure(images: list[np.ndarray], name: str, label: int) -> Figure:
    """A grid of images of one class, the centre 32x32 pixels outlined in green where they are patches.

    Args:
        images: uint8, shape (H, W, 3) each; sizes may differ.
        name: The class.
        label: 0, 1, or 2 for unlabelled.

    Example:
        >>> figure = samples_figure([np.zeros((96, 96, 3), np.uint8)] * 5, "normal", 0)
        >>> len(figure.axes[0].images), len(figure.axes[0].patches)
        (5, 5)
    """
    figure, axes = _grid(-(-len(images) // COLUMNS), [(0, name, label)])
    for number, image in enumerate(images):
        _place(axes, image, number % COLUMNS, number // COLUMNS, outlined=True)
    return figure


def edges_figure(images: dict[int, list[np.ndarray]], names: dict[int, str]) -> Figure:
    """Images of each class above their Sobel magnitude, all on one scale.

    Args:
        images: By label, up to four images, uint8, shape (H, W, 3).
        names: Class names by label.
    """
    edges = {label: [sobel(rgb2gray(image)) for image in part] for label, part in images.items()}
    top = max(float(np.percentile(edge, 99.5)) for part in edges.values() for edge in part) or 1.0
    tops = [row * (2 + TITLE) for row in range(len(images))]
    titles = [(top, names[label], label) for top, label in zip(tops, images, strict=True)]
    figure, axes = _grid(2 * len(images), titles)
    for start, (label, part) in zip(tops, images.items(), strict=True):
        for column, image in enumerate(part[:COLUMNS]):
            _place(axes, image, column, start)
            _place(axes, EDGES(np.clip(edges[label][column] / top, 0, 1))[..., :3], column, start + 1)
    return figure


def _grid(rows: int, titles: list[tuple[float, str, int]]) -> tuple[Figure, Axes]:
    """One pair of axes whose unit is a cell, `COLUMNS` wide, with a title above the cells that start at its row."""
    height = rows + TITLE * len(titles)
    with rc_context(STYLE):
        figure = Figure(figsize=(WIDTH, WIDTH * height / COLUMNS))
        axes = figure.add_axes((0, 0, 1, 1))
    axes.set_axis_off()
    axes.set(xlim=(0, COLUMNS), ylim=(height - TITLE, -TITLE), autoscale_on=False)
    for row, name, label in titles:
        style: dict[str, Any] = {"fontsize": 12.5, "fontweight": "bold", "color": CLASS_COLOURS[label]}
        axes.text(GAP, row - TITLE / 2, short(called(name), 40), va="center", parse_math=False, **style)
    return figure, axes


def _place(axes: Axes, image: np.ndarray, column: float, row: float, *, outlined: bool = False) -> None:
    """Draw an image into a cell, its longer side as wide as the cell; with its centre outlined if it is a patch."""
    height, width = image.shape[:2]
    pixel = (1 - 2 * GAP) / max(height, width)
    middle = (column + 0.5, row + 0.5)
    extent = _box(middle, width * pixel, height * pixel)
    step = max(1, max(height, width) // 512)
    enlarged = "nearest" if max(height, width) < 200 else "antialiased"
    axes.imshow(image[::step, ::step], extent=extent, interpolation=enlarged, aspect="auto")
    if outlined and min(height, width) > CENTRE and max(height, width) <= LARGEST_OUTLINED:
        left, _, _, top = _box(middle, CENTRE * pixel, CENTRE * pixel)
        style: dict[str, Any] = {"fill": False, "edgecolor": CENTRE_COLOUR, "linewidth": 1.6}
        axes.add_patch(Rectangle((left, top), CENTRE * pixel, CENTRE * pixel, **style))


def _box(middle: tuple[float, float], width: float, height: float) -> tuple[float, float, float, float]:
    """Left, right, bottom and top of a box in cells, whose rows count downwards."""
    x, y = middle
    return (x - width / 2, x + width / 2, y + height / 2, y - height / 2)


def mean_images_figure(means: dict[int, np.ndarray], names: dict[int, str]) -> Figure:
    """The mean image of each class, and where the positive one is brighter or darker than its mean difference.

    Args:
        means: By label (0, 1, or 2 for unlabelled), float, shape (H, W, 3), range [0, 255].
        names: Class names by label.
    """
    both = 0 in means and 1 in means
    panels = len(means) + both
    columns = 3 if panels == 3 else 2
    rows = -(-panels // columns)
    with rc_context(STYLE):
        figure = Figure(figsize=(WIDTH, 0.3 + 0.75 * both + (WIDTH / columns + 0.12) * rows), layout="constrained")
        grid = figure.subplots(rows, columns, squeeze=False).ravel()
        for axes in grid:
            axes.set_axis_off()
        for axes, (label, mean) in zip(grid, means.items(), strict=False):
            axes.imshow(np.clip(np.rint(mean), 0, 255).astype(np.uint8), interpolation="nearest")
            axes.set_title(short(called(names[label]), 16), fontsize=11, color=CLASS_COLOURS[label], pad=5)
        if both:
            axes = grid[len(means)]
            change = (means[1] - means[0]).mean(axis=2)
            change -= change.mean()
            top = max(float(np.abs(change).max()), 1.0)
            shown = axes.imshow(change, cmap=DIFFERENCE, vmin=-top, vmax=top)
            axes.set_title("Difference", fontsize=11, pad=5)
            bar = figure.colorbar(shown, ax=grid.tolist(), location="bottom", aspect=40, pad=0.03, shrink=0.9)
            bar.set_label(
                f"{short(called(names[1]), 16)} minus {short(called(names[0]), 16)}, grey levels, less the mean",
                fontsize=10,
            )
            bar.outline.set_visible(False)
        figure.suptitle("Mean images", x=0.012, ha="left", fontsize=12.5, fontweight="bold")
    return figure
