"""The HTML report of a search over recipes, from what its folder has on record."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd

from tumortrace.errors import RunError
from tumortrace.records.files import write_text
from tumortrace.reports.embedding import embed_svg
from tumortrace.reports.page import render
from tumortrace.reports.records import decimals, interval
from tumortrace.reports.report import REPORT
from tumortrace.reports.tuning_figures import Search, draw_tuning_figures, read_search, short

FEW_FINISHED = 20


def write_tuning_report(folder: Path) -> Path:
    """Write report.html of a search: one file that opens anywhere, with every trial and its figures.

    Args:
        folder: The search's folder; its run.json, study.json, metrics.json, trials.csv, space.yaml, best.yaml and the
            trials' history.csv are read.

    Returns:
        Path of report.html, in the same folder.

    Raises:
        RunError: There is no such folder, or a record is damaged.

    Example:
        >>> import tempfile
        >>> folder = Path(tempfile.mkdtemp())
        >>> _ = (folder / "run.json").write_text('{"verb": "tune", "name": "first"}')
        >>> "No trial was finished" in write_tuning_report(folder).read_text("utf-8")
        True
    """
    folder = Path(folder)
    search = read_search(folder)
    if search.run.get("verb") != "tune":
        raise RunError("no records of a search", where=folder, expected="a folder that `tune` made")
    page = render(
        "tuning.html.j2",
        run=search.run,
        study=search.study,
        data=search.run.get("data", {}),
        label=search.label,
        verdict=_verdict(search),
        entry=_entry(search),
        entry_note=str(search.metrics.get("intervals", "no interval")).rstrip("."),
        best=search.best,
        parameters={name: short(name) for name in search.parameters},
        best_parameters={name: _plain(v) for name, v in search.study.get("best", {}).get("parameters", {}).items()},
        trials=_rows(search.trials),
        failures=_failures(search.trials),
        seconds=float(search.trials["seconds"].sum()),
        figures={name: embed_svg(path) for name, path in draw_tuning_figures(search).items()},
        few=search.study.get("counts", {}).get("finished", 0) < FEW_FINISHED,
        files={name: _text(folder / name) for name in ("best.yaml", "space.yaml")},
        leakage_ruled_out=str(search.run.get("leakage", "")).startswith("ruled out"),
    )
    write_text(folder / REPORT, page)
    return folder / REPORT


def _entry(search: Search) -> dict[str, Any]:
    """The best trial's objective with its interval; the validation loss is the log loss of the probabilities."""
    found: dict[str, Any] = search.metrics.get("nll" if search.metric == "loss" else search.metric) or {}
    return found


def _verdict(search: Search) -> list[str]:
    best = search.study.get("best")
    if not best:
        return ["No trial was finished."]
    counts = search.study.get("counts", {})
    tried = sum(counts.values())
    value = f"{search.label} {decimals(best.get('value'))}{interval(_entry(search), ' ')}"
    return [
        f"Best of {tried} trials: trial {best.get('number')}, {value[0].lower()}{value[1:]}.",
        "A validation score that was chosen as the best of many is optimistic, and its interval does not make up for "
        "that. The calibration and test splits were not looked at: train the best recipe to learn what it is worth.",
    ]


def _rows(trials: pd.DataFrame) -> list[dict[str, Any]]:
    """Trials in their order, as the template shows them."""
    plain = trials.astype(object).where(trials.notna(), None)
    return [{str(name): _plain(value) for name, value in row.items()} for row in plain.to_dict("records")]


def _failures(trials: pd.DataFrame) -> dict[str, list[int]]:
    """Numbers of the trials that failed with each error."""
    failed = trials[trials["error"].notna()]
    return {str(error): part["number"].tolist() for error, part in failed.groupby("error", sort=False)}


def _plain(value: Any) -> Any:
    """Whole numbers without decimals (a column with gaps holds floats), others with four digits."""
    if isinstance(value, float):
        return int(value) if value.is_integer() else float(f"{value:.4g}")
    return value


def _text(path: Path) -> str | None:
    return path.read_text("utf-8", errors="replace") if path.is_file() else None
