"""A contact sheet: one patch under every corruption."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib import rc_context
from matplotlib.figure import Figure

from tumortrace.images.corruptions import CORRUPTIONS, corrupt, fits
from tumortrace.records.files import replacing
from tumortrace.reports.figures import STYLE
from tumortrace.reports.stress_figures import amount_text

SHEET = "contact_sheet.png"
SHOWN = 5  # strengths


def draw_sheet(folder: Path, image: np.ndarray, identity: str, names: Sequence[str], seed: int) -> Path:
    """Draw `figures/contact_sheet.png`: a row for each corruption, the patch as it is and at each strength.

    It shows a patch of the user's data, and so belongs into the run folder and nowhere else.

    Args:
        folder: Of the stress test.
        image: uint8, shape (H, W, 3).
        identity: Its id, from which the draws follow.
        names: Corruptions, in order.
        seed: Of the draws.
    """
    with rc_context(STYLE):
        figure = Figure(figsize=(1.1 * (SHOWN + 1) + 1.5, 1.22 * len(names) + 0.5), layout="constrained")
        grid = figure.subplots(len(names), SHOWN + 1, squeeze=False)
        for row, name in zip(grid, names, strict=True):
            corruption = CORRUPTIONS[name]
            strengths = [k for k in corruption.strengths if fits(name, k, image.shape[:2])][:SHOWN]
            for axes in row:
                axes.set_axis_off()
            row[0].imshow(image, interpolation="nearest")
            row[0].text(-0.08, 0.5, corruption.label, transform=row[0].transAxes, ha="right", va="center", fontsize=9)
            row[0].set_title("clean", fontsize=7.5, fontweight="normal", loc="center", pad=2)
            for axes, strength in zip(row[1:], strengths, strict=False):
                axes.imshow(corrupt(image[None], [identity], name, strength, seed=seed)[0], interpolation="nearest")
                amount = amount_text(corruption.amounts[strength - 1], corruption.unit)
                axes.set_title(amount, fontsize=7.5, fontweight="normal", loc="center", pad=2)
        figure.supxlabel("Research use only. Not a medical device.", fontsize=8, color="#666666")
        with replacing(folder / "figures" / SHEET) as temporary:
            figure.savefig(temporary, format="png", dpi=110)
    return folder / "figures" / SHEET
