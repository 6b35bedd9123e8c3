"""The HTML report of a comparison of runs, from what its folder has on record."""

from __future__ import annotations

from pathlib import Path

from tumortrace.errors import RunError
from tumortrace.evaluation.measures import TITLES
from tumortrace.records.files import write_text
from tumortrace.reports.compare_figures import Comparison, draw_compare_figures, read_comparison
from tumortrace.reports.crossval import p_text, signed
from tumortrace.reports.embedding import embed_svg
from tumortrace.reports.page import render
from tumortrace.reports.records import interval

REPORT = "compare.html"


def write_compare_report(folder: Path) -> Path:
    """Write compare.html: the runs' metrics, their differences with intervals and tests, and figures.

    Args:
        folder: Folder of a comparison; its compare.json and predictions.csv are read.

    Returns:
        Path of compare.html, in the same folder.

    Raises:
        RunError: There is no such folder, or a record is damaged.
    """
    folder = Path(folder)
    comparison = read_comparison(folder)
    if comparison.outcome.get("verb") != "compare":
        raise RunError("no records of a comparison", where=folder, expected="a folder that `compare` made")
    page = render(
        "compare.html.j2",
        outcome=comparison.outcome,
        runs=comparison.runs,
        verdict=_verdict(comparison),
        metric_names=TITLES,
        p_text=p_text,
        signed=signed,
        figures={name: embed_svg(path) for name, path in draw_compare_figures(comparison).items()},
    )
    write_text(folder / REPORT, page)
    return folder / REPORT


def _verdict(comparison: Comparison) -> list[str]:
    outcome = comparison.outcome
    groups = f" of {outcome['groups']:,} groups (slides or patients)" if outcome.get("groups") else ""
    sentences = [f"{len(comparison.runs)} sets of predictions of the same {outcome['images']:,} images{groups}."]
    for pair in outcome["differences"]:
        entry = pair["metrics"]["auroc"]
        if pair["first"] != next(iter(comparison.runs)) or entry["value"] is None:
            continue
        found = (
            "no test is defined" if pair["delong"]["p"] is None else f"corrected p {p_text(pair['delong']['p_holm'])}"
        )
        text = f"AUROC of {pair['second']} minus that of {pair['first']}"
        sentences.append(f"{text}: {signed(entry['value'])}{interval(entry, ' ')} ({found}).")
    return sentences
