"""The section of a slide score: what it is made of, patients and their stages, lesions found."""

from __future__ import annotations

import numpy as np
from matplotlib.figure import Figure

from tumortrace.evaluation.measures import prominent
from tumortrace.records.slides import SlideScoreRecord
from tumortrace.reports.drawing import COLOURS, INK, NEGATIVE, POSITIVE, ends, legend_below, name_rows, sheet
from tumortrace.reports.page import Context
from tumortrace.reports.records import Records


def tell_slide_score(records: Records) -> Context | None:
    """`slide_score`: the record; `by_patient`: metrics of the judged split; None where there is none."""
    record = SlideScoreRecord.find(records.folder)
    if record is None:
        return None
    return {
        "slide_score": record.as_json(),
        "by_patient": {name: metrics.as_json() for name, metrics in record.by_patient.items()},
        "patient_metrics": prominent(1),
        "alt": {
            "froc": "Share of lesions found over false alarms a slide",
            "slide_weights": "Weight of each standardised feature in the slide score",
        },
    }


def draw_froc(records: Records) -> Figure | None:
    """Sensitivity over false alarms a slide, with intervals at the rates of the challenge."""
    record = SlideScoreRecord.find(records.folder)
    if record is None or not any(lesions.curve for lesions in record.froc.values()):
        return None
    figure, axes = sheet("Lesions found (FROC)", "False alarms a slide", "Share of lesions found")
    for (name, lesions), colour in zip(record.froc.items(), COLOURS, strict=False):
        rates, found = np.array(lesions.curve).T
        axes.step([*rates, max(8.0, rates[-1])], [*found, found[-1]], where="post", color=colour, label=name)
        for rate, entry in lesions.sensitivity.items():
            if entry.value is not None:
                axes.plot([float(rate)] * 2, ends(entry), color=colour, linewidth=1.2, alpha=0.6)
                axes.plot(float(rate), entry.value, "o", color=colour, markersize=4)
    axes.set_xscale("symlog", linthresh=0.25)
    axes.set_xticks([0, 0.25, 0.5, 1, 2, 4, 8], ["0", ".25", ".5", "1", "2", "4", "8"])
    axes.set(xlim=(0, 8.5), ylim=(-0.02, 1.02))
    legend_below(figure, 2)
    return figure


def draw_weights(records: Records) -> Figure | None:
    """What each feature adds to the score where it lies a deviation above the mean."""
    record = SlideScoreRecord.find(records.folder)
    if record is None or not record.fitted.features:
        return None
    rows = record.fitted.features
    figure, axes = sheet("What the score is made of", "Weight of the standardised feature", "", 1.4 + 0.25 * len(rows))
    weights = [row.weight for row in rows]
    axes.barh(range(len(rows)), weights, color=[POSITIVE if weight > 0 else NEGATIVE for weight in weights])
    axes.axvline(0, color=INK, linewidth=1)
    name_rows(axes, [row.name for row in rows])
    axes.invert_yaxis()
    return figure
