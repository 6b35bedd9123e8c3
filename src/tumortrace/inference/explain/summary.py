"""Means with intervals of what was measured of heat maps, and whether they depend on the weights."""

from __future__ import annotations

from typing import Any

import pandas as pd

from tumortrace.evaluation.means import mean_with_interval
from tumortrace.inference.explain.randomisation import SUSPECT

LOCALISATION = ("pointing", "energy", "mask_auc")
PERTURBATION = ("deletion", "insertion", "deletion_gain", "insertion_gain")


def summarise(table: pd.DataFrame) -> dict[str, Any]:
    """Means with intervals of a table of measures: by method, of a random order, and of chance.

    Args:
        table: As in `measures.csv`.

    Returns:
        `methods`, `random_order`, `chance` (the tumour's share of the area that the network sees; .5 for the AUC) and
        `intervals`, which says how these were made.
    """
    methods: dict[str, Any] = {}
    for name, part in table.groupby("method", sort=False):
        groups = part["group"].to_list()
        entry: dict[str, Any] = {
            key: mean_with_interval(part[key], groups) for key in (*LOCALISATION, *PERTURBATION) if key in part
        }
        stages = [
            str(key).removeprefix("rank_correlation_") for key in part if str(key).startswith("rank_correlation_")
        ]
        entry["randomised"] = [
            {
                "share": float(share),
                "rank_correlation": mean_with_interval(part[f"rank_correlation_{share}"], groups),
                "ssim": mean_with_interval(part[f"ssim_{share}"], groups),
            }
            for share in stages
        ]
        entry["depends_on_weights"] = _depends(entry["randomised"])
        entry["without_heat"] = int((~part["heat"]).sum())
        methods[str(name)] = entry
    first = table[table["method"] == table["method"].iloc[0]]
    groups = first["group"].to_list()
    whole = first["group"].notna().all() and len(set(groups)) > 1
    return {
        "methods": methods,
        "random_order": {key: mean_with_interval(first[f"random_{key}"], groups) for key in ("deletion", "insertion")},
        "chance": {
            "area": mean_with_interval(first["area"], groups) if "area" in first else None,
            "mask_auc": 0.5,
        },
        "intervals": "95 % intervals: percentile bootstrap of "
        + ("whole groups" if whole else "single images, too narrow where several come from one slide or patient")
        + ", 1000 replicates",
    }


def _depends(stages: list[dict[str, Any]]) -> str | None:
    """Whether maps of the wholly random model differ: "yes" or "no" where the interval lies below or above `SUSPECT`,
    "undecided" where it does not; None where nothing could be randomised.
    """
    last = stages[-1]["rank_correlation"] if stages else {"value": None, "ci95": None}
    if last["value"] is None:
        return None
    low, high = last["ci95"] or (last["value"], last["value"])
    return "yes" if high < SUSPECT else "no" if low >= SUSPECT else "undecided"
