"""The picture of a scan: the slide, and beside it the probability of each tile laid over it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image
from shapely.geometry import Polygon

from tumortrace.records.files import replacing
from tumortrace.records.provenance import RESEARCH_USE

_DPI = 150


def heat_array(tiles: pd.DataFrame, slide: tuple[int, int], shape: tuple[int, int]) -> np.ndarray:
    """Mean probability of the tiles over each px of a thumbnail.

    Args:
        tiles: Columns `x`, `y`, `width`, `height` (level-0 px) and `probability`.
        slide: Width and height in level-0 px.
        shape: Height and width of the thumbnail.

    Returns:
        float array of `shape` in [0, 1], NaN where no tile lies.

    Example:
        >>> tiles = pd.DataFrame({"x": [0], "y": [0], "width": [20], "height": [20], "probability": [0.5]})
        >>> heat_array(tiles, (40, 20), (1, 2))
        array([[0.5, nan]])
    """
    total, count = np.zeros(shape), np.zeros(shape)
    across, down = shape[1] / slide[0], shape[0] / slide[1]
    left = np.rint(tiles["x"] * across).astype(int)
    top = np.rint(tiles["y"] * down).astype(int)
    right = np.maximum(left + 1, np.rint((tiles["x"] + tiles["width"]) * across).astype(int))
    bottom = np.maximum(top + 1, np.rint((tiles["y"] + tiles["height"]) * down).astype(int))
    for x0, y0, x1, y1, probability in zip(left, top, right, bottom, tiles["probability"], strict=True):
        total[y0:y1, x0:x1] += probability
        count[y0:y1, x0:x1] += 1
    return np.divide(total, count, out=np.full(shape, np.nan), where=count > 0)


def draw_heatmap(
    target: Path,
    thumbnail: np.ndarray,
    mask: np.ndarray,
    heat: np.ndarray,
    outlines: list[Polygon],
    *,
    title: str,
    positive_class: str,
    threshold: float,
    resolution: float | None,
) -> None:
    """Write the picture of a scan as a PNG, whole or not at all.

    Args:
        target: File to write.
        thumbnail: uint8 array (height, width, 3).
        mask: bool array (height, width), the tissue, outlined on the left.
        heat: float array (height, width) in [0, 1], NaN where nothing was predicted.
        outlines: Tumour outlines in px of the thumbnail, drawn in red on the left.
        title: Line above.
        positive_class: Name of the class whose probability is shown.
        threshold: Marked on the colour bar.
        resolution: Um per px of the thumbnail, for the scale bar; None draws no bar.
    """
    height, width = heat.shape
    panel = 5.0 * min(2.0, max(0.4, width / height))
    figure = Figure(figsize=(2 * panel + 1.6, 6.2), layout="constrained")
    FigureCanvasAgg(figure)
    left, right = figure.subplots(1, 2, sharex=True, sharey=True)
    # Matplotlib takes some 100 bytes for each px of a picture, of which a large one shows every second or third
    by = max(1, int(max(width / (panel * _DPI), height / (5.2 * _DPI))))
    thumbnail = np.asarray(Image.fromarray(thumbnail).reduce(by))
    rows, columns = thumbnail.shape[:2]
    extent = (-0.5, by * columns - 0.5, by * rows - 0.5, -0.5)
    left.imshow(thumbnail, extent=extent)
    if mask.any() and not mask.all():
        x, y = by * np.arange(columns), by * np.arange(rows)
        left.contour(x, y, mask[::by, ::by], levels=[0.5], colors="black", linewidths=0.6)
    for polygon in outlines:
        for ring in (polygon.exterior, *polygon.interiors):
            x, y = np.asarray(ring.xy) - 0.5  # a picture's first px lies around 0
            left.plot(x, y, color="#c00000", linewidth=1.0, scalex=False, scaley=False)
    found = f"tissue (black), {positive_class} (red)" if outlines else "tissue (black)"
    left.set_title(found if mask.any() else "no tissue found", fontsize=9, parse_math=False)
    # grey: only the heat has colour
    right.imshow(thumbnail.mean(axis=2, dtype=np.float32), cmap="gray", vmin=0, vmax=255, extent=extent)
    layer = right.imshow(
        heat[::by, ::by], cmap="RdYlBu_r", vmin=0, vmax=1, alpha=0.6, interpolation="nearest", extent=extent
    )
    right.set_title("heat map" if np.isfinite(heat).any() else "nothing to predict", fontsize=9)
    bar = figure.colorbar(layer, ax=right, fraction=0.05, pad=0.02)
    bar.set_label(f"probability of {positive_class}", parse_math=False)
    bar.ax.axhline(threshold, color="black", linewidth=1.5)
    bar.ax.text(-0.2, threshold, "threshold", ha="right", va="center", fontsize=7, rotation=90)
    for axes in (left, right):
        axes.set_axis_off()
    if resolution is not None:
        _draw_scale_bar(left, resolution, width, height)
    figure.suptitle(title, fontsize=11, parse_math=False)
    figure.supxlabel(RESEARCH_USE, fontsize=8)
    with replacing(target) as temporary:
        figure.savefig(temporary, format="png", dpi=_DPI)


def _draw_scale_bar(axes: Axes, resolution: float, width: int, height: int) -> None:
    """A bar of 1, 2 or 5 times a power of ten um, about a fifth of the picture wide, below it."""
    longest = width * resolution / 4
    power = 10.0 ** np.floor(np.log10(longest))
    length = next(step * power for step in (5, 2, 1) if step * power <= longest * (1 + 1e-9))
    y = height * 1.03
    axes.plot([0, length / resolution], [y, y], color="black", linewidth=3, solid_capstyle="butt", clip_on=False)
    text = f"{length / 1000:g} mm" if length >= 1000 else f"{length:g} µm"
    axes.text(length / resolution * 1.08, y, text, fontsize=8, va="center", clip_on=False)
