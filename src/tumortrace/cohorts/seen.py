"""Which pictures a run has seen, by the digest of their pixels: how evaluation on training data is found out."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from tumortrace.cohorts.cohort import Cohort
from tumortrace.cohorts.looks import digest_of
from tumortrace.cohorts.splits import Splits
from tumortrace.cohorts.store import PatchStore
from tumortrace.records.files import write_csv
from tumortrace.records.tables import read_table


def digests(images: np.ndarray, rows: np.ndarray) -> list[str]:
    """Digest of each chosen picture.

    Args:
        images: uint8, shape (N, H, W, 3).
        rows: int64: which of them.
    """
    return [digest_of(images[row]) for row in rows]


def write_seen(path: Path, store: PatchStore, cohort: Cohort, splits: Splits) -> None:
    """Write `digest,split` for the training, validation and calibration images to `path`."""
    split = cohort.table["id"].map(splits.table.set_index("id")["split"])
    rows = np.flatnonzero(split.isin(["train", "validation", "calibration"]))
    table = pd.DataFrame({"digest": [store.digests[row] for row in rows], "split": split.iloc[rows].to_numpy()})
    write_csv(path, table.drop_duplicates())


def read_seen(path: Path) -> dict[str, str]:
    """Split by digest, as `write_seen` wrote them; empty where there is no such file."""
    if not path.is_file():
        return {}
    table = read_table(path)
    return dict(zip(table["digest"], table["split"], strict=True))
