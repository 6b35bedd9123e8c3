"""What a model's calibration does, in words."""

from __future__ import annotations

from typing import Any

from tumortrace.reports.records import decimals


def calibration_in_words(model: dict[str, Any]) -> str | None:
    """A sentence on the calibration in a `model.json` of any format; None where it says nothing.

    Example:
        >>> calibration_in_words({"calibration": {"method": "platt", "slope": 0.5, "knots": [0.0], "values": [-1.2]}})
        "Platt's scaling: the logit times .500, −1.200 added."
    """
    made = model.get("calibration")
    if made is None and model.get("temperature"):  # format 1
        made = {"method": "temperature", "slope": 1 / model["temperature"]}
    if not made:
        return None
    slope = made.get("slope", 1.0)
    match made.get("method"):
        case "temperature":
            sure = "too sure" if slope < 1 else "not sure enough" if slope > 1 else "as sure as it should be"
            return f"Temperature scaling: logits are divided by {decimals(1 / slope)}; by itself the model was {sure}."
        case "platt":
            return f"Platt's scaling: the logit times {decimals(slope)}, {decimals(made['values'][0])} added."
        case "isotonic":
            return f"Isotonic regression: a rising curve through {len(made['knots'])} points."
    return "No calibration: probabilities are the sigmoid of the model's own logits."
