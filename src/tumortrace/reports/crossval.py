"""The HTML report of a cross-validation, from what its folder has on record."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from tumortrace.evaluation.class_measures import TITLES as CLASS_TITLES
from tumortrace.evaluation.curves import curves
from tumortrace.evaluation.measures import TITLES, prominent
from tumortrace.records.metrics import Estimate, Metrics, SplitMetrics
from tumortrace.records.plans import CrossvalRecord, RecipeResult, Spread
from tumortrace.records.run import RunRecord
from tumortrace.records.tables import HISTORY, PREDICTIONS
from tumortrace.reports.drawing import COLOURS, INK, MUTED, WIDTH, Drawings, draw_figures, ends, legend_below, short
from tumortrace.reports.page import REPORT, Context, write_page
from tumortrace.reports.records import read_run
from tumortrace.reports.wording import decimals, interval, p_text, signed

BARS = ("auroc", "accuracy", "sensitivity", "specificity")
GRID = np.linspace(0, 1, 201)


def write_crossval_report(folder: Path) -> Path:
    """Write report.html of a cross-validation: every fold, their mean and spread, and recipe against recipe.

    Args:
        folder: Its folder; its own records and those of its folds are read.

    Returns:
        Path of report.html, in the same folder.

    Raises:
        RunError: There is no such folder, or a record is damaged.

    Example:
        >>> import tempfile
        >>> folder = Path(tempfile.mkdtemp())
        >>> _ = (folder / "run.json").write_text('{"verb": "crossval", "name": "first"}')
        >>> "No fold is on record" in write_crossval_report(folder).read_text("utf-8")
        True
    """
    folder = Path(folder)
    folds = read_folds(folder)
    return write_page(
        folder / REPORT,
        "crossval.html.j2",
        draw_figures(folder, FIGURES, folds),
        run=folds.run.as_json(),
        data=folds.run.data.as_json(),
        outcome=folds.outcome.as_json(),
        verdict=_verdict(folds),
        recipes={name: recipe.as_json() for name, recipe in folds.recipes.items()},
        metric_names=TITLES,
        class_names=CLASS_TITLES,
        pooled={name: recipe.pooled.as_json() for name, recipe in folds.recipes.items()},
        per_fold=prominent(),
        fold_entries={name: _fold_entries(folder, recipe) for name, recipe in folds.recipes.items()},
        comparisons=_comparisons(folds.outcome),
        leakage_ruled_out=folds.run.leakage.startswith("ruled out"),
    )


def _fold_entries(folder: Path, recipe: RecipeResult) -> list[dict[str, Estimate]]:
    """The metrics of each fold, with the interval that its own run has on record; with none where that run is gone."""
    entries = []
    for fold in recipe.folds:
        recorded = (Metrics.find(folder / fold.run) or Metrics({})).get("test") or SplitMetrics()
        row = {}
        for name in prominent():
            value, entry = fold.metric(name), recorded.get(name) or Estimate()
            same = value is not None and entry.value is not None and abs(value - entry.value) < 1e-9
            row[name] = entry if same else Estimate(value=value)
        entries.append(row)
    return entries


def _comparisons(outcome: CrossvalRecord) -> list[Context]:
    """The recorded comparisons, the pair's tested metrics first."""
    return [
        pair.as_json() | {"order": sorted(pair.differences, key=lambda name: name not in pair.tests)}
        for pair in outcome.comparisons
    ]


def _verdict(folds: Folds) -> list[str]:
    if not folds.recipes:
        return ["No fold is on record."]
    outcome = folds.outcome
    groups = f" of {outcome.groups:,} groups (slides or patients)" if outcome.groups else ""
    repeats = f", {outcome.repeats} times" if outcome.repeats > 1 else ""
    sentences = [f"{outcome.images:,} images{groups} in {outcome.folds} folds{repeats}; a fresh model for each."]
    sentences += [f"{name}: AUROC {spread(recipe.summary.get('auroc'))}." for name, recipe in folds.recipes.items()]
    for pair in outcome.comparisons:
        test, entry = pair.tests["auroc"], pair.differences["auroc"]
        if entry:
            tested = "no test is defined" if test.p is None else f"corrected p {p_text(test.p_holm)}"
            text = f"AUROC of {pair.second} minus that of {pair.first}"
            sentences.append(f"{text}: {signed(entry.mean)}{interval(entry, ' ')} ({tested}).")
    return sentences


