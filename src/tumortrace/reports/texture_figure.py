"""Pictures of the texture descriptors: what each of them sees in one image."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap, LogNorm
from matplotlib.figure import Figure
from skimage.feature import hog as hog_with_picture
from skimage.segmentation import find_boundaries

from tumortrace.records.provenance import RESEARCH_USE
from tumortrace.reports.drawing import CHANNELS, INK, MUTED, STYLE, save_figure
from tumortrace.texture.glcm import matrix
from tumortrace.texture.gradients import derivatives, magnitude
from tumortrace.texture.intensity import to_grey
from tumortrace.texture.lbp import ROTATION_INVARIANT, basic_codes, mean_codes, median_codes, mvm_codes, variance
from tumortrace.texture.nuclei import densities, nuclei, segment

COLUMNS, ROWS = 5, 4
_CELLS = 12  # in a row of the picture of gradients
_GREY: Any = {"cmap": "gray", "vmin": 0, "vmax": 255}
_UNIFORM = ListedColormap(
    ["#440154", "#482878", "#3e4a89", "#31688e", "#26828e", "#1f9e89", "#35b779", "#6dcd59", "#b4de2c", "#d9d9d9"]
)


def draw_texture(path: Path, image: np.ndarray, title: str) -> None:
    """Write a PNG with the image, its grey values, and a picture of each descriptor.

    Args:
        path: PNG to write.
        image: uint8, shape (H, W, 3), 8x8 px or more.
        title: Caption; shown as it is, never parsed.
    """
    with rc_context(STYLE | {"axes.titlesize": 10, "axes.titlepad": 5, "font.size": 8, "axes.grid": False}):
        figure = Figure(figsize=(3 * COLUMNS + 0.6, 3.15 * ROWS + 1.0))
        margins = {"left": 0.03, "right": 0.965, "bottom": 0.05, "top": 0.93, "wspace": 0.26, "hspace": 0.3}
        axes = figure.subplots(ROWS, COLUMNS, gridspec_kw=margins).ravel()
        _panels(axes, image)
        figure.suptitle(title if len(title) <= 90 else f"{title[:89]}…", y=0.98, fontsize=13, fontweight="bold")
        figure.text(0.5, 0.012, RESEARCH_USE, ha="center", fontsize=8, color=MUTED)
        save_figure(figure, path, dpi=110)


def _panels(axes: np.ndarray, image: np.ndarray) -> None:
    batch = image[None]
    grey = to_grey(batch)
    x, y = (slope[0] for slope in derivatives(grey))
    steep = max(1.0, float(np.percentile(np.abs([x, y]), 99.5)))
    slope: Any = {"cmap": "RdBu_r", "vmin": -steep, "vmax": steep}
    patterns = mvm_codes(grey)
    _show(axes[0], "Image", image)
    _show(axes[1], "Grey (luminance)", grey[0], **_GREY)
    _histogram(axes[2], image, grey[0])
    _co_occurrence(axes[3], grey[0])
    _oriented(axes[4], grey[0])
    _show(axes[5], "Sobel x", x, **slope)
    _show(axes[6], "Sobel y", y, **slope)
    _show(axes[7], "Sobel magnitude", magnitude(x, y), cmap="magma")
    _stained(axes[8:11], batch)
    _show(axes[11], "LBP basic (code 0 to 255)", basic_codes(grey)[0], **_GREY)
    uniform = ROTATION_INVARIANT[basic_codes(grey)[0]]
    _show(axes[12], "LBP uniform (ones; 9 mixed)", uniform, cmap=_UNIFORM, vmin=-0.5, vmax=9.5, bar=True)
    _show(axes[13], "LBP mean-based", mean_codes(grey)[0], **_GREY)
    _show(axes[14], "LBP median-based", median_codes(grey)[0], **_GREY)
    spread = np.log2(1 + variance(grey)[0])
    most = max(1.0, float(spread[1:-1, 1:-1].max()))  # the border, with black beyond it, would outshine all
    _show(axes[15], "LBP variance, log2 (1 + VAR)", spread, cmap="viridis", vmin=0, vmax=most, bar=True)
    for place, (name, codes) in enumerate(patterns.items(), 16):
        _show(axes[place], f"Multi-variance median: {name}", codes[0], **_GREY)
    _pattern_shares(axes[19], uniform)


def _show(axes: Axes, title: str, pixels: np.ndarray, *, bar: bool = False, **style: Any) -> None:
    shown = axes.imshow(pixels, interpolation="nearest", **style)
    axes.set_title(title)
    axes.set(xticks=[], yticks=[])
    axes.spines[:].set_visible(False)
    if bar:
        scale = axes.figure.colorbar(shown, cax=axes.inset_axes((1.02, 0.0, 0.035, 1.0)))
        scale.outline.set_visible(False)
        scale.ax.tick_params(labelsize=7, length=2)


def _histogram(axes: Axes, image: np.ndarray, grey: np.ndarray) -> None:
    edges = np.arange(0, 257, 8)
    axes.hist(grey.ravel(), edges.tolist(), color=MUTED, alpha=0.45, weights=np.full(grey.size, 100 / grey.size))
    coloured = bool((image != image[..., :1]).any())
    for channel, colour in enumerate(CHANNELS.values()) if coloured else ():
        counts = np.histogram(image[..., channel], edges)[0]
        axes.stairs(100 * counts / grey.size, edges, color=colour, linewidth=1.2)
    lines = "; lines: red, green, blue" if coloured else ""
    axes.set_title("Histogram, % of pixels")
    axes.set_box_aspect(1)
    axes.set(xlabel=f"grey level{lines}", xlim=(0, 256), xticks=[0, 64, 128, 192, 256])


def _co_occurrence(axes: Axes, grey: np.ndarray) -> None:
    """The matrix summed over 4x4 levels, cut to the levels that occur."""
    together = matrix(grey).reshape(64, 4, 64, 4).sum(axis=(1, 3))
    most = float(together.max())
    norm = LogNorm(max(most / 3000, 1e-9), max(most, 2e-9))
    axes.set_facecolor("#f4f4f6")
    shown = np.ma.masked_equal(together, 0)
    axes.imshow(shown, cmap="viridis", norm=norm, origin="lower", extent=(0, 256, 0, 256), interpolation="nearest")
    axes.set_title("Co-occurrence, 1 px to the right (log)")
    low, high = (int(grey.min()) // 32) * 32, min(256, (int(grey.max()) // 32 + 1) * 32)
    axes.set(xlabel="grey level", ylabel="of the neighbour", xlim=(low, high), ylim=(low, high))


def _oriented(axes: Axes, grey: np.ndarray) -> None:
    """Gradients in cells finer than the descriptor's, so that they can be made out."""
    cell = max(2, round(min(grey.shape) / _CELLS))
    lines = hog_with_picture(grey, 9, (cell, cell), (1, 1), visualize=True)[1]
    top = float(np.percentile(lines, 99.5)) or 1.0
    _show(axes, f"Oriented gradients, cells of {cell} px", lines, cmap="inferno", vmin=0, vmax=top)


