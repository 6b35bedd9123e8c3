"""Whether a probability of .7 means seven in ten."""

from __future__ import annotations

from typing import Any

from tumortrace.reports.records import Records, read_json


def context(records: Records) -> dict[str, Any]:
    """`choice`, how the calibration was chosen, and `alt`."""
    on = f"on the {records.split} split"
    return {
        "choice": read_json(records.folder / "calibration.json").get("choice", {}),
        "alt": {
            "reliability": f"Observed share against predicted probability {on}: ECE {records.metric('ece')}",
            "probability_histogram": f"Histogram of predicted probabilities by class {on}",
        },
    }
