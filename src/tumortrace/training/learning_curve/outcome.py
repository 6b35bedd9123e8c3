"""What the models of a learning curve say together."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd

from tumortrace.errors import RunError
from tumortrace.evaluation.metrics import METRICS
from tumortrace.evaluation.power_law import extrapolate, fit_power_law
from tumortrace.records.files import write_csv, write_json
from tumortrace.records.provenance import RESEARCH_USE
from tumortrace.records.run import Run, now
from tumortrace.reports.learning_curve import write_learning_curve_report
from tumortrace.reports.records import decimals, read_json
from tumortrace.training.part import begun_in
from tumortrace.training.record import log

AHEAD = (2, 4)  # times the largest number of training images
METHOD = {
    "runs": "Each model's own interval is that of its metrics.json, over the images of the test split. Beside it stand "
    "mean and standard deviation over repeats, which differ in training images and seed and share the test split.",
    "law": "1 - AUROC = floor + scale n^-exponent, least squares in logarithms over all runs (floor 0 with three "
    "sizes). Ranges are percentiles of 300 replicates that draw runs anew within each size: they know the spread "
    "between trainings, not whether the law goes on, nor the uncertainty of the test split; with a single model of a "
    "size there is none.",
}


def write_outcome(run: Run) -> None:
    """Write `learning_curve.csv`, `learning_curve.json` and the report, from the records of all models.

    Raises:
        RunError: A model's run is missing.
    """
    record = run.read()
    parts = pd.read_csv(run.folder / "subsets.csv", dtype={"id": str}, keep_default_na=False)
    rows = [_row(run, repeat, fraction, len(own)) for repeat, fraction, own in parts_of(parts)]
    flat = [{key: value for key, value in row.items() if key != "metrics"} | _columns(row["metrics"]) for row in rows]
    write_csv(run.folder / "learning_curve.csv", pd.DataFrame(flat))
    outcome: dict[str, Any] = {
        "runs": rows,
        "sizes": [_size(fraction, rows) for fraction in sorted({row["fraction"] for row in rows})],
        "law": _law(rows),
        "method": METHOD,
        "research_use": RESEARCH_USE,
    }
    write_json(run.folder / "learning_curve.json", outcome)
    run.update(status="finished", finished=now(), duration_s=round(sum(row["seconds"] for row in rows), 1))
    report = write_learning_curve_report(run.folder)
    for size in outcome["sizes"]:
        auroc = size["metrics"]["auroc"]
        spread = "" if auroc["sd"] is None else f" ± {decimals(auroc['sd'])}"
        log(
            run, f"{size['images']:,.0f} images: AUROC {decimals(auroc['mean'])}{spread} over {size['repeats']} repeats"
        )
    log(run, f"report: {report}; {record['arguments']['repeats']} repeats. {RESEARCH_USE}")


def parts_of(table: pd.DataFrame) -> Iterator[tuple[int, float, pd.DataFrame]]:
    """Repeat, share and rows of each part in `subsets.csv`, small ones first: they are quick."""
    keys = table[["fraction", "repeat"]].drop_duplicates().sort_values(["fraction", "repeat"])
    for fraction, repeat in zip(keys["fraction"], keys["repeat"], strict=True):
        yield int(repeat), float(fraction), table[(table["fraction"] == fraction) & (table["repeat"] == repeat)]


def _row(run: Run, repeat: int, fraction: float, images: int) -> dict[str, Any]:
    folder = begun_in(run.folder / "models" / f"{repeat}-{fraction:g}")
    if folder is None:
        raise RunError("a model's run is missing", where=run.folder, remedy="resume the learning curve")
    record, metrics = read_json(folder / "run.json"), read_json(folder / "metrics.json").get("test", {})
    return {
        "repeat": repeat,
        "fraction": fraction,
        "images": images,
        "groups": record["data"]["splits"]["train"]["groups"],
        "positives": record["data"]["splits"]["train"]["positives"],
        "run": folder.relative_to(run.folder).as_posix(),
        "seed": record["seed"],
        "seconds": record.get("duration_s", 0.0),
        "metrics": {name: {k: metrics[name][k] for k in ("value", "ci95")} for name in METRICS if name in metrics},
    }


def _columns(metrics: dict[str, dict[str, Any]]) -> dict[str, float | None]:
    found: dict[str, float | None] = {}
    for name, entry in metrics.items():
        low, high = entry["ci95"] or (None, None)
        found |= {name: entry["value"], f"{name}_low": low, f"{name}_high": high}
    return found


def _size(fraction: float, rows: list[dict[str, Any]]) -> dict[str, Any]:
    own = [row for row in rows if row["fraction"] == fraction]
    metrics = {}
    for name in own[0]["metrics"]:
        values = [row["metrics"][name]["value"] for row in own if row["metrics"][name]["value"] is not None]
        sd = float(np.std(values, ddof=1)) if len(values) > 1 else None
        metrics[name] = {"mean": float(np.mean(values)) if values else None, "sd": sd, "n": len(values)}
    images = float(np.mean([row["images"] for row in own]))
    return {"fraction": fraction, "images": images, "repeats": len(own), "metrics": metrics}


def _law(rows: list[dict[str, Any]]) -> dict[str, Any] | None:
    """The power law of 1 - AUROC and what it says of more images; None where it cannot be fitted."""
    scored = [row for row in rows if row["metrics"]["auroc"]["value"] is not None]
    images = np.array([row["images"] for row in scored], dtype=float)
    error = np.array([1 - row["metrics"]["auroc"]["value"] for row in scored])
    law = fit_power_law(images, error)
    if law is None:
        return None
    most = images.max()
    at = np.unique(np.concatenate([np.geomspace(images.min(), most * max(AHEAD), 40), most * np.array([1, *AHEAD])]))
    found = extrapolate(images, error, at)
    assert found is not None
    values, ranges = 1 - found[0], 1 - found[1][:, ::-1]
    repeated = min(np.unique(images, return_counts=True)[1]) > 1  # else every replicate is the same
    curve = [
        {"images": float(n), "auroc": float(value), "range95": [float(end) for end in ends] if repeated else None}
        for n, value, ends in zip(at, values, ranges, strict=True)
    ]
    ahead = [next(one for one in curve if one["images"] == most * times) | {"times": times} for times in (1, *AHEAD)]
    fitted = {"floor": law.floor, "scale": law.scale, "exponent": law.exponent}
    return fitted | {"curve": curve, "ahead": ahead}
