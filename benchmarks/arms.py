"""Two or more ways of training, several seeds each, on the same real patches: what one of them gains over another."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from sklearn.metrics import roc_auc_score

from tumortrace import open_cohort, train
from tumortrace.cohorts.cohort import Cohort
from tumortrace.records.files import write_csv

REPLICATES = 500


def pcam() -> Cohort:
    """The real patches, with PatchCamelyon's own splits, which share no slide."""
    folder = os.environ.get("TUMORTRACE_DATA")
    if not folder:
        raise SystemExit("TUMORTRACE_DATA is not set: no real patches to measure on")
    return open_cohort(Path(folder) / "pcam")


def rows_of(cohort: Cohort, split: str, count: int, images: np.ndarray | None = None) -> np.ndarray:
    """Rows of `count` images of a split, drawn from seed 0; distinct pictures where `images` are given."""
    rows = np.flatnonzero(cohort.table["split"] == split)
    if images is not None:
        rows = rows[np.unique([images[row].tobytes() for row in rows], return_index=True)[1]]
    return np.sort(np.random.default_rng(0).permutation(rows)[:count])


def table(file: Path, trained: int, tested: int) -> Path:
    """A table for training: a sample of PatchCamelyon's training split, and of its validation split as the test."""
    cohort = pcam()
    chosen = [
        cohort.table.iloc[rows_of(cohort, "train", trained)].assign(split="train"),
        cohort.table.iloc[rows_of(cohort, "validation", tested)].assign(split="test"),
    ]
    write_csv(file, pd.concat(chosen)[["id", "path", "label", "split"]])
    return file


def train_arms(
    data: Path, recipe: str, arms: dict[str, Sequence[str]], *, seeds: int, epochs: int | None, out: Path
) -> dict[str, list[Path]]:
    """Run folders of each arm (its changes to the recipe), one per seed."""
    runs: dict[str, list[Path]] = {name: [] for name in arms}
    for seed in range(seeds):
        for name, changes in arms.items():
            # Copies are among training patches and in validation; none is in the test split.
            allow = ["copies-across-splits"]
            run = train(data, recipe=recipe, changes=changes, epochs=epochs, out=out, seed=seed, allow=allow)
            runs[name].append(run)
    return runs


def gain(runs: dict[str, list[Path]], first: str, second: str) -> dict[str, Any]:
    """AUROC on the test split per run, and the mean difference, second minus first.

    Its interval is a paired bootstrap that draws seeds and patches, the same ones for both.
    """
    predictions = {}
    for name, folders in runs.items():
        read = [pd.read_csv(run / "predictions.csv", dtype={"id": str}) for run in folders]
        predictions[name] = [each[each["split"] == "test"].set_index("id").sort_index() for each in read]
    any_table = predictions[first][0]
    labels, ids = any_table["label"].to_numpy(), any_table.index
    scores = {name: np.stack([each["probability"].loc[ids] for each in tables]) for name, tables in predictions.items()}

    def aurocs(name: str, drawn: np.ndarray, seeds: np.ndarray) -> list[float]:
        return [float(roc_auc_score(labels[drawn], scores[name][seed][drawn])) for seed in seeds]

    whole, seeds = np.arange(len(labels)), np.arange(len(runs[first]))
    draw = np.random.default_rng(0)
    gains = []
    for _ in range(REPLICATES):
        drawn = draw.choice(whole, len(whole)), draw.choice(seeds, len(seeds))
        gains.append(np.mean(aurocs(second, *drawn)) - np.mean(aurocs(first, *drawn)))
    values = {name: aurocs(name, whole, seeds) for name in scores}
    found = float(np.mean(values[second]) - np.mean(values[first]))
    low, high = np.quantile(gains, (0.025, 0.975))
    return {"tested_on": len(labels), "auroc": values, "gain": {"value": found, "ci95": [float(low), float(high)]}}


def verdict(entry: dict[str, Any]) -> str:
    """What an interval of a gain says."""
    low, high = entry["ci95"]
    return "it helps" if low > 0 else "it harms" if high < 0 else "no difference can be told"


def shown(entry: dict[str, Any], digits: int) -> str:
    """A value with its interval."""
    low, high = entry["ci95"]
    return f"{entry['value']:.{digits}f} [{low:.{digits}f}, {high:.{digits}f}]"
