"""The section on what the features of a probed body are worth: with few labels, and how they lie beside each other."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pandas as pd
from matplotlib.figure import Figure

from tumortrace.evaluation.measures import TITLES
from tumortrace.records.tables import FEATURE_MAP, FEW_SHOT
from tumortrace.reports.drawing import CLASS_COLOURS, legend_below, sheet
from tumortrace.reports.page import Context
from tumortrace.reports.records import Records

_SHOWN = ("auroc", "balanced_accuracy")
HEADS = {"logistic": "Logistic regression", "prototype": "Nearest class mean", "knn": "Nearest images"}


def tell_features(records: Records) -> Context | None:
    """`few`: a row for each number of labelled images and classifier: mean and range of metrics over draws; `alt`."""
    few, places = FEW_SHOT.find(records.folder), FEATURE_MAP.find(records.folder)
    if few.empty and places.empty:
        return None
    words = f"Features of {len(places):,} validation images in two dimensions, coloured by class"
    return {"few": _rows(few), "few_titles": [TITLES[name] for name in _SHOWN], "alt": {"feature_map": words}}


def _rows(few: Any) -> list[dict[str, Any]]:
    if few.empty:
        return []
    few = few if "head" in few else few.assign(head="logistic")  # as earlier versions wrote it
    return [
        {
            "shots": int(shots),
            "head": HEADS.get(str(head), str(head)),
            "draws": len(part),
            "values": [(part[name].mean(), part[name].min(), part[name].max()) for name in _SHOWN],
        }
        for (shots, head), part in few.groupby(["shots", "head"], sort=False)
    ]


def draw_feature_map(records: Records) -> Figure | None:
    """Each image a point, in the colour of its class."""
    places = FEATURE_MAP.find(records.folder)
    if places.empty:
        return None
    return draw_places(places, records.run.data.classes[:2])


def draw_places(places: pd.DataFrame, classes: Sequence[str]) -> Figure:
    """Images by `x` and `y`, in the colour of their `label` (0, 1, or missing).

    Args:
        places: What `feature_map` gives.
        classes: Names of the negative and the positive class.
    """
    figure, axes = sheet("Features beside each other", "", "")
    for label, name in ((0, classes[0]), (1, classes[1]), (2, "unlabelled")):
        part = places[places["label"].fillna(2) == label]
        if len(part) or label < 2:
            axes.scatter(part["x"], part["y"], s=9, alpha=0.7, linewidths=0, color=CLASS_COLOURS[label], label=name)
    axes.set(xticks=[], yticks=[])
    axes.grid(visible=False)
    legend_below(figure)
    return figure
