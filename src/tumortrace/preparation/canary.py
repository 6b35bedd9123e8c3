"""The leak canary: cheap classifiers that must fail, and what it means where they do not.

A classifier that learns shuffled labels, or reads the label off a file's name and size, has found a leak rather than
tumour. Research use only, not a medical device.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from tumortrace.cohorts.cohort import Cohort
from tumortrace.cohorts.findings import Finding
from tumortrace.cohorts.statistics.measure import draw_sample
from tumortrace.cohorts.store import usual_size
from tumortrace.errors import ImageError
from tumortrace.evaluation.intervals import evaluate_table
from tumortrace.images.decoding import fit, read_image
from tumortrace.images.reference import ImageRef
from tumortrace.records.progress import track

FOLDS = 5
CENTRE = 32  # px: the square that decides PatchCamelyon's labels
CELLS = 16  # cells along a side, in which colours are averaged
FAINT = 0.6  # AUROC from which on a file's name, size or age is worth a warning


@dataclass(frozen=True)
class Canary:
    """What a classifier that ought to fail has reached on folds that it has not seen.

    Attributes:
        name: Of the finding.
        auroc: Out-of-fold AUROC.
        interval: Its 95 % interval, by group where all are known.
    """

    name: str
    auroc: float
    interval: tuple[float, float]

    def __str__(self) -> str:
        return f"AUROC {self.auroc:.3f} [{self.interval[0]:.3f}, {self.interval[1]:.3f}]"


def canary(cohort: Cohort, *, sample: int = 3000, seed: int = 0) -> tuple[Finding, ...]:
    """Train classifiers that ought to fail, in folds by group, and tell what they reach.

    `canary-shuffled`: labels shuffled; anything but chance is an error of the data or of their handling. `canary-file`:
    name, size and age of the file alone; `canary-group`: the share of positives among the other images of the same
    slide or patient alone. `canary-ring`: colours outside of the centre 32x32 px alone, beside those of the centre.

    Args:
        cohort: The data; labelled images that open are looked at.
        sample: At most so many images, drawn by class.
        seed: Of sample, folds and shuffling.

    Returns:
        One finding each, where it can be told: an error, a warning, or a note that says the number; and one that says
        how many images could not be read, which are left out.

    Raises:
        DataError: Hardly any image can be read, so that not even their usual size is known.
    """
    rows = draw_sample(cohort.labelled, sample, seed)
    size = usual_size(cohort)
    table, cells = _look(rows, size)
    found = []
    if unread := len(rows) - len(table):
        message = f"{unread:,} of the {len(rows):,} images looked at cannot be read; the canary went without them"
        found.append(Finding("canary-left-out", "note", unread, message))
    if table["label"].value_counts().min() < 2 * FOLDS or table["label"].nunique() < 2:
        return tuple(found)
    shuffled = table.assign(label=_shuffle(table["label"].to_numpy(), seed))
    found += [
        _shuffled(_measure("canary-shuffled", shuffled, cells.reshape(len(table), -1), _linear, seed)),
        _file(_measure("canary-file", table, _of_file(table), _boosted, seed), len(table)),
    ]
    if table["group"].notna().all() and 1 < table["group"].nunique() < len(table):
        found.append(_group(table))
    if min(size) > CENTRE + 2 * min(size) // CELLS:
        inside = _inside(size)
        ring, centre = (
            _measure("canary-ring", table, cells[:, where].reshape(len(table), -1), _linear, seed)
            for where in (~inside, inside)
        )
        message = (
            f"colours outside of the centre {CENTRE}x{CENTRE} px alone tell the label with {ring}; in it, {centre}"
        )
        remedy = "where the centre decides, look at crops of it first; context that tells may be slide, not tumour"
        found.append(Finding(ring.name, "note", len(table), message, remedy))
    return tuple(found)


def _shuffle(labels: np.ndarray, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).permutation(labels)


def _look(rows: Cohort, size: tuple[int, int]) -> tuple[pd.DataFrame, np.ndarray]:
    """The rows whose images open, and mean colours in CELLS x CELLS cells: shape (N, CELLS, CELLS, 3)."""
    kept, cells = [], []
    for index, path in enumerate(track(rows.table["path"].tolist(), "canary")):
        try:
            image = fit(read_image(path, rows.bits), size).astype(np.float32)
        except ImageError:  # the audit names them
            continue
        edges = [np.linspace(0, side, CELLS + 1).astype(int)[:-1] for side in size]
        sums = np.add.reduceat(np.add.reduceat(image, edges[0], 0), edges[1], 1)
        counts = np.outer(*(np.diff([*edge, side]) for edge, side in zip(edges, size, strict=True)))
        cells.append(sums / counts[..., None])
        kept.append(index)
    return rows.table.iloc[kept].reset_index(drop=True), np.stack(cells) if cells else np.zeros((0, CELLS, CELLS, 3))


def _inside(size: tuple[int, int]) -> np.ndarray:
    """Cells that touch the centre square, bool, (CELLS, CELLS)."""
    places = []
    for side in size:
        edges = np.linspace(0, side, CELLS + 1)
        places.append((edges[1:] > (side - CENTRE) / 2) & (edges[:-1] < (side + CENTRE) / 2))
    return np.asarray(np.logical_and.outer(*places))


def _of_file(table: pd.DataFrame) -> np.ndarray:
    """Size in bytes, time of change, number and length of the name, place in the folder; float, (N, 5)."""
    rows = []
    for path in table["path"]:
        ref = ImageRef.parse(str(path))
        file, row = ref.file, ref.part
        place, _, length = row.partition("+")
        name = place or os.path.basename(file)
        stat = os.stat(file)
        digits = re.findall(r"\d{1,15}", name)
        size, time = (float(length or 0), 0.0) if row else (stat.st_size, stat.st_mtime)
        rows.append([size, time, float(digits[-1]) if digits else -1.0])
    values = pd.DataFrame(rows)
    values["length"] = table["path"].map(lambda path: len(os.path.basename(path)))
    values["place"] = table["path"].map(os.path.basename).rank()
    return np.asarray(values.to_numpy(np.float64))


def _linear() -> Any:
    return make_pipeline(StandardScaler(), LogisticRegression(C=0.01, max_iter=300))


def _boosted() -> Any:
    return HistGradientBoostingClassifier(max_iter=60, max_leaf_nodes=8, random_state=0)


def _measure(name: str, table: pd.DataFrame, values: np.ndarray, build: Callable[[], Any], seed: int) -> Canary:
    """AUROC of predictions on folds that share no group with what was learnt from."""
    label = table["label"].to_numpy(np.int64)
    groups = table["group"] if table["group"].notna().all() and table["group"].nunique() >= FOLDS else None
    folds: Any = StratifiedKFold if groups is None else StratifiedGroupKFold
    probability = np.full(len(table), np.nan)
    for learnt, left in folds(FOLDS, shuffle=True, random_state=seed).split(values, label, groups):
        if len(np.unique(label[learnt])) == 2 and len(left):
            probability[left] = build().fit(values[learnt], label[learnt]).predict_proba(values[left])[:, 1]
    frame = pd.DataFrame({"label": label, "probability": probability, "group": table["group"]})
    return _canary(name, frame[~np.isnan(probability)])


def _canary(name: str, frame: pd.DataFrame) -> Canary:
    auroc = evaluate_table(frame, 0.5, replicates=400)["auroc"]
    low, high = auroc.ci95 or (0.0, 1.0)
    return Canary(name, auroc.value if auroc.value is not None else float("nan"), (low, high))


def _shuffled(result: Canary) -> Finding:
    if result.interval[0] <= 0.5 or result.auroc < 0.55:
        return Finding(result.name, "note", 0, f"shuffled labels cannot be learnt, as it should be: {result}")
    message = f"shuffled labels can be learnt: {result} where .5 is chance"
    return Finding(result.name, "error", 1, message, "look for copies of images that stand in several groups")


def _file(result: Canary, count: int) -> Finding:
    message = f"name, size and age of the file alone tell the label with {result}"
    if result.interval[0] < FAINT:
        return Finding(result.name, "note", count, message)
    remedy = "find out why: exported class by class, or blank images that compress better; a model must not see it"
    return Finding(result.name, "warning", count, message, remedy)


def _group(table: pd.DataFrame) -> Finding:
    """How well the other images of the same group foretell an image's label."""
    grouped = table.groupby("group")["label"]
    others = (grouped.transform("sum") - table["label"]) / (grouped.transform("count") - 1).clip(lower=1)
    several = grouped.transform("count") > 1
    frame = pd.DataFrame({"label": table["label"], "probability": others.astype(float), "group": table["group"]})
    result = _canary("canary-group", frame[several])
    message = f"the other images of its slide or patient alone tell an image's label with {result}"
    remedy = "split by group, as is the default: a model that knows the group knows that much"
    return Finding(
        result.name, "warning" if result.interval[0] > FAINT else "note", int(several.sum()), message, remedy
    )
