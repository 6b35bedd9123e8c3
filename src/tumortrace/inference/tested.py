"""What runs predicted of the images that they were tested on, read for comparison; other images are refused."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import pandas as pd

from tumortrace.errors import RunError
from tumortrace.reports.crossval_figures import read_predictions
from tumortrace.reports.records import Records, read_records

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
