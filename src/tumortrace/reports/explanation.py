"""Pictures of explanations: the patch, and the patch under its heat map with a scale."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from tumortrace.runs.files import replacing

CENTRE = 32


def draw_explanation(path: Path, image: np.ndarray, heat: np.ndarray, title: str, positive_class: str) -> None:
    """Write a PNG with the patch (centre 32x32 px outlined) beside its heat map and colour bar.

    Args:
        path: PNG to write.
        image: uint8, shape (H, W, 3).
        heat: float, shape (H, W), range [0, inf), in units of the logit.
        title: Caption; shown as it is, never parsed.
        positive_class: Class that the heat speaks for.
    """
    figure = Figure(figsize=(6.4, 3.3), layout="constrained")
    left, right = figure.subplots(1, 2)
    height, width = image.shape[:2]
    left.imshow(image)
    if min(height, width) > CENTRE:
        corner = ((width - CENTRE) / 2 - 0.5, (height - CENTRE) / 2 - 0.5)
        left.add_patch(Rectangle(corner, CENTRE, CENTRE, fill=False, edgecolor="#2ca02c", linewidth=1.5))
    right.imshow(image)
    top = float(heat.max())
    if top > 0:
        shown = right.imshow(heat, cmap="inferno", alpha=0.25 + 0.5 * heat / top, vmin=0, vmax=top)
        bar = figure.colorbar(shown, ax=right, fraction=0.046)
        bar.set_label(f"evidence for {positive_class} (logit)", fontsize=8, parse_math=False)
        bar.ax.tick_params(labelsize=7)
    else:
        right.set_title(f"no evidence for {positive_class}", fontsize=8, parse_math=False)
    for axes in (left, right):
        axes.set_axis_off()
    figure.suptitle(title, fontsize=9, parse_math=False)
    figure.supxlabel("Research use only. Not a medical device.", fontsize=7, color="#666666")
    with replacing(path) as temporary:
        figure.savefig(temporary, format="png", dpi=110)
