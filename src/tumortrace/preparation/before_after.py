"""The picture to look at after preparing: images before and after."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib import rc_context
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from tumortrace.reports.figures import INK, MUTED, POSITIVE, STYLE
from tumortrace.runs.files import replacing
from tumortrace.runs.provenance import RESEARCH_USE


def examples(labels: pd.Series, rows: Sequence[int], count: int) -> list[int]:
    """At most `count` of these rows, evenly spread and from each class in turn.

    Example:
        >>> examples(pd.Series([0, 0, 0, 1, 1, 1]), range(6), 4)
        [0, 3, 1, 4]
    """
    chosen = labels.iloc[list(rows)].reset_index(drop=True)
    row_numbers = np.asarray(rows)
    classes = [row_numbers[(chosen == value).fillna(False).to_numpy(bool)] for value in (0, 1)]
    classes = [members for members in (*classes, row_numbers[chosen.isna().to_numpy()]) if len(members)]
    share = -(-count // max(1, len(classes)))
    spread = [members[np.arange(min(share, len(members))) * len(members) // (share + 1)] for members in classes]
    turns = [int(members[turn]) for turn in range(share) for members in spread if turn < len(members)]
    return turns[:count]


def draw_before_after(
    target: Path, before: Sequence[np.ndarray], after: Sequence[np.ndarray], titles: Sequence[str], crop: int | None
) -> None:
    """Write a PNG with each image above what was made of it; the cropped square is outlined.

    Args:
        target: The file.
        before: uint8 (H, W, 3) each.
        after: uint8 (h, w, 3) each.
        titles: One per pair.
        crop: Side in pixels of the centre square that was kept, or None.
    """
    with rc_context(STYLE):
        figure = Figure(figsize=(max(5.4, 2.1 * len(before)), 5.2), layout="constrained")
        axes = figure.subplots(2, len(before), squeeze=False)
        for column, pictures in enumerate(zip(before, after, strict=True)):
            for pair, picture in zip(axes[:, column], pictures, strict=True):
                pair.imshow(picture, interpolation="nearest")
                pair.set(xticks=[], yticks=[])
                pair.grid(False)
                pair.spines[:].set_visible(False)
                pair.set_xlabel(f"{picture.shape[1]} × {picture.shape[0]} px", fontsize=9, color=MUTED)
            axes[0, column].set_title(titles[column], fontsize=9, loc="center", fontweight="normal")
            height, width = before[column].shape[:2]
            if crop is not None and crop < max(height, width):
                side = min(crop, width), min(crop, height)
                corner = (width - side[0]) // 2 - 0.5, (height - side[1]) // 2 - 0.5
                axes[0, column].add_patch(Rectangle(corner, *side, fill=False, edgecolor=POSITIVE, linewidth=1.5))
        for row, name in enumerate(("before", "after")):
            axes[row, 0].set_ylabel(name, color=INK)
        figure.supxlabel(RESEARCH_USE, fontsize=8, color=MUTED)
        with replacing(target) as temporary:
            figure.savefig(temporary, format="png", dpi=150)
