"""Figures of a run, drawn from what its folder has on record."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure, FigureBase
from matplotlib.ticker import MaxNLocator

from tumortrace.evaluation.curves import Curves, ReliabilityBins, curves, reliability_bins
from tumortrace.evaluation.measures import TITLES
from tumortrace.records.files import replacing
from tumortrace.reports.records import Records, decimals, read_records, read_table

INK, MUTED, GRID = "#22303a", "#66727d", "#e6eaee"
NEGATIVE, POSITIVE = "#0072b2", "#d55e00"  # Okabe and Ito: told apart with every kind of colour vision
LINES = ("#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#882255", INK)
#: Figures by name; a function returns None where the records do not allow its figure.
Drawings = Mapping[str, Callable[[Records], Figure | None]]
STRONGEST = 15  # features in the figure
STYLE: Any = {
    "font.size": 11,
    "text.color": INK,
    "text.parse_math": False,  # class names may hold dollar signs
    "axes.titlesize": 12.5,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.titlepad": 10,
    "axes.labelcolor": INK,
    "axes.edgecolor": MUTED,
    "axes.linewidth": 0.8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": GRID,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "lines.linewidth": 2.0,
    "lines.solid_capstyle": "round",
    "legend.frameon": False,
    "legend.fontsize": 10,
    "svg.hashsalt": "tumortrace",  # the same records give the same bytes
}


def draw_figures(run: Path, figures: Drawings | None = None) -> list[Path]:
    """Draw every figure that the records of a run allow, as PNG (150 dpi) and SVG.

    Those that are drawn whatever the section are reliability and probability_histogram (of the test split, or of the
    validation split where there is no test), learning_curves and, for hand-made descriptors, importances and
    feature_importances.

    Args:
        run: The run folder; its predictions.csv, metrics.json, history.csv, run.json and model.json are read.
        figures: What to draw, a function of the records by name; those named above where None.

    Returns:
        The files written in `figures/`, PNG before SVG of each figure.

    Raises:
        RunError: There is no such run, or a record is damaged.

    Example:
        >>> import tempfile
        >>> run = Path(tempfile.mkdtemp())
        >>> _ = (run / "history.csv").write_text("epoch,train_loss,validation_loss\\n1,.7,.6\\n2,.5,.55\\n")
        >>> _ = (run / "run.json").write_text('{"best_epoch": 2}')
        >>> [path.name for path in draw_figures(run)]
        ['learning_curves.png', 'learning_curves.svg']
    """
    records = read_records(run)
    written = []
    for name, draw in (FIGURES if figures is None else figures).items():
        with rc_context(STYLE), warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Glyph .* missing from")  # a box stands for it in the figure
            figure = draw(records)
            if figure is None:
                continue
            figure.draw_without_rendering()
            figure.set_layout_engine("none")  # laid out once for both files
            for suffix in ("png", "svg"):
                target = records.folder / "figures" / f"{name}.{suffix}"
                with replacing(target) as temporary:
                    metadata = {"Date": None} if suffix == "svg" else None
                    figure.savefig(temporary, format=suffix, dpi=150, metadata=metadata)
                written.append(target)
    return written


def sheet(title: str, x: str, y: str, height: float = 4.4) -> tuple[Figure, Axes]:
    """A figure with one pair of axes, sized to be read at the width of a phone."""
    figure = Figure(figsize=(5.4, height), layout="constrained")
    axes = figure.add_subplot()
    axes.set(title=title, xlabel=x, ylabel=y)
    return figure, axes


def unit_square(axes: Axes) -> None:
    axes.set(xlim=(-0.01, 1.01), ylim=(-0.01, 1.01), aspect="equal")


def legend_below(figure: FigureBase, columns: int = 2) -> None:
    """The legend under the axes, where it hides nothing and takes no width from them."""
    figure.legend(loc="outside lower center", ncols=columns, columnspacing=1.4, handlelength=2.6)


def short(name: str) -> str:
    return name if len(name) <= 24 else name[:23] + "…"


def curves_of(records: Records, split: str) -> Curves | None:
    """The curves of a split, if both classes are among its labelled predictions."""
    table = records.scored(split)
    return curves(table["label"], table["probability"]) if table["label"].nunique() == 2 else None


def draw_reliability(axes: Axes, bins: ReliabilityBins, label: str, colour: str, marker: str = "o") -> None:
    """Observed share by predicted probability, with intervals."""
    error = np.maximum([bins.share - bins.share_low, bins.share_high - bins.share], 0)
    style: dict[str, Any] = {"fmt": f"{marker}-", "color": colour, "elinewidth": 1, "markersize": 5}
    axes.errorbar(bins.probability, bins.share, error, label=label, **style)


def _reliability(records: Records) -> Figure | None:
    table = records.scored(records.split)
    if table["label"].nunique() < 2:
        return None
    points = reliability_bins(table["label"], table["probability"])
    title = f"Reliability, {records.split} split"
    figure, axes = sheet(title, f"Predicted probability of {short(records.classes[1])}", "Observed share", 5.2)
    axes.plot([0, 1], [0, 1], "--", color=MUTED, linewidth=1, label="Perfectly calibrated")
    draw_reliability(axes, points, f"Model, ECE {records.metric('ece')}", INK)
    unit_square(axes)
    legend_below(figure)
    return figure


def _learning_curves(records: Records) -> Figure | None:
    """A small panel for the loss and each metric, training beside validation."""
    history = records.history
    metrics = ("loss", *(name for name in TITLES if name != "nll"))  # the loss of validation is its log loss
    names = [name for name in metrics if {f"validation_{name}", f"train_{name}"} & set(history)]
    if "epoch" not in history or not names:
        return None
    candidates = "head" in history  # of a probe or a learner, which have no epochs
    rows = -(-len(names) // 2)
    figure = Figure(figsize=(5.4, 0.9 + 1.9 * rows), layout="constrained")
    best = records.run.get("best_epoch")
    for place, name in enumerate(names):
        axes = figure.add_subplot(rows, 2, place + 1)
        for side, colour in (("train", MUTED), ("validation", INK)):
            if f"{side}_{name}" in history:
                label = f"{'Training' if side == 'train' else 'Validation'}" if place == 0 else None
                style: dict[str, Any] = {"marker": "o" if len(history) < 16 else "", "markersize": 3, "linewidth": 1.6}
                line = "none" if candidates else ":" if side == "train" else "-"
                axes.plot(history["epoch"], history[f"{side}_{name}"], color=colour, label=label, ls=line, **style)
        if f"folds_{name}" in history:  # of a learner, which is chosen by this metric within folds
            error = history[f"folds_{name}_std"]
            style = {"fmt": "o", "color": NEGATIVE, "markersize": 3, "elinewidth": 1}
            axes.errorbar(history["epoch"] + 0.15, history[f"folds_{name}"], error, **style)
            axes.plot([], [], "o", color=NEGATIVE, markersize=3, label="Folds of training")
        if best:
            label = f"Kept, {'candidate' if candidates else 'epoch'} {best}" if place == 0 else None
            axes.axvline(best, linestyle="--", color=POSITIVE, linewidth=1, label=label)
        axes.set_title(TITLES.get(name, name.capitalize()), fontsize=10.5, pad=4)
        axes.tick_params(labelsize=8.5)
        if place >= len(names) - 2:
            axes.set_xlabel("Candidate" if candidates else "Epoch", fontsize=10)
        axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
    legend_below(figure, 3)
    return figure


def _importances(records: Records) -> Figure | None:
    """What is lost without each descriptor."""
    table = read_table(records.folder / "importances.csv")
    if table.empty:
        return None
    table = table.iloc[::-1]
    height = 1.5 + 0.34 * len(table)
    figure, axes = sheet("What each descriptor matters", "Fall of AUROC when shuffled, validation split", "", height)
    fall = table["auroc_fall"]
    error = np.maximum([fall - table["auroc_fall_low"], table["auroc_fall_high"] - fall], 0)
    axes.barh(table["descriptor"], fall, color=NEGATIVE, xerr=error, error_kw={"ecolor": INK, "elinewidth": 1.2})
    axes.axvline(0, color=MUTED, linewidth=1)
    axes.grid(axis="y", visible=False)
    axes.tick_params(axis="y", length=0, labelcolor=INK)
    return figure


def _feature_importances(records: Records) -> Figure | None:
    """The features that the learner itself leans on most."""
    table = read_table(records.folder / "feature_importances.csv")
    if table.empty:
        return None
    strongest = table[table["importance"] > 0].head(STRONGEST).iloc[::-1]
    figure, axes = sheet("Strongest features", "Share of the importance", "", 1.5 + 0.3 * max(len(strongest), 1))
    axes.barh(strongest["feature"], strongest["importance"], color=LINES[0])
    axes.grid(axis="y", visible=False)
    axes.tick_params(axis="y", length=0, labelcolor=INK, labelsize=9)
    return figure


def _probability_histogram(records: Records) -> Figure | None:
    table = records.scored(records.split)
    if table.empty:
        return None
    title = f"Probabilities by class, {records.split} split"
    figure, axes = sheet(title, f"Predicted probability of {short(records.classes[1])}", "Images", 5.2)
    edges = np.linspace(0, 1, 31).tolist()
    for index, colour in enumerate((NEGATIVE, POSITIVE)):
        values = table.loc[table["label"] == index, "probability"]
        style: dict[str, Any] = {"color": colour, "histtype": "stepfilled", "edgecolor": colour, "linewidth": 1.4}
        axes.hist(values, edges, alpha=0.45, label=f"{short(records.classes[index])} ({len(values):,})", **style)
    if records.threshold is not None:
        label = f"Threshold {decimals(records.threshold)}"
        axes.axvline(records.threshold, linestyle="--", color=INK, linewidth=1.2, label=label)
    axes.yaxis.set_major_locator(MaxNLocator(integer=True))
    legend_below(figure, 3)
    return figure


FIGURES: Drawings = {
    "reliability": _reliability,
    "learning_curves": _learning_curves,
    "importances": _importances,
    "feature_importances": _feature_importances,
    "probability_histogram": _probability_histogram,
}
