"""The HTML report of a search over recipes, from what its folder has on record."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from tumortrace.evaluation.class_measures import TITLES as CLASS_TITLES
from tumortrace.evaluation.class_measures import WATCHED, watched
from tumortrace.evaluation.measures import TITLES
from tumortrace.records.metrics import Estimate, Metrics, SplitMetrics
from tumortrace.records.plans import StudyRecord
from tumortrace.records.run import Run, RunRecord
from tumortrace.records.tables import HISTORY, TRIALS
from tumortrace.reports.drawing import (
    GRID,
    INK,
    LINES,
    MUTED,
    NEGATIVE,
    POSITIVE,
    Drawings,
    draw_figures,
    legend_below,
    name_rows,
    sheet,
)
from tumortrace.reports.page import REPORT, Context, write_page
from tumortrace.reports.records import read_run
from tumortrace.reports.wording import decimals, interval

FEW_FINISHED = 20


def write_tuning_report(folder: Path) -> Path:
    """Write report.html of a search: one file that opens anywhere, with every trial and its figures.

    Args:
        folder: The search's folder; its run.json, study.json, metrics.json, trials.csv, space.yaml, best.yaml and the
            trials' history.csv are read.

    Returns:
        Path of report.html, in the same folder.

    Raises:
        RunError: There is no such folder, or a record is damaged.

    Example:
        >>> import tempfile
        >>> folder = Path(tempfile.mkdtemp())
        >>> _ = (folder / "run.json").write_text('{"verb": "tune", "name": "first"}')
        >>> "No trial was finished" in write_tuning_report(folder).read_text("utf-8")
        True
    """
    folder = Path(folder)
    search = read_search(folder)
    best = search.study.best
    return write_page(
        folder / REPORT,
        "tuning.html.j2",
        draw_figures(folder, FIGURES, search),
        run=search.run.as_json(),
        study=search.study.as_json(),
        data=search.run.data.as_json(),
        label=search.label,
        verdict=_verdict(search),
        entry=search.entry,
        class_metrics={f"Trial {search.best}": search.metrics.as_json()},
        class_names=CLASS_TITLES,
        entry_note=(search.metrics.intervals or "no interval").rstrip("."),
        best=search.best,
        parameters={name: shorten_parameter(name) for name in search.parameters},
        best_parameters={name: _plain(v) for name, v in best.parameters.items()} if best else {},
        trials=_rows(search.trials),
        failures=_failures(search.trials),
        seconds=float(search.trials["seconds"].sum()),
        few=search.study.counts.get("finished", 0) < FEW_FINISHED,
        files={name: _text(folder / name) for name in (Run.BEST, Run.SPACE)},
        leakage_ruled_out=search.run.leakage.startswith("ruled out"),
    )


def _verdict(search: Search) -> list[str]:
    best = search.study.best
    if not best:
        return ["No trial was finished."]
    tried = sum(search.study.counts.values())
    value = f"{search.label} {decimals(best.value)}{interval(search.entry, ' ')}"
    return [
        f"Best of {tried} trials: trial {best.number}, {value[0].lower()}{value[1:]}.",
        "A validation score that was chosen as the best of many is optimistic, and its interval does not make up for "
        "that. The calibration and test splits were not looked at: train the best recipe to learn what it is worth.",
    ]


def _rows(trials: pd.DataFrame) -> list[Context]:
    """Trials in their order, as the template shows them."""
    plain = trials.astype(object).where(trials.notna(), None)
    return [{str(name): _plain(value) for name, value in row.items()} for row in plain.to_dict("records")]


def _failures(trials: pd.DataFrame) -> dict[str, list[int]]:
    """Numbers of the trials that failed with each error."""
    failed = trials[trials["error"].notna()]
    return {str(error): part["number"].tolist() for error, part in failed.groupby("error", sort=False)}


def _plain(value: Any) -> Any:
    """Whole numbers without decimals (a column with gaps holds floats), others with four digits."""
    if isinstance(value, float):
        return int(value) if value.is_integer() else float(f"{value:.4g}")
    return value


def _text(path: Path) -> str | None:
    return path.read_text("utf-8", errors="replace") if path.is_file() else None


RECORDED = ("number", "state", "value", "epochs", "best_epoch", "seconds", "seed", "interruptions", "error")
VALUES = LinearSegmentedColormap.from_list("values", ["#c3ced6", NEGATIVE])
UNDER: Any = {"boxstyle": "square,pad=0.1", "facecolor": "white", "edgecolor": "none", "alpha": 0.8}
FEW = 6  # distinct values that stand side by side on an axis instead of along a scale
ABSENT = 1.13


@dataclass(frozen=True)
class Search:
    """What the folder of a search has on record; a missing record is empty."""

    folder: Path
    run: RunRecord
    study: StudyRecord
    metrics: SplitMetrics
    trials: pd.DataFrame

    @property
    def metric(self) -> str:
        """The objective's name in records."""
        return str(self.study.objective.get("metric", "objective"))

    @property
    def label(self) -> str:
        """The objective's name for people, as in "Validation F1"."""
        return f"Validation {(TITLES | WATCHED).get(self.metric, self.metric)}"

    @property
    def best(self) -> int | None:
        """Number of the best trial."""
        return self.study.best.number if self.study.best else None

    @property
    def entry(self) -> Estimate:
        """The best trial's objective with its interval; the validation loss is the log loss of the probabilities."""
        of_classes = watched(self.metrics.classes) if self.metrics.classes else {}
        known = self.metrics.get("nll" if self.metric == "loss" else self.metric)
        return known or of_classes.get(self.metric) or Estimate()

    @property
    def rises(self) -> bool:
        """Whether larger values are better."""
        return self.study.objective.get("direction") != "minimise"

    @property
    def parameters(self) -> list[str]:
        """Names of the parameters, as in the recipe."""
        return [str(name) for name in self.trials if name not in RECORDED]

    def of_state(self, *states: str) -> pd.DataFrame:
        """Trials that ended so."""
        return self.trials[self.trials["state"].isin(states)]

    def history(self, number: int) -> pd.DataFrame:
        """One row per epoch of a trial."""
        return HISTORY.find(self.folder / "trials" / f"{number:04}")


