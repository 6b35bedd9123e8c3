"""The HTML report of a cross-validation, from what its folder has on record."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tumortrace.errors import RunError
from tumortrace.evaluation.measures import TITLES, prominent
from tumortrace.records.files import write_text
from tumortrace.reports.crossval_figures import Folds, draw_crossval_figures, read_folds
from tumortrace.reports.embedding import embed_svg
from tumortrace.reports.page import render
from tumortrace.reports.records import decimals, interval, read_json
from tumortrace.reports.report import REPORT


def write_crossval_report(folder: Path) -> Path:
    """Write report.html of a cross-validation: every fold, their mean and spread, and recipe against recipe.

    Args:
        folder: Its folder; its own records and those of its folds are read.

    Returns:
        Path of report.html, in the same folder.

    Raises:
        RunError: There is no such folder, or a record is damaged.

    Example:
        >>> import tempfile
        >>> folder = Path(tempfile.mkdtemp())
        >>> _ = (folder / "run.json").write_text('{"verb": "crossval", "name": "first"}')
        >>> "No fold is on record" in write_crossval_report(folder).read_text("utf-8")
        True
    """
    folder = Path(folder)
    folds = read_folds(folder)
    if folds.run.get("verb") != "crossval":
        raise RunError("no records of a cross-validation", where=folder, expected="a folder that `crossval` made")
    page = render(
        "crossval.html.j2",
        run=folds.run,
        data=folds.run.get("data", {}),
        outcome=folds.outcome,
        verdict=_verdict(folds),
        recipes=folds.recipes,
        metric_names=TITLES,
        per_fold=prominent(),
        fold_entry=lambda fold, metric: _fold_entry(folder, fold, metric),
        comparisons=comparisons(folds.outcome),
        p_text=p_text,
        spread=spread,
        signed=signed,
        figures={name: embed_svg(path) for name, path in draw_crossval_figures(folds).items()},
        leakage_ruled_out=str(folds.run.get("leakage", "")).startswith("ruled out"),
    )
    write_text(folder / REPORT, page)
    return folder / REPORT


def _fold_entry(folder: Path, fold: dict[str, Any], metric: str) -> dict[str, Any]:
    """A fold's metric with the interval that its own run has on record; with none where that run is gone."""
    recorded = read_json(folder / fold["run"] / "metrics.json").get("test", {}).get(metric) or {}
    value = fold.get(metric)
    same = value is not None and recorded.get("value") is not None and abs(value - recorded["value"]) < 1e-9
    return {"value": value, "ci95": recorded.get("ci95") if same else None}


def comparisons(outcome: dict[str, Any]) -> list[dict[str, Any]]:
    """The recorded comparisons, the pair's tested metrics first."""
    return [
        pair | {"order": sorted(pair["differences"], key=lambda name: name not in pair["tests"])}
        for pair in outcome.get("comparisons", [])
    ]


def _verdict(folds: Folds) -> list[str]:
    if not folds.recipes:
        return ["No fold is on record."]
    outcome = folds.outcome
    groups = f" of {outcome['groups']:,} groups (slides or patients)" if outcome.get("groups") else ""
    repeats = f", {outcome['repeats']} times" if outcome["repeats"] > 1 else ""
    sentences = [f"{outcome['images']:,} images{groups} in {outcome['folds']} folds{repeats}; a fresh model for each."]
    for name, recipe in folds.recipes.items():
        sentences.append(f"{name}: AUROC {spread(recipe['summary'].get('auroc'))}.")
    for pair in outcome["comparisons"]:
        test, entry = pair["tests"]["auroc"], pair["differences"]["auroc"]
        if entry:
            found = "no test is defined" if test["p"] is None else f"corrected p {p_text(test['p_holm'])}"
            text = f"AUROC of {pair['second']} minus that of {pair['first']}"
            sentences.append(f"{text}: {signed(entry['mean'])}{interval(entry, ' ')} ({found}).")
    return sentences


def spread(entry: dict[str, Any] | None) -> str:
    """Mean, standard deviation and corrected interval as text, such as `.912 ± .021 [.871, .953]`."""
    return f"{decimals(entry['mean'])} ± {decimals(entry['sd'])}{interval(entry, ' ')}" if entry else "not defined"


def signed(value: float | None) -> str:
    """A difference with its sign.

    Example:
        >>> signed(0.0123), signed(-0.5), signed(0.0)
        ('+.012', '−.500', '.000')
    """
    text = decimals(value)
    return f"+{text}" if value is not None and value > 0 and text.strip(".0") else text


def p_text(p: float | None) -> str:
    """A p-value for reading.

    Example:
        >>> p_text(0.0312), p_text(0.00001), p_text(None)
        ('.031', '< .001', '—')
    """
    return "< .001" if p is not None and p < 0.001 else decimals(p)
