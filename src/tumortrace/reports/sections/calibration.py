"""Whether a probability of .7 means seven in ten, without calibration and with it."""

from __future__ import annotations

from typing import Any

from matplotlib.figure import Figure
from scipy.special import expit

from tumortrace.evaluation.curves import reliability_bins
from tumortrace.evaluation.reliability import CALIBRATION
from tumortrace.reports.figures import (
    INK,
    MUTED,
    POSITIVE,
    Drawings,
    draw_reliability,
    legend_below,
    sheet,
    short,
    unit_square,
)
from tumortrace.reports.records import Records, decimals, interval, read_json


def context(records: Records) -> dict[str, Any]:
    """`choice`, how the calibration was chosen; `measures`, rows before and after; `compared`, likelihoods; `alt`."""
    record = read_json(records.folder / "calibration.json")
    before, after = record.get("before") or {}, record.get("after") or {}
    on = f"on the {records.split} split"
    rows = [
        {"name": name, "label": row.title, "before": before.get(name), "after": after[name]}
        for name, row in CALIBRATION.items()
        if name in after
    ]
    choice = record.get("choice") or {}
    return {
        "choice": choice,
        "measures": rows,
        "compared": choice.get("cross_validated_nll") or {},
        "alt": {
            "reliability": f"Observed share against predicted probability {on}: ECE {records.metric('ece')}",
            "calibration": f"Observed share against probability {on}, before calibration: ECE {_shown(before)}, and "
            f"after: ECE {_shown(after)}",
            "probability_histogram": f"Histogram of predicted probabilities by class {on}",
        },
    }


def _shown(side: dict[str, Any]) -> str:
    entry = side.get("ece") or {}
    return f"{decimals(entry.get('value'))}{interval(entry, ' ')}"


def _before_and_after(records: Records) -> Figure | None:
    """Reliability of the model by itself beside that after calibration."""
    record, table = read_json(records.folder / "calibration.json"), records.scored(records.split)
    if not record.get("before") or "logit" not in table or table["label"].nunique() < 2:
        return None
    name = short(records.classes[1])
    figure, axes = sheet(
        f"Calibration, {records.split} split", f"Predicted probability of {name}", "Observed share", 5.2
    )
    axes.plot([0, 1], [0, 1], "--", color=MUTED, linewidth=1, label="Perfectly calibrated")
    sides: dict[str, tuple[Any, str, str]] = {
        "before": (expit(table["logit"]), POSITIVE, "s"),
        "after": (table["probability"], INK, "o"),
    }
    for side, (probability, colour, marker) in sides.items():
        label = f"{side.capitalize()}, ECE {_shown(record[side])}"
        draw_reliability(axes, reliability_bins(table["label"], probability), label, colour, marker)
    unit_square(axes)
    legend_below(figure, 1)
    return figure


FIGURES: Drawings = {"calibration": _before_and_after}
