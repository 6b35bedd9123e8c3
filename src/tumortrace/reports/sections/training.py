"""How the training went: its curves, or what a probe or a learner chose from."""

from __future__ import annotations

from typing import Any

from tumortrace.evaluation.measures import TITLES
from tumortrace.reports.records import Records


def context(records: Records) -> dict[str, Any] | None:
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
    row = history[history["epoch"] == records.run.get("best_epoch")]
    if len(row) != 1:
        return {}
    sides = ("train", "validation")
    found = {name: {side: row.get(f"{side}_{name}") for side in sides} for name in ("loss", *TITLES)}
    return {
        TITLES.get(name, name.capitalize()): {
            side: None if value is None else float(value.iloc[0]) for side, value in values.items()
        }
        for name, values in found.items()
        if any(value is not None for value in values.values())
    }


def _candidates(records: Records) -> list[dict[str, Any]]:
    """What a probe or a learner chose from; `folds` and `spread` where folds of the training split chose."""
    history = records.history
    if "head" not in history:
        return []
    names = [str(name) for name in history]
    mean = next((name for name in names if name.startswith("folds_") and not name.endswith("_std")), None)
    table = history if mean is None else history.assign(folds=history[mean], spread=history[f"{mean}_std"])
    metric = None if mean is None else mean.removeprefix("folds_")
    named = TITLES.get(str(metric), str(metric).capitalize())
    return [{str(key): value for key, value in row.items()} | {"by": named} for row in table.to_dict("records")]
