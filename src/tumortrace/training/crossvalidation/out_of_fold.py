"""What the folds of a cross-validation say together: out-of-fold predictions, their numbers, and the report."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd

from tumortrace.cohorts.cohort import Cohort
from tumortrace.cohorts.folds import groups_on_both_sides
from tumortrace.errors import RunError
from tumortrace.evaluation.folds import summarise_folds
from tumortrace.records.files import write_csv, write_json
from tumortrace.records.provenance import RESEARCH_USE
from tumortrace.records.run import Run, now
from tumortrace.reports.crossval import write_crossval_report
from tumortrace.reports.records import decimals, interval, read_json, read_table
from tumortrace.training.admission import looks_and_copies
from tumortrace.training.part import begun_in
from tumortrace.training.record import log

COLUMNS = ["id", "group", "recipe", "repeat", "fold", "label", "probability", "prediction", "decision"]


def write_outcome(run: Run, cohort: Cohort, table: pd.DataFrame) -> None:
    """Write `predictions.csv`, `crossval.json` and the report of a cross-validation whose folds are all finished.

    Args:
        run: Its folder.
        cohort: The images.
        table: The folds, as `assign_folds` returns them.

    Raises:
        RunError: A fold's predictions are not those of its images.
    """
    record = run.read()
    recipes = record["recipes"]
    numbers = table[["repeat", "fold"]].drop_duplicates().sort_values(["repeat", "fold"]).to_numpy().tolist()
    parts, about = list[pd.DataFrame](), dict[tuple[str, int, int], dict[str, Any]]()
    for recipe in recipes:
        for repeat, fold in numbers:
            folder = begun_in(run.folder / "folds" / recipe / f"{repeat}-{fold}")
            if folder is None:
                raise RunError("a fold's run is missing", where=run.folder, remedy="resume the cross-validation")
            chosen = table[(table["repeat"] == repeat) & (table["fold"] == fold)]
            parts.append(_tested(folder, chosen).assign(recipe=recipe, repeat=repeat, fold=fold))
            about[recipe, repeat, fold] = _about(run, folder) | {"groups_shared": _shared(table, repeat, fold)}
    predictions = pd.concat(parts, ignore_index=True)[COLUMNS]
    write_csv(run.predictions_file, predictions)
    summary = summarise_folds(predictions, seed=record["seed"])
    for recipe, found in summary["recipes"].items():
        found["folds"] = [row | about[recipe, row["repeat"], row["fold"]] for row in found["folds"]]
    outcome = {
        "folds": record["arguments"]["folds"],
        "repeats": record["arguments"]["repeats"],
        "split": record["arguments"]["split"],
        "images": int(table["id"].nunique()),
        "groups": int(table["group"].nunique()) if table["group"].notna().all() else None,
        "groups_on_both_sides": groups_on_both_sides(table),
        "copies": copies_apart(cohort, table),
        "leakage": record["leakage"],
    }
    write_json(run.folder / "crossval.json", outcome | summary | {"research_use": RESEARCH_USE})
    seconds = sum(row["seconds"] for row in about.values())
    run.update(status="finished", finished=now(), duration_s=round(seconds, 1))
    report = write_crossval_report(run.folder)
    for recipe, found in summary["recipes"].items():
        line = f"{recipe}: AUROC {_spread(found['summary']['auroc'])}, accuracy {_spread(found['summary']['accuracy'])}"
        log(run, f"{line} (mean over folds, standard deviation, corrected interval)")
    log(run, f"report: {report}. {RESEARCH_USE}")


def _tested(folder: Path, chosen: pd.DataFrame) -> pd.DataFrame:
    predictions = read_table(folder / "predictions.csv")
    tested = predictions[predictions["split"] == "test"]
    if set(tested["id"]) != set(chosen["id"]) or tested["id"].duplicated().any():
        raise RunError("predictions of other images than its fold's", where=folder, remedy="delete it and resume")
    return tested


def _about(run: Run, folder: Path) -> dict[str, Any]:
    """What a fold's own records say beside its predictions."""
    record, metrics = read_json(folder / "run.json"), read_json(folder / "metrics.json")
    return {
        "run": folder.relative_to(run.folder).as_posix(),
        "seed": record.get("seed"),
        "trained_on": record.get("data", {}).get("splits", {}).get("train", {}).get("images"),
        "threshold": metrics.get("test", {}).get("threshold"),
        "epochs": record.get("epochs"),
        "best_epoch": record.get("best_epoch"),
        "seconds": record.get("duration_s", 0.0),
        "device": record.get("device_name"),
    }


def _shared(table: pd.DataFrame, repeat: int, fold: int) -> int:
    """How many of the fold's groups have images outside of it."""
    own = table[table["repeat"] == repeat]
    inside = own["fold"] == fold
    return len(set(own.loc[inside, "group"].dropna()) & set(own.loc[~inside, "group"].dropna()))


def copies_apart(cohort: Cohort, table: pd.DataFrame) -> int:
    """How many images have a copy, pixel for pixel, in another fold of some repeat; blank ones are no copies."""
    rows = table.assign(picture=table["id"].map(looks_and_copies(cohort)[1]))
    folds = rows.groupby(["repeat", "picture"])["fold"].transform("nunique")
    return int(rows.loc[folds > 1, "id"].nunique())


def _spread(entry: dict[str, Any] | None) -> str:
    return f"{decimals(entry['mean'])} ± {decimals(entry['sd'])}{interval(entry, ' ')}" if entry else "undefined"
