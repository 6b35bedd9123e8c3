"""How many images are decided, how many are referred to a person, what is promised of the decisions, and what came."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.figure import Figure

from tumortrace.evaluation.conformal import promise
from tumortrace.evaluation.intervals import share_with_interval
from tumortrace.reports.figures import GRID, INK, Drawings, legend_below, sheet
from tumortrace.reports.records import Records, decimals, interval, read_json


def context(records: Records) -> dict[str, Any] | None:
    """`decisions`: per split, the shares of each decision, and of those made that are right, with intervals.

    Besides `promised`, sentences; `reached` and `triage`, the records of the judged split; `aurc`; `alt`.
    """
    table = records.predictions
    if not {"split", "decision"} <= set(table) or table["decision"].isna().all():
        return None
    rows: list[dict[str, Any]] = []
    for split, part in table.groupby("split", sort=False):
        group = part.get("group")
        row = {key: share_with_interval(part["decision"] == key, group) for key in ("positive", "negative", "refer")}
        decided = part[part["decision"].isin(["positive", "negative"]) & part["label"].notna()]
        right = (decided["decision"] == "positive") == (decided["label"] == 1)
        row["right"] = share_with_interval(right, decided.get("group"))
        rows.append(row | {"split": split, "images": len(part)})
    record = read_json(records.folder / "abstention.json")
    conformal = records.model.get("conformal")
    return {
        "decisions": rows,
        "promised": promise(conformal, records.classes) if conformal and conformal.get("quantiles") else [],
        "reached": record.get("decisions"),
        "triage": record.get("triage"),
        "aurc": record.get("aurc"),
        "alt": {
            "risk_coverage": f"Share called wrongly against share of images kept, {records.split} split: area "
            f"{decimals((record.get('aurc') or {}).get('value'))}"
        },
    }


def _risk_coverage(records: Records) -> Figure | None:
    """What is gained by leaving out the images of which the model is least certain."""
    record = read_json(records.folder / "abstention.json")
    if not record.get("risk_coverage"):
        return None
    kept, risk = np.array(record["risk_coverage"]["kept"]), record["risk_coverage"]["risk"]
    figure, axes = sheet(f"Risk and coverage, {record['split']} split", "Share of images kept", "Share called wrongly")
    ends = np.array([entry["ci95"] or [np.nan, np.nan] for entry in risk])
    axes.fill_between(kept, ends[:, 0], ends[:, 1], color=GRID, label="95 % interval")
    label = f"The most certain are kept, area {decimals(record['aurc']['value'])}{interval(record['aurc'], ' ')}"
    axes.plot(kept, [entry["value"] for entry in risk], color=INK, label=label)
    axes.set(xlim=(0, 1.01), ylim=(0, None))
    legend_below(figure, 1)
    return figure


FIGURES: Drawings = {"risk_coverage": _risk_coverage}