def read_search(folder: Path) -> Search:
    """Read the records of a search's folder.

    Raises:
        RunError: A record is damaged.
    """
    trials, metrics = TRIALS.find(folder), Metrics.find(folder)
    trials = trials if "state" in trials else pd.DataFrame(columns=list(RECORDED))
    validation = (metrics and metrics.get("validation")) or SplitMetrics()
    return Search(
        folder, read_run(folder, "tune", "a search"), StudyRecord.find(folder) or StudyRecord(), validation, trials
    )


def shorten_parameter(parameter: str) -> str:
    """A parameter's name without what goes without saying.

    Example:
        >>> shorten_parameter("model.arguments.head.0.dense"), shorten_parameter("optimiser.lr")
        ('head.0.dense', 'optimiser.lr')
    """
    return parameter.removeprefix("model.arguments.")


def _history(search: Search) -> Figure | None:
    ended = search.of_state("finished", "pruned")
    if ended.empty:
        return None
    figure, axes = sheet("Trials in their order", "Trial", search.label, 4.4)
    finished, pruned, failed = (search.of_state(state) for state in ("finished", "pruned", "failed"))
    axes.plot(pruned["number"], pruned["value"], "x", color=MUTED, markersize=6, label="Pruned, last value")
    axes.plot(finished["number"], finished["value"], "o", color=NEGATIVE, markersize=6, label="Finished")
    best_so_far = finished["value"].cummax() if search.rises else finished["value"].cummin()
    axes.step(finished["number"], best_so_far, where="post", color=POSITIVE, label="Best so far")
    best = finished[finished["number"] == search.best]
    axes.plot(best["number"], best["value"], "o", color=POSITIVE, markersize=9, zorder=3)
    if len(failed):
        floor = axes.get_ylim()[0]
        axes.plot(failed["number"], [floor] * len(failed), "^", color=INK, markersize=5, label="Failed", clip_on=False)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    legend_below(figure)
    return figure


def _learning_curves(search: Search) -> Figure | None:
    figure, axes = sheet("Learning curves of the trials", "Epoch", search.label, 4.4)
    column, seen = f"validation_{search.metric}", set()
    for number, state in zip(search.trials["number"], search.trials["state"], strict=True):
        history = search.history(number)
        if column not in history or state not in ("finished", "pruned"):
            continue
        kind = "Best" if number == search.best else state.capitalize()
        style: Any = {
            "Best": {"color": POSITIVE, "linewidth": 2.6, "zorder": 3, "marker": "o", "markersize": 4},
            "Finished": {"color": NEGATIVE, "linewidth": 1.2, "alpha": 0.55, "marker": "o", "markersize": 3},
            "Pruned": {"color": MUTED, "linewidth": 1.2, "alpha": 0.7, "marker": "x", "markevery": [-1]},
        }[kind]
        axes.plot(history["epoch"], history[column], label="" if kind in seen else kind, **style)
        seen.add(kind)
    if not seen:
        return None
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    legend_below(figure, 3)
    return figure


