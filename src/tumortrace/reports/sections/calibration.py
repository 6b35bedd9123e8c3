"""Whether a probability of .7 means seven in ten."""

from __future__ import annotations

from typing import Any

from tumortrace.reports.records import Records


def context(records: Records) -> dict[str, Any]:
    """`alt`."""
    on = f"on the {records.split} split"
    return {
        "alt": {
            "reliability": f"Observed share against predicted probability {on}: ECE {records.metric('ece')}",
            "probability_histogram": f"Histogram of predicted probabilities by class {on}",
        }
    }
