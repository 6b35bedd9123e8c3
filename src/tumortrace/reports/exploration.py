"""The page of an exploration, from statistics.json and the figures beside it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import colormaps, rc_context
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from skimage.color import rgb2gray
from skimage.filters import sobel

from tumortrace.records.data import ExplorationRecord, Neighbours
from tumortrace.records.tables import SAMPLE
from tumortrace.reports.drawing import (
    CENTRE,
    CLASS_COLOURS,
    DISCLAIMER,
    MUTED,
    NEGATIVE,
    POSITIVE,
    STYLE,
    WIDTH,
    Drawn,
    draw_figures,
    outline,
    short,
)
from tumortrace.reports.exploration_figures import FIGURES, Exploration
from tumortrace.reports.page import REPORT, write_page
from tumortrace.reports.wording import called, enumerate_kinds

#: How Pillow names what a file holds, and how people do.
MODES = {
    "1": "black and white",
    "L": "grey, 8 bits",
    "LA": "grey with transparency",
    "I;16": "grey, 16 bits",
    "I": "grey, 32 bits",
    "F": "grey, floating point",
    "P": "palette",
    "RGB": "RGB, 3 channels of 8 bits",
    "RGBA": "RGB with transparency",
    "CMYK": "CMYK, 4 channels",
}
MOST_GROUPS = 200  # in the table
LARGEST_OUTLINED = 256  # pixels of a side from which on an image is no patch whose centre decides
COLUMNS = 4
TITLE, GAP = 0.26, 0.012  # in cells: height of a title's line, and space around an image
EDGES = colormaps["magma"]
DIFFERENCE = LinearSegmentedColormap.from_list("difference", [NEGATIVE, "#f7f7f7", POSITIVE])


def draw_exploration(folder: Path, pictures: Mapping[str, Callable[[], Figure]]) -> Drawn:
    """Draw what the statistics.json and sample.csv of an exploration allow, and pictures, into its `figures/`.

    Args:
        folder: Of the exploration.
        pictures: Figures of images, by name, which no record holds; shown as PNG, which is smaller and as sharp.

    Raises:
        RunError: A record is damaged.
    """
    exploration = Exploration(ExplorationRecord.read(folder), SAMPLE.find(folder))
    drawings = {name: partial(lambda draw, _: draw(), draw) for name, draw in pictures.items()}
    drawn = draw_figures(folder, {**FIGURES, **drawings}, exploration)
    files = {name: path.with_suffix(".png") if name in pictures else path for name, path in drawn.files.items()}
    return replace(drawn, files=files)


def write_exploration(folder: Path, drawn: Drawn) -> Path:
    """Write report.html, one file that opens anywhere, from the statistics.json of an exploration.

    Args:
        folder: Of the exploration.
        drawn: The figures to show; sections without theirs are left out.

    Returns:
        Path of report.html, in the same folder.

    Raises:
        RunError: There is no statistics.json, or it is damaged.
    """
    folder = Path(folder)
    record = ExplorationRecord.read(folder)
    statistics = record.as_json()
    return write_page(
        folder / REPORT,
        "exploration.html.j2",
        drawn,
        statistics=statistics,
        cohort=statistics["cohort"],
        sample=statistics["sample"],
        alt=_alternative_texts(record),
        verdict=verdict(record),
        modes=[(MODES.get(mode, mode), count) for mode, count in record.sample.modes.items()],
        groups=record.cohort.groups.each[:MOST_GROUPS] if record.cohort.groups else [],
        shifts={group.group: group for group in record.stains.groups},
        neighbours=record.map,
        ratio=ratio,
        called=called,
    )


def verdict(record: ExplorationRecord) -> list[str]:
    """What to know first, a sentence each."""
    cohort, near = record.cohort, record.map.same_group
    groups, positive = cohort.groups.count if cohort.groups else 0, called(cohort.positive_class)
    share = "" if cohort.prevalence is None else f"{100 * cohort.prevalence:.1f} %"
    positives = f"{share} of them {positive}" if share else "none of them labelled"
    if 0 < cohort.labelled < cohort.images:
        positives = f"{cohort.labelled:,} labelled, {share} of those {positive}"
    of = f" of {groups:,} slides or patients" if groups else ""
    sentences = [f"{cohort.images:,} images{of}, {positives}."]
    if near:
        alike = near.ci95 is not None and (near.ci95[0] or 0) > 1
        meaning = "keep each on one side of every split" if alike else "no sign of a batch effect"
        sentences.append(
            f"The images most alike come from the same slide or patient {ratio(near)} times as often as chance would"
            f" have it: {meaning}."
        )
    elif not groups:
        sentences.append("Which slide or patient an image comes from is not known, so batch effects cannot be seen.")
    if record.audit is not None:
        counts = Counter(finding.verdict for finding in record.audit)
        told = enumerate_kinds({kind: counts[kind] for kind in ("error", "warning", "note")})
        sentences.append(f"The check found {' and '.join(told.rsplit(', ', 1)) or 'nothing'}.")
    return sentences


def ratio(near: Neighbours) -> str:
    """Observed against chance with its interval, such as `6.3 [5.5, 7.2]`.

    Example:
        >>> ratio(Neighbours(observed=0.632, chance=0.1, ratio=6.32, ci95=(5.46, 7.21)))
        '6.3 [5.5, 7.2]'
    """
    value = near.ratio or 0.0
    places = 1 if value >= 2 else 2
    ends = "" if near.ci95 is None else f" [{near.ci95[0]:.{places}f}, {near.ci95[1]:.{places}f}]"
    return f"{value:.{places}f}{ends}"


def _alternative_texts(record: ExplorationRecord) -> dict[str, str]:
    """What each figure shows, in words and numbers, for those who cannot see it."""
    cohort, sample = record.cohort, record.sample
    counts = ", ".join(f"{called(part.name)} {part.images:,}" for part in cohort.classes)
    shares = " and ".join(f"{100 * share:.0f} %" for share in record.map.explained_variance)
    groups = cohort.groups.count if cohort.groups else 0
    texts = {
        "classes": f"Bars of images by class: {counts}",
        "groups": f"Images and share of positives of {groups} slides or patients",
        "sizes": f"Widths and heights of the images: {len(sample.sizes)} different sizes",
        "intensity": "Histogram of pixel values of all images, by channel",
        "intensity_by_class": "Histograms of pixel values by class and channel",
        "mean_colour": "Histograms of the images' mean values by class and channel",
        "mean_images": "Mean image of each class, and their difference",
        "edges": "Images of each class above their Sobel edges",
        "stains": f"Haematoxylin and eosin vectors of {record.stains.images:,} images",
        "stains_by_group": "Stain colours of slides or patients side by side",
        "map_class": f"Images by two principal components ({shares} of the variance), coloured by class",
        "map_group": "The same map, coloured by slide or patient",
        "umap_class": "UMAP of the images, coloured by class",
        "umap_group": "UMAP of the images, coloured by slide or patient",
        "augmentation": "Images beside what augmentation makes of them",
    }
    return texts | {f"samples_{part.label}": f"Images of {called(part.name)}" for part in sample.classes}


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
        style: Any = {"fontsize": 12.5, "fontweight": "bold", "color": CLASS_COLOURS[label]}
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
        outline(axes, middle, (CENTRE * pixel, CENTRE * pixel))


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


def augmentation_figure(
    originals: np.ndarray,
    augmented: np.ndarray,
    *,
    title: str = "What the network sees",
    names: Sequence[str] = (),
    centre: int = CENTRE,
    scale: float = 1.0,
) -> Figure:
    """Originals in the first column, their augmented draws beside them, the centre square outlined.

    Args:
        originals: uint8, shape (K, H, W, 3).
        augmented: Of each original M draws, uint8 or float in [0, 1], shape (K, M, h, w, 3).
        title: Over the figure; this and the names are shown as they are, never parsed.
        names: One for each original, such as its class; none for no names.
        centre: Side in pixels of the centre square of the originals; 0 draws none.
        scale: Pixels of the draws for each pixel of the originals: not 1 where preprocessing resizes.

    Raises:
        ValueError: The arrays, or the names, are not of the same K originals.

    Example:
        >>> figure = augmentation_figure(np.zeros((2, 96, 96, 3), np.uint8), np.zeros((2, 5, 64, 64, 3)))
        >>> len(figure.axes)
        12
    """
    if len(augmented) != len(originals) or (names and len(names) != len(originals)):
        raise ValueError(f"{len(originals)} originals, {len(augmented)} rows of draws, {len(names)} names")
    rows, columns = len(originals), 1 + augmented.shape[1]
    figure = Figure(figsize=(1.35 * columns + 0.3, 1.35 * rows + 0.75), layout="constrained")
    grid = figure.subplots(rows, columns, squeeze=False)
    for row, original, draws in zip(grid, originals, augmented, strict=True):
        _show(row[0], original, centre)
        for axes, draw in zip(row[1:], draws, strict=True):
            _show(axes, draw, centre * scale)
    for row, name in zip(grid, names, strict=False):
        row[0].set_ylabel(name, fontsize=8, parse_math=False)
    grid[0, 0].set_title("original", fontsize=8)
    if columns > 1:
        grid[0, 1].set_title("augmented", fontsize=8)
    figure.suptitle(title, fontsize=10, parse_math=False, wrap=True)
    figure.supxlabel(DISCLAIMER, fontsize=7, color=MUTED)
    return figure


def _show(axes: Axes, image: np.ndarray, centre: float) -> None:
    height, width = image.shape[:2]
    axes.imshow(image, interpolation="nearest")
    axes.set(xticks=[], yticks=[])
    axes.spines[:].set_visible(False)
    if 0 < centre < min(height, width):
        outline(axes, (width / 2 - 0.5, height / 2 - 0.5), (centre, centre))