def _importance(search: Search) -> Figure | None:
    importances = search.study.importances
    names = sorted({name for shares in importances.values() for name in shares})
    if not names:
        return None
    order = sorted(names, key=lambda name: (sum(shares.get(name, 0) for shares in importances.values()), name))
    figure, axes = sheet("What the parameters matter", "Share", "", 1.6 + 0.42 * len(order))
    methods = {"fanova": ("fANOVA", NEGATIVE), "ped_anova": ("PED-ANOVA", LINES[2])}
    for offset, (method, (label, colour)) in zip((0.2, -0.2), methods.items(), strict=True):
        shares = importances.get(method, {})
        axes.barh(
            np.arange(len(order)) + offset, [shares.get(name, 0) for name in order], 0.36, color=colour, label=label
        )
    name_rows(axes, [shorten_parameter(name) for name in order])
    legend_below(figure)
    return figure


def _parallel_coordinates(search: Search) -> Figure | None:
    """One axis per parameter, stacked so that they stay legible on a phone; each trial is a line from top to bottom."""
    trials = search.of_state("finished", "pruned")
    if len(trials) < 2 or not search.parameters:
        return None
    logarithmic = search.study.logarithmic
    scales = {search.label: _scale(trials["value"], False)}
    drawn = [name for name in search.parameters if trials[name].notna().any()]
    scales |= {shorten_parameter(name): _scale(trials[name], name in logarithmic) for name in drawn}
    figure, axes = sheet("Trials across the parameters", "", "", 1.2 + 0.58 * len(scales))
    rows = -np.arange(len(scales), dtype=float)
    for row, (name, (_, ticks)) in zip(rows, scales.items(), strict=True):
        axes.plot([0, 1], [row, row], color=GRID, linewidth=1, zorder=0)
        axes.text(-0.06, row, name, fontsize=9, ha="right", va="center", color=INK)
        for place, text in ticks.items():
            axes.text(place, row - 0.3, text, fontsize=8.5, ha="center", va="center", color=MUTED, bbox=UNDER, zorder=4)
    places = np.array([scale for scale, _ in scales.values()])
    rank = trials["value"].rank(pct=True, ascending=search.rises).fillna(0).to_numpy()
    for column in np.argsort(rank):
        number, state = trials["number"].iloc[column], trials["state"].iloc[column]
        best, pruned = number == search.best, state == "pruned"
        style: Any = {"color": VALUES(rank[column]), "linewidth": 0.9 if pruned else 1.5, "zorder": 2}
        style |= {"linestyle": ":"} if pruned else {}
        style |= {"color": POSITIVE, "linewidth": 2.6, "zorder": 3} if best else {}
        label = f"Best, trial {number}" if best else ""
        axes.plot(places[:, column], rows, label=label, marker="o", markersize=3, **style)
    axes.plot([], [], color=VALUES(1.0), label="Better")
    axes.plot([], [], color=VALUES(0.0), label="Worse")
    axes.plot([], [], ":", color=MUTED, label="Pruned")
    axes.set(xlim=(-0.02, 1.2 if places.max() > 1 else 1.06), ylim=(rows[-1] - 0.5, 0.3))
    axes.axis("off")
    legend_below(figure, 4)
    return figure


def _scale(values: pd.Series, logarithmic: bool) -> tuple[np.ndarray, dict[float, str]]:
    """Places of values on an axis from 0 to 1, and its ticks; values that a trial does not have stand beside it."""
    known = values.dropna()
    numeric = pd.api.types.is_numeric_dtype(known) and not pd.api.types.is_bool_dtype(known)
    distinct = sorted(known.unique(), key=lambda value: value if numeric else str(value))
    if not numeric or (len(distinct) <= FEW and not logarithmic and values.name != "value"):
        step = {value: index / max(1, len(distinct) - 1) for index, value in enumerate(distinct)}
        places = np.array([step.get(value, ABSENT) for value in values])
        ticks = {place: _number(value) if numeric else str(value)[:14] for value, place in step.items()}
    else:
        scaled = (np.log10(values) if logarithmic else values).to_numpy(dtype=float)
        low, high = float(np.nanmin(scaled)), float(np.nanmax(scaled))
        places = np.nan_to_num((scaled - low) / ((high - low) or 1.0), nan=ABSENT)
        ticks = {0.0: _number(known.min())} | ({1.0: _number(known.max())} if high > low else {})
    return places, ticks | ({ABSENT: "absent"} if values.isna().any() else {})


def _number(value: float) -> str:
    if float(value).is_integer():
        return f"{value:.0f}"
    return decimals(value) if 0.01 <= abs(value) < 1 else f"{value:.2g}".replace("0.", ".", 1)


FIGURES: Drawings = {
    "history": _history,
    "learning_curves": _learning_curves,
    "importance": _importance,
    "parallel_coordinates": _parallel_coordinates,
}
