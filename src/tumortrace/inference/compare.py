"""The verb `compare`: runs side by side on the same test images, with paired intervals and tests."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pandas as pd

from tumortrace.evaluation.delong import delong
from tumortrace.evaluation.folds import pooled
from tumortrace.evaluation.paired import holm, mcnemar, paired_differences
from tumortrace.inference.tested import OUT_OF_FOLD, Tested, read_tested
from tumortrace.reports.compare import write_compare_report
from tumortrace.runs.files import write_csv, write_json
from tumortrace.runs.output import require_own_folder
from tumortrace.runs.progress import say
from tumortrace.runs.provenance import RESEARCH_USE, versions
from tumortrace.runs.run import now

BY_GROUP = {
    "differences": "Second minus first; percentiles of paired bootstrap replicates that draw the same whole groups for "
    "all runs.",
    "delong": "DeLong's test of equal AUROCs (DeLong et al. 1988, as in Sun & Xu 2014) with images clustered by group "
    "(Obuchowski 1997), two-sided.",
    "mcnemar": "McNemar's exact test (1947) of equal accuracy, each run at its own threshold, with whole groups "
    "swapped between the runs, two-sided.",
}
BY_IMAGE = {
    "differences": "Second minus first; percentiles of paired bootstrap replicates that draw the same images for all "
    "runs.",
    "delong": "DeLong's test of equal AUROCs (DeLong et al. 1988, as in Sun & Xu 2014), two-sided.",
    "mcnemar": "McNemar's exact test (1947) of equal accuracy, each run at its own threshold, two-sided.",
}
CORRECTION = "Holm's correction over all these tests: DeLong's and McNemar's of every pair of runs."


def compare(
    runs: Sequence[str | Path], *, out: str | Path | None = None, replicates: int = 1000, seed: int = 0
) -> Path:
    """Compare runs by what they predicted of the same test images; refused where they did not see the same.

    Args:
        runs: Run folders (their test split; validation where there is no test), folders of evaluations or of
            cross-validations (out-of-fold, each recipe for itself); at least two sets of predictions in all.
        out: Folder to write; default `comparison`. What an earlier comparison wrote there is replaced.
        replicates: Number of bootstrap replicates.
        seed: Seed of the replicates.

    Returns:
        The folder, with `compare.json`, `predictions.csv`, `compare.html` and `figures/`.

    Raises:
        RunError: A folder holds no predictions, or the runs did not see the same images; the message says how far.
    """
    folder = Path(out) if out is not None else Path("comparison")
    require_own_folder(folder)
    entries = read_tested([Path(run) for run in runs])
    group, notes = _groups(entries)
    tables = {entry.name: entry.table.assign(group=group) for entry in entries}
    differences = _differences(tables, replicates, seed)
    known = bool(group.notna().all())
    outcome = {
        "verb": "compare",
        "runs": [_described(entry, tables[entry.name], replicates, seed) for entry in entries],
        "images": int(entries[0].table["image"].nunique()),
        "groups": int(group.nunique()) if known else None,
        "prevalence": float(entries[0].table["label"].mean()),
        "differences": differences,
        "method": (BY_GROUP if known and len(group.unique()) > 1 else BY_IMAGE) | {"correction": CORRECTION},
        "notes": notes,
        "seed": seed,
        "versions": versions(),
        "finished": now(),
        "research_use": RESEARCH_USE,
    }
    columns = ["run", "id", "group", "label", "probability", "prediction"]
    together = pd.concat([table.assign(run=name) for name, table in tables.items()])
    write_csv(folder / "predictions.csv", together[columns])
    write_json(folder / "compare.json", outcome)
    report = write_compare_report(folder)
    for note in notes:
        say(f"note: {note}")
    say(f"compare: {len(entries)} sets of predictions of {outcome['images']:,} images; {report}. {RESEARCH_USE}")
    return folder


def _groups(entries: list[Tested]) -> tuple[pd.Series, list[str]]:
    """The group of each image as the first run that knows all of them has it, and what is to be said."""
    notes = []
    if len({entry.fingerprint for entry in entries if entry.fingerprint}) > 1:
        notes.append("the data's fingerprints differ: that the images are the same is taken from their ids and labels")
    if len({entry.split == OUT_OF_FOLD for entry in entries}) > 1:
        notes.append("out-of-fold predictions stand beside those of one model: each of them is of several models")
    known = [entry for entry in entries if entry.groups_known]
    if not known:
        notes.append(
            "not every image has a group: where several come from one slide or patient, p-values are too small"
        )
        return entries[0].table["group"].mask(entries[0].table["group"].notna()), notes
    group = known[0].table["group"]
    codes = pd.factorize(group)[0]
    if any((pd.factorize(entry.table["group"])[0] != codes).any() for entry in known[1:]):
        notes.append(f"the runs name groups differently: those of {known[0].name} are used")
    return group, notes


def _described(entry: Tested, table: pd.DataFrame, replicates: int, seed: int) -> dict[str, Any]:
    """A run as it is by itself."""
    metrics = pooled(table.assign(id=table["image"]), replicates=replicates, seed=seed)
    return {
        "name": entry.name,
        "folder": entry.folder.name,
        "split": entry.split,
        "fingerprint": entry.fingerprint,
        "metrics": metrics | {"threshold": entry.threshold},
    }


def _differences(tables: Mapping[str, pd.DataFrame], replicates: int, seed: int) -> list[dict[str, Any]]:
    """Every pair: differences of all metrics with intervals, and the two tests, corrected for their number."""
    clustered = {name: _clustered(table) for name, table in tables.items()}
    pairs: list[dict[str, Any]] = [
        {"first": first, "second": second, "metrics": metrics} | _tests(clustered[first], clustered[second])
        for (first, second), metrics in paired_differences(clustered, replicates=replicates, seed=seed).items()
    ]
    tests = [pair[name] for pair in pairs for name in ("delong", "mcnemar")]
    for test, corrected in zip(tests, holm([test["p"] for test in tests]), strict=True):
        test["p_holm"] = corrected
    return pairs


def _tests(first: pd.DataFrame, second: pd.DataFrame) -> dict[str, dict[str, Any]]:
    label = first["label"]
    group = first["group"] if len(first["group"].dropna().unique()) > 1 else None
    ranks: dict[str, Any] = {"difference": None, "standard_error": None, "z": None, "p": None}  # with one class only
    if label.nunique() == 2:
        ranks = asdict(delong(label, first["probability"], second["probability"], group))
    calls = mcnemar(first["prediction"] == label, second["prediction"] == label, group)
    return {"delong": ranks, "mcnemar": asdict(calls)}


def _clustered(table: pd.DataFrame) -> pd.DataFrame:
    """The table with repeats of an image as a group, where there are any and no other groups are known."""
    repeated = table["repeat"].max() > 1 and table["group"].isna().all()
    return table.assign(group=table["image"]) if repeated else table
