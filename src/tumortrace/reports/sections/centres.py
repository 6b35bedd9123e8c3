"""The section on whether a probed body's features tell tissue or hospital."""

from __future__ import annotations

import numpy as np
from matplotlib.figure import Figure

from tumortrace.evaluation.centres import TITLES
from tumortrace.records.centres import CentreRecord
from tumortrace.records.tables import CENTRES
from tumortrace.reports.drawing import INK, NEGATIVE, POSITIVE, legend_below, sheet
from tumortrace.reports.page import Context
from tumortrace.reports.records import Records


def tell_centres(records: Records) -> Context | None:
    """`across` (the record), `across_titles` and `alt`; None where centres are not known."""
    across = CentreRecord.find(records.folder)
    if across is None:
        return None
    return {
        "across": across,
        "across_titles": TITLES,
        "alt": {"centre_margins": "Images by how much nearer their class elsewhere is than their centre's other class"},
    }


def draw_margins(records: Records) -> Figure | None:
    """Images by their margin; below 0 the hospital is nearer than the tissue."""
    table = CENTRES.find(records.folder)
    if table.empty or table["margin"].isna().all():
        return None
    margins = table["margin"].dropna().to_numpy(float)
    figure, axes = sheet("Tissue or hospital", "Margin", "Images", 3.4)
    edges = np.linspace(-1, 1, 41).tolist()
    for colour, side, words in (
        (POSITIVE, margins <= 0, "Other tissue of the same centre nearer"),
        (NEGATIVE, margins > 0, "Same tissue of other centres nearer"),
    ):
        axes.hist(margins[side], edges, color=colour, alpha=0.8, label=words)
    axes.axvline(0, color=INK, linewidth=1)
    axes.set_xlim(-1, 1)
    legend_below(figure, 1)
    return figure
