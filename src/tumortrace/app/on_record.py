"""What is on record of a served model, for the pages: metrics with intervals, what probabilities meant, its data."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
from markdown_it import MarkdownIt

from tumortrace.errors import RunError
from tumortrace.evaluation.curves import reliability_bins
from tumortrace.models.bundle import Model
from tumortrace.reports.records import Records, read_records
from tumortrace.reports.story import story
from tumortrace.reports.wording import called

OnRecord = dict[str, Any]


def on_record(name: str, folder: Path, model: Model) -> OnRecord:
    """All that the pages show of a model beyond what it predicts.

    Args:
        name: Under which it is served.
        folder: Its run folder, or its bundle where there is no run around it; then `judged` is None.
        model: The loaded model.
    """
    info, records = model.info, _records(folder)
    conformal = info.conformal
    return {
        "name": name,
        "classes": [called(known) for known in info.classes],
        "positive_class": called(info.positive_class),
        "patch_size": list(info.patch_size),
        "crop": info.preprocessing.crop,
        "threshold": info.threshold,
        "threshold_policy": info.threshold_policy,
        "coverage": None if conformal is None else conformal.coverage,
        "calibration": _calibration(model),
        "symmetries": info.symmetries,
        "architecture": info.architecture.name,
        "recipe": info.training.recipe,
        "weights_sha256": info.weights_sha256,
        "verdict": " ".join(story(records)["verdict"]) if records and records.measured else "",
        "judged": _judged(records) if records and records.measured else None,
        "reliability": reliability(records.scored(records.split)) if records else [],
        "data": _data(records) | {"fingerprint": info.training.fingerprint, "prevalence": info.training.prevalence},
        "card": _card(folder / "model_card.md"),
    }


def reliability(table: pd.DataFrame) -> list[OnRecord]:
    """What probabilities meant, in the bins of the report, with the share of positives and its 95 % Wilson interval.

    Args:
        table: Columns `label` (0 or 1) and `probability`.

    Returns:
        Per bin, ascending: `low` and `high` (its least and greatest probability), `mean`, `n`, `share`, `ci95`.

    Example:
        >>> table = pd.DataFrame({"label": [0, 0, 1, 1], "probability": [0.1, 0.1, 0.6, 0.8]})
        >>> [(row["low"], row["high"], row["share"]) for row in reliability(table)]
        [(0.1, 0.1, 0.0), (0.6, 0.6, 1.0), (0.8, 0.8, 1.0)]
    """
    if table.empty:
        return []
    bins = reliability_bins(table["label"], table["probability"])
    columns = (bins.low, bins.high, bins.probability, bins.count, bins.share, bins.share_low, bins.share_high)
    return [
        {"low": low, "high": high, "mean": mean, "n": n, "share": share, "ci95": [share_low, share_high]}
        for low, high, mean, n, share, share_low, share_high in zip(*(c.tolist() for c in columns), strict=True)
    ]


def _records(folder: Path) -> Records | None:
    try:
        return read_records(folder)
    except RunError:  # a bundle without a run, or damaged records: the model answers all the same
        return None


def _judged(records: Records) -> OnRecord:
    judged = records.judged
    return {
        "split": records.split,
        "n": judged.n,
        "n_groups": judged.n_groups,
        "intervals": judged.intervals,
        "metrics": [
            {"name": name, "title": title, "value": judged[name].value, "ci95": judged[name].ci95}
            for name, title in story(records)["metric_names"].items()
            if name in judged
        ],
    }


def _data(records: Records | None) -> OnRecord:
    if records is None:
        return {}
    data = records.run.data.as_json()
    kept = {name: data.get(name) for name in ("name", "layout", "images", "groups", "resolution", "notes")}
    return kept | {"leakage": records.run.leakage or None}


def _calibration(model: Model) -> str:
    """How logits become probabilities, in words."""
    calibration = model.info.calibration
    return f"temperature {1 / calibration.slope:.3f}" if calibration.method == "temperature" else calibration.method


def _card(file: Path) -> str | None:
    """The model card as HTML; HTML in it stays text, and links lead nowhere that runs."""
    if not file.is_file():
        return None
    text = file.read_text("utf-8", errors="replace")
    markdown = MarkdownIt("commonmark", {"html": False}).enable("table").disable("image")
    tokens = markdown.parse(text)
    for token in tokens:
        if token.attrs.pop("style", None) == "text-align:right":  # the pages' policy forbids styles of elements
            token.attrs["class"] = "n"
    return str(markdown.renderer.render(tokens, markdown.options, {}))
