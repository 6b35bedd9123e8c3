"""Sections on the audit of the data, on how the training went, and on what hand-made descriptors matter."""

from __future__ import annotations

from collections.abc import Hashable
from typing import Any

import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from tumortrace.evaluation.class_measures import WATCHED
from tumortrace.evaluation.measures import TITLES as OF_TWO
from tumortrace.records.data import AuditRecord
from tumortrace.records.tables import FEATURE_IMPORTANCES, IMPORTANCES
from tumortrace.reports.drawing import INK, LINES, MUTED, NEGATIVE, POSITIVE, WIDTH, legend_below, name_rows, sheet
from tumortrace.reports.page import Context
from tumortrace.reports.records import Records
from tumortrace.reports.wording import decimals

#: Titles of what a history holds of two classes, and of more.
TITLES = OF_TWO | WATCHED
STRONGEST = 15  # features in the figure


def tell_audit(records: Records) -> Context | None:
    """`audit`: audit.json, or what the training's own check found; `allowed`: the findings that it was let pass."""
    checked = records.run.audit
    audit = AuditRecord.find(records.folder) or checked
    return {"audit": audit.as_json(), "allowed": checked.allowed if checked else []} if audit else None


def tell_training(records: Records) -> Context | None:
    """`candidates` (see `_candidates`), `kept_epoch` (see `_kept`) and `alt`."""
    history = records.history
    if "epoch" not in history:
        return None
    kind = "candidates" if "head" in history else "epochs"
    words = f"Loss and metrics, training and validation, over {len(history)} {kind}"
    return {"candidates": _candidates(records), "kept_epoch": _kept(records), "alt": {"learning_curves": words}}


def _kept(records: Records) -> dict[str, dict[str, float | None]]:
    """The metrics of the epoch whose weights were kept, `train` beside `validation`, by label."""
    history = records.history
    row = history[history["epoch"] == records.run.best_epoch]
    if len(row) != 1:
        return {}
    kept = {}
    for name in ("loss", *TITLES):
        columns = {side: f"{side}_{name}" for side in ("train", "validation")}
        if any(column in row for column in columns.values()):
            values = {side: float(row[column].iloc[0]) if column in row else None for side, column in columns.items()}
            kept[TITLES.get(name, name.capitalize())] = values
    return kept


def _candidates(records: Records) -> list[dict[Hashable, Any]]:
    """What a probe or a learner chose from; `folds` and `spread` where folds of the training split chose."""
    history = records.history
    if "head" not in history:
        return []
    names = [str(name) for name in history]
    mean = next((name for name in names if name.startswith("folds_") and not name.endswith("_std")), None)
    table = history if mean is None else history.assign(folds=history[mean], spread=history[f"{mean}_std"])
    metric = str(mean).removeprefix("folds_")
    return table.assign(by=TITLES.get(metric, metric.capitalize())).to_dict("records")


def draw_learning_curves(records: Records) -> Figure | None:
    """A small panel for the loss and each metric, training beside validation."""
    history = records.history
    metrics = ("loss", *(name for name in TITLES if name != "nll"))  # the loss of validation is its log loss
    names = [name for name in metrics if {f"validation_{name}", f"train_{name}"} & set(history)]
    if "epoch" not in history or not names:
        return None
    candidates = "head" in history  # of a probe or a learner, which have no epochs
    rows = -(-len(names) // 2)
    figure = Figure(figsize=(WIDTH, 0.9 + 1.9 * rows), layout="constrained")
    best = records.run.best_epoch
    for place, name in enumerate(names):
        axes = figure.add_subplot(rows, 2, place + 1)
        for side, colour in (("train", MUTED), ("validation", INK)):
            if f"{side}_{name}" in history:
                label = f"{'Training' if side == 'train' else 'Validation'}" if place == 0 else None
                style: Any = {"marker": "o" if len(history) < 16 else "", "markersize": 3, "linewidth": 1.6}
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


def tell_importances(records: Records) -> Context | None:
    """`alt`: the first rows of both tables of importances in words."""
    falls = IMPORTANCES.find(records.folder)
    if falls.empty:
        return None
    fall = _first(falls, "descriptor", "auroc_fall")
    share = _first(FEATURE_IMPORTANCES.find(records.folder), "feature", "importance")
    return {
        "alt": {
            "importances": f"Fall of the validation AUROC when a descriptor is shuffled: {fall}",
            "feature_importances": f"Share of the importance by feature: {share}",
        }
    }


def _first(table: pd.DataFrame, by: str, value: str) -> str:
    rows = table.head(5).to_dict("records")
    return ", ".join(f"{row[by]} {decimals(row[value])}" for row in rows) or "not available"


def draw_importances(records: Records) -> Figure | None:
    """What is lost without each descriptor."""
    table = IMPORTANCES.find(records.folder)
    if table.empty:
        return None
    table = table.iloc[::-1]
    height = 1.5 + 0.34 * len(table)
    figure, axes = sheet("What each descriptor matters", "Fall of AUROC when shuffled, validation split", "", height)
    fall = table["auroc_fall"].to_numpy()
    error = (fall - table["auroc_fall_low"], table["auroc_fall_high"] - fall)
    style: Any = {"color": NEGATIVE, "error_kw": {"ecolor": INK, "elinewidth": 1.2}}
    axes.barh(range(len(table)), fall, xerr=[side.clip(lower=0) for side in error], **style)
    axes.axvline(0, color=MUTED, linewidth=1)
    name_rows(axes, table["descriptor"].tolist())
    return figure


def draw_feature_importances(records: Records) -> Figure | None:
    """The features that the learner itself leans on most."""
    table = FEATURE_IMPORTANCES.find(records.folder)
    if table.empty:
        return None
    strongest = table[table["importance"] > 0].head(STRONGEST).iloc[::-1]
    figure, axes = sheet("Strongest features", "Share of the importance", "", 1.5 + 0.3 * max(len(strongest), 1))
    axes.barh(range(len(strongest)), strongest["importance"], color=LINES[0])
    name_rows(axes, strongest["feature"].tolist(), 9)
    return figure