def _stained(axes: np.ndarray, batch: np.ndarray) -> None:
    """What makes sense of stained tissue alone: densities and nuclei."""
    if not (batch != batch[..., :1]).any():
        for panel, title in zip(axes, ("Hematoxylin density", "Eosin density", "Nuclei"), strict=True):
            panel.set_title(title)
            panel.set(xticks=[], yticks=[], facecolor="#f4f4f6", box_aspect=1)
            panel.spines[:].set_visible(False)
            place: Any = {"ha": "center", "va": "center", "transform": panel.transAxes}
            panel.text(0.5, 0.5, "an image without colour:\nnot stained", color=MUTED, fontsize=9, **place)
        return
    hematoxylin, eosin = (density[0] for density in densities(batch))
    dense = float(np.clip(np.percentile([hematoxylin, eosin], 98), 0.05, 0.3))  # a colour at 0 counts as beyond all
    _show(axes[0], "Hematoxylin density", hematoxylin, cmap="Purples", vmin=0, vmax=dense, bar=True)
    _show(axes[1], "Eosin density", eosin, cmap="RdPu", vmin=0, vmax=dense, bar=True)
    _nuclei(axes[2], batch)


def _nuclei(axes: Axes, batch: np.ndarray) -> None:
    names, values = nuclei(batch)
    counted = dict(zip(names, values[0], strict=True))
    title = f"Nuclei: {counted['nuclei_count']:.0f}, mean area {counted['nuclei_area_mean']:.0f} px"
    _show(axes, title, batch[0])
    height, width = batch.shape[1:3]
    finer = max(1, round(200 / max(height, width)))  # outlines thinner than the image's own pixels
    labels = segment(batch)[0].repeat(finer, axis=0).repeat(finer, axis=1)
    outline = np.zeros((*labels.shape, 4), np.uint8)
    outline[find_boundaries(labels, mode="inner")] = (0, 255, 102, 255)
    axes.imshow(outline, interpolation="nearest", extent=(-0.5, width - 0.5, height - 0.5, -0.5))


def _pattern_shares(axes: Axes, uniform: np.ndarray) -> None:
    counts = np.bincount(uniform.ravel(), minlength=10)
    axes.bar(range(10), 100 * counts / uniform.size, color=_UNIFORM.colors, edgecolor=INK, linewidth=0.5)
    axes.set_title("LBP uniform, % of pixels")
    axes.set_box_aspect(1)
    axes.set(xlabel="ones in a row (9: mixed)", xticks=range(10))