def spread(entry: Spread | None) -> str:
    """Mean, standard deviation and corrected interval as text, such as `.912 ± .021 [.871, .953]`."""
    return f"{decimals(entry.mean)} ± {decimals(entry.sd)}{interval(entry, ' ')}" if entry else "not defined"


@dataclass(frozen=True)
class Folds:
    """What the folder of a cross-validation has on record; a missing record is empty."""

    folder: Path
    run: RunRecord
    outcome: CrossvalRecord
    predictions: pd.DataFrame

    @property
    def recipes(self) -> dict[str, RecipeResult]:
        """By name."""
        return self.outcome.recipes

    @cached_property
    def histories(self) -> dict[str, list[tuple[pd.DataFrame, int | None]]]:
        """By recipe, the history of each fold's training and the epoch that was kept; probes have none."""
        histories: dict[str, list[tuple[pd.DataFrame, int | None]]] = {}
        for name, recipe in self.recipes.items():
            for fold in recipe.folds:
                table = HISTORY.find(self.folder / fold.run)
                if "epoch" in table and "validation_auroc" in table and "head" not in table:
                    histories.setdefault(name, []).append((table, fold.best_epoch))
        return histories

    def colour(self, name: str) -> str:
        """The same colour for a recipe in every figure."""
        return COLOURS[list(self.recipes).index(name) % len(COLOURS)]


def read_folds(folder: Path) -> Folds:
    """Read the records of a cross-validation's folder.

    Raises:
        RunError: There is none, or one is damaged.
    """
    outcome = CrossvalRecord.find(folder) or CrossvalRecord()
    return Folds(folder, read_run(folder, "crossval", "a cross-validation"), outcome, PREDICTIONS.find(folder))


def _recipes(folds: Folds) -> Figure | None:
    """A bar for each recipe's mean, its corrected interval, and a point for each fold."""
    names = list(folds.recipes)
    if not names:
        return None
    figure = Figure(figsize=(WIDTH, 1.6 + 2 * (0.55 + 0.42 * len(names))), layout="constrained")
    grid = figure.subplots(2, 2, sharey=True, squeeze=False)
    for axes, metric in zip(grid.flat, BARS, strict=True):
        _bars(axes, folds, names, metric)
    grid[0, 0].set_yticks(range(len(names)), [short(name, 18) for name in names])
    grid[0, 0].invert_yaxis()
    grid[0, 0].plot([], [], "o", color=INK, markersize=4, label="A fold")
    grid[0, 0].plot([], [], "-", color=INK, linewidth=1.6, label="Corrected 95 % interval of the mean")
    legend_below(figure, 2)
    return figure


def _bars(axes: Axes, folds: Folds, names: list[str], metric: str) -> None:
    for place, name in enumerate(names):
        recipe, colour = folds.recipes[name], folds.colour(name)
        entry = recipe.summary.get(metric)
        if not entry:
            continue
        axes.barh(place, np.nan if entry.mean is None else entry.mean, 0.62, color=colour, alpha=0.4)
        values = [value for fold in recipe.folds if (value := fold.metric(metric)) is not None]
        shift = np.linspace(-0.2, 0.2, len(values)) if len(values) > 1 else np.zeros(1)
        axes.plot(values, place + shift, "o", color=INK, markersize=3.2, zorder=3)
        axes.plot(ends(entry), [place, place], "-", color=INK, linewidth=1.6, zorder=2)
    axes.set(xlim=(-0.02, 1.02), xticks=[0, 0.25, 0.5, 0.75, 1])
    axes.set_title(TITLES[metric], fontsize=10.5, pad=4)
    axes.tick_params(axis="y", labelcolor=INK, length=0)
    axes.tick_params(axis="x", labelsize=8.5)
    axes.grid(axis="y", visible=False)


