"""The verb `compare`: runs side by side on the same test images, with paired intervals and tests."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import pandas as pd

from tumortrace.errors import RunError
from tumortrace.evaluation.comparisons import delong, holm, mcnemar, paired_differences
from tumortrace.evaluation.folds import pooled
from tumortrace.records.files import write_csv, write_json
from tumortrace.records.output import require_own_folder
from tumortrace.records.progress import say
from tumortrace.records.provenance import RESEARCH_USE, versions
from tumortrace.records.run import now
from tumortrace.reports.compare import write_compare_report
from tumortrace.reports.crossval import read_predictions
from tumortrace.reports.records import Records, read_records

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
    """Compare runs on the same test images, by paired intervals and tests; refused where they did not see the same.

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


# What runs predicted of the images that they were tested on, read for comparison; other images are refused.


OUT_OF_FOLD = "out-of-fold"


@dataclass(frozen=True)
class Tested:
    """One set of predictions.

    Attributes:
        name: Unique among those that were read together.
        folder: Where it was read.
        split: `test`, `validation` or `out-of-fold`.
        table: Sorted by `id`, which is unique: columns `id`, `image` (the id in the run, where `id` tells an image's
            repeats apart), `repeat`, `group`, `label`, `probability` and `prediction`.
        threshold: At which all images were called, or None where it differs by fold.
        fingerprint: Of the data, or None.
    """

    name: str
    folder: Path
    split: str
    table: pd.DataFrame
    threshold: float | None
    fingerprint: str | None

    @property
    def groups_known(self) -> bool:
        """Whether every image has a group."""
        return bool(self.table["group"].notna().all())


def read_tested(folders: Sequence[Path]) -> list[Tested]:
    """The predictions of runs, evaluations and cross-validations, all of the same images.

    Raises:
        RunError: A folder holds no predictions that can be compared, fewer than two sets are there, or they are not
            of the same images.
    """
    if len({folder.resolve() for folder in folders}) < len(folders):
        raise RunError("the same folder twice", expected="different runs", remedy="name each once")
    entries = _told_apart([entry for folder in folders for entry in _read(folder)])
    if len(entries) < 2:
        raise RunError(f"{len(entries)} set of predictions", expected="at least two", remedy="name more runs")
    for entry in entries[1:]:
        _require_same_images(entries[0], entry)
    return entries


def _read(folder: Path) -> list[Tested]:
    records = read_records(folder)
    fingerprint = records.run.get("data", {}).get("fingerprint")
    if records.run.get("verb") == "crossval":
        if records.predictions.empty:
            raise RunError("the cross-validation has not finished", where=folder, remedy="resume it")
        parts = read_predictions(folder / "predictions.csv", "recipe").groupby("recipe", sort=False)
        return [Tested(str(name), folder, OUT_OF_FOLD, _table(part, folder), None, fingerprint) for name, part in parts]
    table = records.scored(records.split)
    if table.empty or "id" not in table:
        raise RunError(
            "no labelled predictions with ids",
            where=folder,
            expected="predictions.csv with id, split, label, probability",
            remedy="name a folder that `train`, `evaluate` or `crossval` made",
        )
    if "prediction" not in table or table["prediction"].isna().any():
        if records.threshold is None:
            raise RunError(
                "neither calls nor a threshold", where=folder, expected="a column prediction in predictions.csv"
            )
        table = table.assign(prediction=(table["probability"] >= records.threshold).astype(int))
    return [Tested(_name(records), folder, records.split, _table(table, folder), records.threshold, fingerprint)]


def _name(records: Records) -> str:
    model = records.run.get("model")
    if isinstance(model, dict) and model.get("name"):  # of an evaluation
        return str(model["name"])
    return str(records.run.get("name") or records.folder.resolve().name)


def _table(table: pd.DataFrame, folder: Path) -> pd.DataFrame:
    table = table.assign(
        image=table["id"],
        repeat=table.get("repeat", 1),
        group=table.get("group"),
        label=table["label"].astype(int),
        prediction=table["prediction"].astype(int),
    )
    if table["repeat"].max() > 1:
        table["id"] = table["image"] + " (repeat " + table["repeat"].astype(str) + ")"
    if table["id"].duplicated().any():
        twice = table.loc[table["id"].duplicated(), "id"].iloc[0]
        raise RunError(f"two predictions of {twice}", where=folder, expected="each id once per split")
    columns = ["id", "image", "repeat", "group", "label", "probability", "prediction"]
    return table[columns].sort_values("id", ignore_index=True)


def _told_apart(entries: list[Tested]) -> list[Tested]:
    """The entries under names of their own: those that share one take their folder's path with it."""
    count = Counter(entry.name for entry in entries)
    return [e if count[e.name] == 1 else replace(e, name=f"{e.name} ({e.folder.as_posix()})") for e in entries]


def _require_same_images(first: Tested, other: Tested) -> None:
    if "validation" in (first.split, other.split) and first.split != other.split:
        raise RunError(
            f"its {other.split} images, against {first.split} images of {first.name}",
            where=other.folder,
            expected="images that serve the same end: those of validation have chosen the epoch",
            remedy="evaluate both on the same data with `tumortrace evaluate RUN DATA` and compare those folders",
        )
    ids, others = set(first.table["id"]), set(other.table["id"])
    if ids != others:
        raise RunError(
            f"the runs did not see the same images: {len(ids & others):,} were tested by both, {len(ids - others):,} "
            f"by {first.name} alone, {len(others - ids):,} by {other.name} alone",
            where=other.folder,
            expected=f"the {len(ids):,} images of {first.name}",
            remedy="evaluate both on the same data with `tumortrace evaluate RUN DATA` and compare those folders, or "
            "train on the same splits (--split-seed)",
        )
    if differ := int((first.table["label"] != other.table["label"]).sum()):
        raise RunError(
            f"{differ:,} of {len(ids):,} images have another label than in {first.name}",
            where=other.folder,
            expected="the same labels, with the same class positive",
            remedy="evaluate both on the same data",
        )
