"""Figure and HTML report of a learning curve, from what its folder has on record."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, NullFormatter

from tumortrace.evaluation.class_measures import WATCHED
from tumortrace.evaluation.measures import MEASURES, TITLES, prominent
from tumortrace.records.plans import CurveSize, LearningCurveRecord
from tumortrace.reports.drawing import INK, MUTED, draw_figures, ends, legend_below, number, sheet
from tumortrace.reports.page import REPORT, write_page
from tumortrace.reports.records import read_run
from tumortrace.reports.wording import decimals

DRAWN = ("auroc", "average_precision", "accuracy", "ece")
DRAWN_OF_CLASSES = ("class_macro_auroc", "class_balanced_accuracy")
LITTLE = 0.005  # AUROC: less than this from twice the labels is called little


def write_learning_curve_report(folder: Path) -> Path:
    """Write report.html: metrics against labelled images, the fitted law, and what more labels may bring.

    Args:
        folder: Of the learning curve; run.json and learning_curve.json are read.

    Returns:
        Path of report.html, in the same folder.

    Raises:
        RunError: There is no such folder, or a record is damaged.
    """
    folder = Path(folder)
    record, outcome = read_run(folder, "learning-curve", "a learning curve"), LearningCurveRecord.read(folder)
    run = record.as_json()
    known = outcome.sizes[0].metrics if outcome.sizes else {}
    several = {name: title for name, title in WATCHED.items() if name in known}
    drawn = [*DRAWN, *(name for name in DRAWN_OF_CLASSES if name in several)]
    return write_page(
        folder / REPORT,
        "learning_curve.html.j2",
        draw_figures(folder, {name: partial(_draw, metric=name) for name in drawn}, outcome),
        run=run,
        data=run.get("data", {}),
        outcome=outcome.as_json(),
        verdict=curve_verdict(outcome),
        metric_names=prominent() | {"brier": TITLES["brier"]} | several,
        leakage_ruled_out=record.leakage.startswith("ruled out"),
    )


def curve_verdict(outcome: LearningCurveRecord) -> list[str]:
    """What a learning curve says, in sentences."""
    first, last = outcome.sizes[0], outcome.sizes[-1]
    sentences = [
        f"With {first.images:,.0f} labelled training images AUROC is {_mean(first)}, with {last.images:,.0f} it "
        f"is {_mean(last)} (mean ± standard deviation over repeats)."
    ]
    if "class_macro_auroc" in last.metrics:
        ranks, rightly = (tuple(_mean(size, name) for size in (first, last)) for name in DRAWN_OF_CLASSES)
        sentences.append(
            f"Of all classes: AUROC one against the rest {ranks[0]} and {ranks[1]}, balanced accuracy {rightly[0]} and "
            f"{rightly[1]}."
        )
    law = outcome.law
    if law is None:
        return [*sentences, "Fewer than three sizes: no law is fitted, and nothing is said of more labels."]
    now, twice = law.ahead[0], law.ahead[1]
    told = f"AUROC {decimals(twice.auroc)} instead of {decimals(now.auroc)}"
    if twice.range95 is None:
        conclusion = "with a single model of a size no range can be given, and nothing is concluded"
    else:
        low, high = twice.range95
        told = told.replace(" instead", f" [{decimals(low)}, {decimals(high)}] instead")
        conclusion = "whether more labels of this kind would help cannot be told"
        if high - now.auroc < LITTLE:
            conclusion = "little is to be expected of more labels of this kind"
        elif low > now.auroc:
            conclusion = "more labels would help"
    sentences.append(f"If the curve goes on as it went, twice the labels bring {told}: {conclusion}.")
    sentences.append(
        "That is an extrapolation, not a measurement. It is about more images of the same kind; images from other "
        "laboratories may help more, and the test split's own uncertainty comes on top."
    )
    return sentences


def _mean(size: CurveSize, name: str = "auroc") -> str:
    entry = size.metrics[name]
    return decimals(entry.mean) + ("" if entry.sd is None else f" ± {decimals(entry.sd)}")


def _draw(outcome: LearningCurveRecord, metric: str) -> Figure:
    """A point with its interval for each run, the mean over repeats, and for AUROC the law."""
    title = (TITLES | WATCHED)[metric]
    figure, axes = sheet(title, "Labelled training images", title)
    colour = MEASURES[metric].colour if metric in MEASURES else INK
    runs = [row for row in outcome.runs if row.metrics[metric].value is not None]
    repeats = max(row.repeat for row in outcome.runs) + 1
    for row in runs:
        entry = row.metrics[metric]
        x = row.images * 1.05 ** (row.repeat - (repeats - 1) / 2)  # side by side
        axes.plot([x, x], ends(entry), "-", color=colour, linewidth=1.2, alpha=0.45)
        axes.plot(x, number(entry), "o", color=colour, markersize=4, alpha=0.7)
    axes.plot([], [], "-o", color=colour, markersize=4, alpha=0.7, label="A model, 95 % interval")
    means = [(size.images, size.metrics[metric].mean) for size in outcome.sizes]
    known = np.array([(images, mean) for images, mean in means if mean is not None])
    if len(known):
        axes.plot(known[:, 0], known[:, 1], "-s", color=colour, markersize=5, label="Mean over repeats")
    law = outcome.law
    if metric == "auroc" and law:
        sizes = [point.images for point in law.curve]
        axes.plot(sizes, [point.auroc for point in law.curve], "--", color=MUTED, linewidth=1.3, label="Power law")
        ranges = [point.range95 for point in law.curve if point.range95 is not None]
        if ranges:
            low, high = zip(*ranges, strict=True)
            axes.fill_between(sizes, low, high, color=MUTED, alpha=0.15, linewidth=0)
        axes.axvline(law.ahead[0].images, color=MUTED, linewidth=0.8, linestyle=":", label="Extrapolated beyond")
    axes.set_xscale("log")
    axes.xaxis.set_major_formatter(FuncFormatter(lambda count, _: f"{count:,.0f}"))
    axes.xaxis.set_minor_formatter(NullFormatter())
    legend_below(figure, 2)
    return figure