def _learning_curves(folds: Folds) -> Figure | None:
    """Loss and AUROC of the validation split over the epochs, a line per fold; the kept epoch is marked."""
    if not folds.histories:
        return None
    figure = Figure(figsize=(WIDTH, 3.6), layout="constrained")
    for axes, column, title in zip(
        figure.subplots(1, 2), ("validation_loss", "validation_auroc"), ("Loss", "AUROC"), strict=True
    ):
        for name, histories in folds.histories.items():
            colour, label = folds.colour(name), short(name) if column == "validation_loss" else ""
            for table, best in histories:
                axes.plot(table["epoch"], table[column], color=colour, linewidth=1.1, alpha=0.75, label=label)
                kept = table[table["epoch"] == best]
                axes.plot(kept["epoch"], kept[column], "o", color=colour, markersize=4.5)
                label = ""
        axes.set_title(f"Validation {title if title == 'AUROC' else title.lower()}", fontsize=10.5, pad=4)
        axes.set_xlabel("Epoch", fontsize=10)
        axes.tick_params(labelsize=8.5)
        axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
    figure.axes[0].plot([], [], "o", color=INK, markersize=4.5, label="Epoch kept")
    legend_below(figure, 2)
    return figure


def _roc(folds: Folds) -> Figure | None:
    """A panel per recipe: the curve of each fold, and their mean sensitivity at each specificity."""
    table = folds.predictions
    if table.empty:
        return None
    names = list(folds.recipes)
    columns = min(2, len(names))
    rows = -(-len(names) // columns)
    side = WIDTH / columns
    figure = Figure(figsize=(WIDTH, rows * (side + 0.35) + 0.3), layout="constrained")
    for place, name in enumerate(names):
        axes = figure.add_subplot(rows, columns, place + 1)
        heights = []
        for _, part in table[table["recipe"] == name].groupby(["repeat", "fold"]):
            points = curves(part["label"], part["probability"])
            if len(points.fpr):
                axes.plot(points.fpr, points.tpr, color=folds.colour(name), linewidth=0.9, alpha=0.7)
                heights.append(mean_height(points.fpr, points.tpr))
        if heights:
            axes.plot(np.append(0, GRID), np.append(0, np.mean(heights, axis=0)), color=INK, linewidth=2.2)
        axes.plot([0, 1], [0, 1], "--", color=MUTED, linewidth=1)
        axes.set(xlim=(-0.01, 1.01), ylim=(-0.01, 1.01), aspect="equal", xlabel="1 − specificity")
        axes.set_ylabel("Sensitivity" if place % columns == 0 else "")
        entry = folds.recipes[name].summary.get("auroc")
        mean = f", mean AUROC {decimals(entry.mean)}" if entry else ""
        axes.set_title(short(name, 22) + (mean if columns == 1 else mean.replace(", ", "\n")), fontsize=10.5)
    figure.axes[0].plot([], [], color=MUTED, linewidth=0.9, label="A fold (in the recipe's colour)")
    figure.axes[0].plot([], [], color=INK, label="Mean of the folds")
    legend_below(figure, 2)
    return figure


def mean_height(fpr: np.ndarray, tpr: np.ndarray) -> np.ndarray:
    """Sensitivities at evenly spaced false positive rates, the curve's upper end where it rises steeply.

    Example:
        >>> mean_height(np.array([0.0, 0.0, 1.0]), np.array([0.0, 0.5, 1.0]))[[0, 100, 200]]
        array([0.5 , 0.75, 1.  ])
    """
    last = np.append(np.diff(fpr) > 0, True)  # of the points at one false positive rate, the highest
    return np.asarray(np.interp(GRID, fpr[last], tpr[last]))


FIGURES: Drawings = {
    "recipes": _recipes,
    "learning_curves": _learning_curves,
    "roc": _roc,
}
