"""A picture of what the network sees: patches as they are, and several draws of their augmentation beside them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

CENTRE = 32


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
    figure.supxlabel("Research use only. Not a medical device.", fontsize=7, color="#666666")
    return figure


def _show(axes: Axes, image: np.ndarray, centre: float) -> None:
    height, width = image.shape[:2]
    axes.imshow(image, interpolation="nearest")
    axes.set(xticks=[], yticks=[])
    axes.spines[:].set_visible(False)
    if 0 < centre < min(height, width):
        corner = ((width - centre) / 2 - 0.5, (height - centre) / 2 - 0.5)
        axes.add_patch(Rectangle(corner, centre, centre, fill=False, edgecolor="#2ca02c", linewidth=1.2))
