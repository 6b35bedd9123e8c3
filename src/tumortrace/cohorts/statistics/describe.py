"""The numbers of a cohort and of a sample of it, as `statistics.json` holds them."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from tumortrace.cohorts.cohort import SPLITS, Cohort
from tumortrace.cohorts.statistics.measure import CHANNELS, Measured
from tumortrace.evaluation.proportions import wilson

INTENSITY_BINS = 64  # of four grades each
QUANTILES = {"p5": 0.05, "p25": 0.25, "median": 0.5, "p75": 0.75, "p95": 0.95}


def class_names(cohort: Cohort) -> dict[int, str]:
    """Name of each label that stands in the cohort; 2 is what carries none.

    Example:
        >>> table = pd.DataFrame({"id": ["a"], "path": "a.png", "label": None, "group": None, "split": None})
        >>> class_names(Cohort("mine", "unlabelled", table))
        {2: 'unlabelled'}
    """
    present = set(cohort.table["label"].fillna(2).astype(int))
    return {label: name for label, name in enumerate((*cohort.classes, "unlabelled")) if label in present}


def describe_cohort(cohort: Cohort) -> dict[str, Any]:
    """Counts of the whole cohort: by class, split, group and file type. No image is opened."""
    labels, names = cohort.table["label"], class_names(cohort)
    counts = labels.fillna(2).astype(int).value_counts()
    labelled = int(labels.notna().sum())
    suffixes = Counter(Path(path.partition("::")[0]).suffix.lower() or "none" for path in cohort.table["path"])
    return {
        "name": cohort.name,
        "layout": cohort.layout,
        "images": len(cohort),
        "labelled": labelled,
        "positive_class": cohort.positive_class,
        "prevalence": int((labels == 1).sum()) / labelled if labelled else None,
        "classes": [{"label": label, "name": name, "images": int(counts[label])} for label, name in names.items()],
        "resolution": cohort.resolution,
        "notes": list(cohort.notes),
        "fingerprint": cohort.fingerprint,
        "file_types": dict(suffixes.most_common()),
        "splits": _parts(cohort.table, "split", SPLITS),
        "groups": _groups(cohort.table),
    }


def _parts(table: pd.DataFrame, column: str, order: tuple[str, ...] = ()) -> list[dict[str, Any]]:
    """Images and positives of each value of a column, in `order` or else the largest first."""
    known = table[table[column].notna()]
    grouped = known.groupby(column)["label"]
    counts = pd.DataFrame({"images": grouped.size(), "labelled": grouped.count(), "positives": grouped.sum()})
    names = [name for name in order if name in counts.index]
    counts = counts.loc[names] if order else counts.sort_values("images", ascending=False, kind="stable")
    return [_share(column, str(row.Index), row.images, row.labelled, row.positives) for row in counts.itertuples()]


def _share(column: str, name: str, images: Any, labelled: Any, positives: Any) -> dict[str, Any]:
    record: dict[str, Any] = {column: name, "images": int(images), "labelled": int(labelled), "positives": 0}
    record |= {"prevalence": None, "ci95": None}
    if labelled:
        low, high = wilson(int(positives), int(labelled))
        record |= {"positives": int(positives), "prevalence": int(positives) / int(labelled)}
        record["ci95"] = [float(low), float(high)]
    return record


def _groups(table: pd.DataFrame) -> dict[str, Any]:
    each = _parts(table, "group")
    images = [part["images"] for part in each]
    shares = [part["prevalence"] for part in each if part["prevalence"] is not None]
    return {
        "count": len(each),
        "images_without": int(table["group"].isna().sum()),
        "images_each": _spread(images),
        "prevalence_each": _spread(shares),
        "of_one_class": sum(share in (0, 1) for share in shares),
        "each": each,
    }


def _spread(values: list[Any]) -> dict[str, float] | None:
    if not values:
        return None
    return {"min": float(min(values)), "median": float(np.median(values)), "max": float(max(values))}


def describe_sample(measured: Measured, names: dict[int, str]) -> dict[str, Any]:
    """Sizes, ways of storing, intensities, mean colours and edges of what was measured, overall and by class.

    Args:
        measured: What was measured in the sample.
        names: Class name of each label; see `class_names`.
    """
    table = measured.table
    labels = table["label"].fillna(2).astype(int)
    sizes = Counter(zip(table["width"].tolist(), table["height"].tolist(), strict=True)).most_common()
    present = {label: name for label, name in names.items() if (labels == label).any()}
    parts = {label: (labels == label).to_numpy() for label in present}
    return {
        "images": len(table),
        "undecodable": len(measured.undecodable),
        "undecodable_ids": list(measured.undecodable[:20]),
        "classes": [
            {"label": label, "name": name, "images": int(parts[label].sum())} for label, name in present.items()
        ],
        "usual_size": {"width": measured.size[1], "height": measured.size[0]},
        "sizes": [{"width": int(width), "height": int(height), "images": count} for (width, height), count in sizes],
        "modes": dict(Counter(table["mode"]).most_common()),
        "grey": int(table["grey"].sum()),
        "intensity": {
            "bins": INTENSITY_BINS,
            "all": _intensity(measured.histograms),
            "classes": [
                {"label": label, "name": name} | _intensity(measured.histograms[parts[label]])
                for label, name in present.items()
            ],
        },
        "mean_colour": _quantiles(table, present, parts, {channel: f"{channel}_mean" for channel in CHANNELS}),
        "edges": _quantiles(table, present, parts, {"sobel": "sobel_1"}),
    }


def _intensity(histograms: np.ndarray) -> dict[str, list[float]]:
    """Share of the pixels in each bin, by channel. Every image weighs the same, whatever its size."""
    shares = (histograms / histograms.sum(axis=2, keepdims=True)).mean(axis=0)
    binned = shares.reshape(3, INTENSITY_BINS, -1).sum(axis=2)
    return {channel: row.round(6).tolist() for channel, row in zip(CHANNELS, binned, strict=True)}


def _quantiles(
    table: pd.DataFrame, names: dict[int, str], parts: dict[int, np.ndarray], columns: dict[str, str]
) -> list[dict[str, Any]]:
    """Quantiles over the images of each class."""
    return [
        {"label": label, "name": name}
        | {
            key: {short: float(table.loc[parts[label], column].quantile(q)) for short, q in QUANTILES.items()}
            for key, column in columns.items()
        }
        for label, name in names.items()
    ]
