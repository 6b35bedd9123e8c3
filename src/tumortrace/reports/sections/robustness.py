"""What a worse laboratory does to the model, where `stress` has been run."""

from __future__ import annotations

from typing import Any

from matplotlib.figure import Figure

from tumortrace.reports.figures import Drawings
from tumortrace.reports.records import Records, read_json
from tumortrace.reports.stress import stress_verdict
from tumortrace.reports.stress_figures import loss_figure

RECORD = "stress/stress.json"


def context(records: Records) -> dict[str, Any] | None:
    """`stress` (its record), `robustness` (sentences) and `alt`; None where the run has no stress test."""
    record = read_json(records.folder / RECORD)
    if not record.get("corruptions"):
        return None
    alt = {"robustness": "Change of AUROC for each corruption and strength"}
    return {"stress": record, "robustness": stress_verdict(record), "alt": alt}


def _loss(records: Records) -> Figure | None:
    record = read_json(records.folder / RECORD)
    return loss_figure(record) if record.get("corruptions") else None


FIGURES: Drawings = {"robustness": _loss}
