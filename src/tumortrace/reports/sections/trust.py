"""Sections on how far a prediction can be trusted: calibration, decisions, likeness to training, robustness."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from scipy.special import expit

from tumortrace.evaluation.abstention import MANY
from tumortrace.evaluation.conformal import Conformal, promise
from tumortrace.evaluation.curves import ReliabilityBins, reliability_bins
from tumortrace.evaluation.intervals import share_with_interval
from tumortrace.evaluation.reliability import CALIBRATION
from tumortrace.records.metrics import AbstentionRecord, CalibrationRecord, DistributionRecord
from tumortrace.reports.drawing import (
    CLASS_COLOURS,
    GRID,
    INK,
    LINES,
    MUTED,
    POSITIVE,
    ends,
    legend_below,
    number,
    sheet,
    short,
    unit_square,
)
from tumortrace.reports.page import Context
from tumortrace.reports.records import Records
from tumortrace.reports.stress import draw_loss, stress_verdict
from tumortrace.reports.wording import decimals, estimate

FARTHEST = 4.0  # scores beyond this stand at the edge of the figure of likeness


def tell_calibration(records: Records) -> Context:
    """`choice`, how the calibration was chosen; `measures`, rows before and after; `compared`, likelihoods; `alt`."""
    record = CalibrationRecord.find(records.folder) or CalibrationRecord()
    before, after = record.before or {}, record.after
    on = f"on the {records.split} split"
    return {
        "choice": record.choice.as_json() if record.choice else {},
        "measures": [
            {"name": name, "label": row.title, "before": before.get(name), "after": after[name]}
            for name, row in CALIBRATION.items()
            if name in after
        ],
        "compared": (record.choice and record.choice.cross_validated_nll) or {},
        "alt": {
            "reliability": f"Observed share against predicted probability {on}: ECE {records.metric('ece')}",
            "calibration": f"Observed share against probability {on}, before calibration: "
            f"ECE {estimate(before.get('ece'))}, and after: ECE {estimate(after.get('ece'))}",
            "probability_histogram": f"Histogram of predicted probabilities by class {on}",
        },
    }


def draw_reliability(records: Records) -> Figure | None:
    """Observed share against predicted probability."""
    table = records.scored(records.split)
    if table["label"].nunique() < 2:
        return None
    figure, axes = _reliability_sheet(records, "Reliability")
    _plot_reliability(
        axes, reliability_bins(table["label"], table["probability"]), f"Model, ECE {records.metric('ece')}", INK, "o"
    )
    legend_below(figure)
    return figure


def draw_calibration(records: Records) -> Figure | None:
    """Reliability of the model by itself beside that after calibration."""
    record, table = CalibrationRecord.find(records.folder), records.scored(records.split)
    if not record or not record.before or "logit" not in table or table["label"].nunique() < 2:
        return None
    figure, axes = _reliability_sheet(records, "Calibration")
    for side, measured, probability, colour, marker in (
        ("Before", record.before, expit(table["logit"]), POSITIVE, "s"),
        ("After", record.after, table["probability"], INK, "o"),
    ):
        label = f"{side}, ECE {estimate(measured.get('ece'))}"
        _plot_reliability(axes, reliability_bins(table["label"], probability), label, colour, marker)
    legend_below(figure, 1)
    return figure


def _reliability_sheet(records: Records, title: str) -> tuple[Figure, Axes]:
    x = f"Predicted probability of {short(records.classes[1])}"
    figure, axes = sheet(f"{title}, {records.split} split", x, "Observed share", 5.2)
    axes.plot([0, 1], [0, 1], "--", color=MUTED, linewidth=1, label="Perfectly calibrated")
    unit_square(axes)
    return figure, axes


def _plot_reliability(axes: Axes, bins: ReliabilityBins, label: str, colour: str, marker: str) -> None:
    error = np.maximum([bins.share - bins.share_low, bins.share_high - bins.share], 0)
    style: Any = {"fmt": f"{marker}-", "color": colour, "elinewidth": 1, "markersize": 5, "label": label}
    axes.errorbar(bins.probability, bins.share, error, **style)


def draw_probability_histogram(records: Records) -> Figure | None:
    """How many images of each class get which probability."""
    table = records.scored(records.split)
    if table.empty:
        return None
    title = f"Probabilities by class, {records.split} split"
    figure, axes = sheet(title, f"Predicted probability of {short(records.classes[1])}", "Images", 5.2)
    edges = np.linspace(0, 1, 31).tolist()
    for index, name in enumerate(records.classes):
        values, colour = table.loc[table["label"] == index, "probability"], CLASS_COLOURS[index]
        style: Any = {"color": colour, "histtype": "stepfilled", "edgecolor": colour, "linewidth": 1.4}
        axes.hist(values, edges, alpha=0.45, label=f"{short(name)} ({len(values):,})", **style)
    if records.threshold is not None:
        label = f"Threshold {decimals(records.threshold)}"
        axes.axvline(records.threshold, linestyle="--", color=INK, linewidth=1.2, label=label)
    axes.yaxis.set_major_locator(MaxNLocator(integer=True))
    legend_below(figure, 3)
    return figure


def tell_decisions(records: Records) -> Context | None:
    """`decisions`: per split, the shares of each decision, and of those made that are right, with intervals.

    Besides `promised`, sentences; `reached` and `triage`, the records of the judged split; `alt`.
    """
    table = records.predictions
    if not {"split", "decision"} <= set(table) or table["decision"].isna().all():
        return None
    rows: list[Context] = []
    for split, part in table.groupby("split", sort=False):
        group = part.get("group")
        row: Context = {
            key: share_with_interval(part["decision"] == key, group) for key in ("positive", "negative", "refer")
        }
        decided = part[part["decision"].isin(["positive", "negative"]) & part["label"].notna()]
        right = (decided["decision"] == "positive") == (decided["label"] == 1)
        row = {**row, "right": share_with_interval(right, decided.get("group"))}
        rows.append({**row, "split": split, "images": len(part)})
    record = AbstentionRecord.find(records.folder) or AbstentionRecord()
    conformal = records.model.conformal
    area = decimals(record.aurc.value)
    words = f"Share called wrongly against share of {records.unit}s kept, {records.split} split: area {area}"
    return {
        "decisions": rows,
        "promised": promise(Conformal.model_validate(conformal), records.classes, records.unit)
        if conformal and conformal.get("quantiles")
        else [],
        "reached": record.decisions,
        "triage": record.triage,
        "alt": {"risk_coverage": words},
    }


def draw_risk_coverage(records: Records) -> Figure | None:
    """What is gained by leaving out the images of which the model is least certain."""
    record = AbstentionRecord.find(records.folder)
    if not record or not record.risk_coverage.kept:
        return None
    kept, risk = np.array(record.risk_coverage.kept), record.risk_coverage.risk
    figure, axes = sheet(
        f"Risk and coverage, {record.split} split", f"Share of {records.unit}s kept", "Share called wrongly"
    )
    low, high = np.array([ends(entry) for entry in risk]).T
    axes.fill_between(kept, low, high, color=GRID, label="95 % interval")
    label = f"The most certain are kept, area {estimate(record.aurc)}"
    axes.plot(kept, [number(entry) for entry in risk], color=INK, label=label)
    axes.set(xlim=(0, 1.01), ylim=(0, None))
    legend_below(figure, 1)
    return figure


def tell_distribution(records: Records) -> Context | None:
    """`outside`: per split, how many images and their share; `limits`; `strange`, whether they are many; `alt`."""
    record = DistributionRecord.find(records.folder)
    if not record or not record.splits:
        return None
    judged = record.splits.get(record.split)
    low = judged.outside.ci95[0] if judged and judged.outside.ci95 else None
    return {
        "outside": record.splits,
        "limits": record.limits or {},
        "strange": low is not None and low > MANY,
        "alt": {
            "likeness": f"Histogram of distances from the training {records.unit}s, {records.split} split, limit at 1"
        },
    }


def draw_likeness(records: Records) -> Figure | None:
    """Scores of the judged split beside those of the validation split, which set the limit."""
    table = records.predictions
    if "ood_score" not in table or table["ood_score"].isna().all():
        return None
    figure, axes = sheet(
        f"Likeness to the training {records.unit}s", "Distance, the limit being 1", f"Share of {records.unit}s"
    )
    edges = np.linspace(0, FARTHEST, 41).tolist()
    splits = [name for name in dict.fromkeys(["validation", records.split]) if (table["split"] == name).any()]
    for name in splits:
        values = table.loc[table["split"] == name, "ood_score"].clip(upper=FARTHEST - 0.01)
        colour = INK if name == records.split else LINES[3]
        style: Any = {"color": colour, "histtype": "step", "linewidth": 1.6}
        weights = np.full(len(values), 1 / len(values))
        axes.hist(values, edges, weights=weights, label=f"{name.capitalize()} ({len(values):,})", **style)
    axes.axvline(1, linestyle="--", color=MUTED, linewidth=1.2, label="Limit")
    axes.set(xlim=(0, FARTHEST))
    legend_below(figure, 3)
    return figure


def tell_robustness(records: Records) -> Context | None:
    """`stress` (its record), `robustness` (sentences) and `alt`; None where the run has no stress test."""
    if not records.stress or not records.stress.corruptions:
        return None
    alt = {"robustness": "Change of AUROC for each corruption and strength"}
    return {"stress": records.stress.as_json(), "robustness": stress_verdict(records.stress), "alt": alt}


def draw_robustness(records: Records) -> Figure | None:
    """By how much AUROC changes, corruption by strength."""
    return draw_loss(records.stress) if records.stress and records.stress.corruptions else None
