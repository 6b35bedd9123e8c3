"""The verb `compare`: runs side by side on the same test images, with paired intervals and tests."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import pandas as pd

from tumortrace.errors import RunError
from tumortrace.evaluation.classes import CLASS, PREDICTED, PROBABILITY, SET, class_differences, classes_of
from tumortrace.evaluation.comparisons import delong, holm, mcnemar, paired_differences
from tumortrace.evaluation.folds import pooled
from tumortrace.inference.across_centres import across_centres
from tumortrace.inference.unseen import provenance
from tumortrace.records.centres import CentreRecord
from tumortrace.records.evaluation import ComparedRun, ComparisonRecord, Difference, EvaluationRecord, PairedTest
from tumortrace.records.metrics import Estimate, Metrics
from tumortrace.records.model import ModelRecord
from tumortrace.records.output import require_own_folder
from tumortrace.records.progress import say
from tumortrace.records.provenance import RESEARCH_USE
from tumortrace.records.run import Data, Run, RunRecord
from tumortrace.records.tables import PREDICTIONS
from tumortrace.reports.compare import write_compare_report

METHOD = {
    "differences": "Second minus first; percentiles of paired bootstrap replicates that draw the same {drawn} for all "
    "runs.",
    "delong": "DeLong's test of equal AUROCs (DeLong et al. 1988, as in Sun & Xu 2014){clustered}, two-sided.",
    "mcnemar": "McNemar's exact test (1947) of equal accuracy, each run at its own threshold{swapped}, two-sided.",
    "correction": "Holm's correction over all these tests: DeLong's and McNemar's of every pair of runs.",
}
BY_GROUP = {
    "drawn": "whole groups",
    "clustered": " with images clustered by group (Obuchowski 1997)",
    "swapped": ", with whole groups swapped between the runs",
}
BY_IMAGE = {"drawn": "images", "clustered": "", "swapped": ""}


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
    across = across_centres({entry.name: entry.folder for entry in entries}, replicates, seed)
    known = bool(group.notna().all())
    unit = BY_GROUP if known and len(group.unique()) > 1 else BY_IMAGE
    record = ComparisonRecord(
        verb="compare",
        runs=[
            _described(entry, tables[entry.name], replicates, seed, across.measured.get(entry.name))
            for entry in entries
        ],
        images=int(entries[0].table["image"].nunique()),
        groups=int(group.nunique()) if known else None,
        prevalence=float(entries[0].table["label"].mean()),
        differences=_differences(tables, replicates, seed, across.differences),
        method={name: text.format(**unit) for name, text in METHOD.items()},
        notes=[*notes, *across.notes],
        seed=seed,
    )
    columns = ["run", "id", "group", "label", "probability", "prediction"]
    together = pd.concat([table.assign(run=name) for name, table in tables.items()])
    PREDICTIONS.write(folder, together[columns])
    ComparisonRecord.model_validate(record.as_json() | provenance()).write(folder)
    report = write_compare_report(folder)
    for note in record.notes:
        say(note if note.startswith("warning: ") else f"note: {note}")
    say(f"compare: {len(entries)} sets of predictions of {record.images:,} images; {report}. {RESEARCH_USE}")
    return folder


def _groups(entries: list[Tested]) -> tuple[pd.Series, list[str]]:
    """The group of each image as the first run that knows all of them has it, and what is to be said."""
    notes = []
    if len({entry.fingerprint for entry in entries if entry.fingerprint}) > 1:
        notes.append("the data's fingerprints differ: that the images are the same is taken from their ids and labels")
    if len({entry.split == OUT_OF_FOLD for entry in entries}) > 1:
        notes.append("out-of-fold predictions stand beside those of one model: each of them is of several models")
    notes += _seen_otherwise(entries)
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


def _seen_otherwise(entries: Sequence[Tested]) -> list[str]:
    """What to say where the models did not see the images alike: resampled otherwise, or in spite of a finding."""
    notes = []
    told = {entry.name: entry.data.resampled for entry in entries}
    if len(set(told.values())) > 1:
        ways = ", ".join(
            f"{name} {'as they are' if value is None else f'resampled to {value:g} um per pixel'}"
            for name, value in told.items()
        )
        notes.append(f"warning: the models saw the images at other resolutions ({ways}): differences may come of that")
    stated = sorted({entry.data.resolution for entry in entries if entry.data.resolution})
    if stated and stated[-1] > 1.01 * stated[0]:
        values = " and ".join(f"{value:g}" for value in stated)
        notes.append(f"warning: the same images were taken to have {values} um per pixel, of which one is true at most")
    for entry in entries:
        if entry.data.in_spite:
            notes.append(f"warning: {entry.name} was measured in spite of {', '.join(entry.data.in_spite)}")
    return notes


def _described(
    entry: Tested, table: pd.DataFrame, replicates: int, seed: int, centres: CentreRecord | None
) -> ComparedRun:
    """A run as it is by itself."""
    metrics = pooled(table.assign(id=table["image"]), replicates=replicates, seed=seed)
    return ComparedRun.model_validate(
        {
            "name": entry.name,
            "folder": entry.folder.name,
            "split": entry.split,
            "fingerprint": entry.fingerprint,
            "metrics": metrics.model_copy(update={"threshold": entry.threshold}),
            **({"centres": centres} if centres else {}),
        }
    )


def _differences(
    tables: Mapping[str, pd.DataFrame],
    replicates: int,
    seed: int,
    centres: Mapping[tuple[str, str], dict[str, Estimate]],
) -> list[Difference]:
    """Every pair: differences of all metrics with intervals, and the two tests, corrected for their number."""
    clustered = {name: _clustered(table) for name, table in tables.items()}
    pairs = [
        Difference.model_validate({"first": first, "second": second, "metrics": metrics})
        for (first, second), metrics in paired_differences(clustered, replicates=replicates, seed=seed).items()
    ]
    names = _several(list(clustered.values()))
    of_classes = class_differences(clustered, names, replicates=replicates, seed=seed) if names else {}
    for pair in pairs:
        first, second = clustered[pair.first], clustered[pair.second]
        pair.delong, pair.mcnemar = _tests(first, second)
        if across := centres.get((pair.first, pair.second)):
            pair.centres = across
        if names:
            pair.classes, pair.class_mcnemar = of_classes[pair.first, pair.second], _test_classes(first, second)
    tests = [test for pair in pairs for test in (pair.delong, pair.mcnemar, pair.class_mcnemar) if test is not None]
    for test, corrected in zip(tests, holm([test.p for test in tests]), strict=True):
        test.p_holm = corrected
    return pairs


def _tests(first: pd.DataFrame, second: pd.DataFrame) -> tuple[PairedTest, PairedTest]:
    label = first["label"]
    group = first["group"] if len(first["group"].dropna().unique()) > 1 else None
    ranks = PairedTest.model_validate(dict.fromkeys(("difference", "standard_error", "z", "p")))  # with one class only
    if label.nunique() == 2:
        ranks = PairedTest(**asdict(delong(label, first["probability"], second["probability"], group)))
    calls = mcnemar(first["prediction"] == label, second["prediction"] == label, group)
    return ranks, PairedTest(**asdict(calls))


def _several(tables: Sequence[pd.DataFrame]) -> list[str]:
    """The names of more than two classes that all of the runs tell apart and whose images are all known; else none."""
    names = classes_of(tables[0])
    same = all(classes_of(table) == names and CLASS in table and table[CLASS].notna().all() for table in tables)
    return names if len(names) > 2 and same else []


def _test_classes(first: pd.DataFrame, second: pd.DataFrame) -> PairedTest:
    group = first["group"] if len(first["group"].dropna().unique()) > 1 else None
    one, other = (table[PREDICTED] == table[CLASS] for table in (first, second))
    return PairedTest(**asdict(mcnemar(one, other, group)))


def _clustered(table: pd.DataFrame) -> pd.DataFrame:
    """The table with repeats of an image as a group, where there are any and no other groups are known."""
    repeated = table["repeat"].max() > 1 and table["group"].isna().all()
    return table.assign(group=table["image"]) if repeated else table


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
        data: What is on record of the images; empty where nothing is.
    """

    name: str
    folder: Path
    split: str
    table: pd.DataFrame
    threshold: float | None
    data: Data

    @property
    def fingerprint(self) -> str | None:
        """Of the data."""
        return self.data.fingerprint or None

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
    run, evaluation, predicted = RunRecord.find(folder), EvaluationRecord.find(folder), PREDICTIONS.find(folder)
    origin = run or evaluation
    if origin is None and predicted.empty:
        raise RunError("no records of a run", where=folder, expected="a folder of one", remedy="check the path")
    data = origin.data if origin is not None else Data()
    if run is not None and run.verb == "crossval":
        if predicted.empty:
            raise RunError("the cross-validation has not finished", where=folder, remedy="resume it")
        parts = predicted.groupby("recipe", sort=False)
        return [Tested(str(name), folder, OUT_OF_FOLD, _table(part, folder), None, data) for name, part in parts]
    metrics = Metrics.find(folder) or Metrics({})
    splits = [*metrics, *(predicted["split"].dropna().unique() if "split" in predicted else ())]
    split = next((name for name in ("test", "validation", *splits) if name in splits), "")
    if {"id", "split", "label", "probability"} <= set(predicted):
        table = predicted[predicted["split"] == split].dropna(subset=["label", "probability"])
    else:
        table = predicted[:0]
    if table.empty:
        raise RunError(
            "no labelled predictions with ids",
            where=folder,
            expected="predictions.csv with id, split, label, probability",
            remedy="name a folder that `train`, `evaluate` or `crossval` made",
        )
    measured = metrics.get(split)
    threshold = _threshold(folder, evaluation) if measured is None or measured.threshold is None else measured.threshold
    if "prediction" not in table or table["prediction"].isna().any():
        if threshold is None:
            raise RunError(
                "neither calls nor a threshold", where=folder, expected="a column prediction in predictions.csv"
            )
        table = table.assign(prediction=(table["probability"] >= threshold).astype(int))
    name = run.name if run is not None else "" if evaluation is None else str(evaluation.model.get("name") or "")
    return [Tested(name or folder.resolve().name, folder, split, _table(table, folder), threshold, data)]


def _threshold(folder: Path, evaluation: EvaluationRecord | None) -> float | None:
    """That of the model that predicted."""
    if evaluation is not None:
        value = evaluation.model.get("threshold")
        return float(value) if isinstance(value, int | float) else None
    model = ModelRecord.find(Run(folder).model_folder)
    return None if model is None else model.threshold


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
    columns += [name for name in map(str, table) if name in (CLASS, PREDICTED, SET) or name.startswith(PROBABILITY)]
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
