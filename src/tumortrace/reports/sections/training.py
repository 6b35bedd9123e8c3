"""How the training went: its curves, or what a probe or a learner chose from."""

from __future__ import annotations

from typing import Any

from tumortrace.reports.records import METRICS, Records


def context(records: Records) -> dict[str, Any] | None:
    """`candidates` (see `_candidates`) and `alt`."""
    history = records.history
    if "epoch" not in history:
        return None
    kind = "candidates" if "head" in history else "epochs"
    words = f"Loss and metrics, training and validation, over {len(history)} {kind}"
    return {"candidates": _candidates(records), "alt": {"learning_curves": words}}


def _candidates(records: Records) -> list[dict[str, Any]]:
    """What a probe or a learner chose from; `folds` and `spread` where folds of the training split chose."""
    history = records.history
    if "head" not in history:
        return []
    names = [str(name) for name in history]
    mean = next((name for name in names if name.startswith("folds_") and not name.endswith("_std")), None)
    table = history if mean is None else history.assign(folds=history[mean], spread=history[f"{mean}_std"])
    metric = None if mean is None else mean.removeprefix("folds_")
    named = METRICS.get(str(metric), str(metric).capitalize())
    return [{str(key): value for key, value in row.items()} | {"by": named} for row in table.to_dict("records")]
