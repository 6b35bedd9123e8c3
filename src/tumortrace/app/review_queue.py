"""The patches of a review in their order, those first of which the model is least sure, with what it says of each.

Predictions are made a piece at a time and kept in the workspace, so that the next server takes them up where one ended.
"""

from __future__ import annotations

import hashlib
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from typing_extensions import TypedDict  # pydantic takes no other before Python 3.12

from tumortrace.app.corrections import Correction
from tumortrace.cohorts.cohort import Cohort
from tumortrace.cohorts.labels import binary_labels
from tumortrace.cohorts.layouts import open_cohort
from tumortrace.cohorts.store import PatchStore
from tumortrace.errors import CohortError
from tumortrace.inference.patches import MISMATCH, open_patches
from tumortrace.models.bundle import Assessment, Model
from tumortrace.records.files import write_csv
from tumortrace.records.tables import read_table

PIECE = 32  # images predicted at a time, so that requests in between do not wait long
KEEP_EVERY = 20.0  # seconds of predicting that a kill loses at most
_RESEMBLES = {"True": True, "False": False, "": None}

Assess = Callable[[np.ndarray, np.ndarray], Assessment]


class Item(TypedDict):
    """One patch: what is known and what the model says of it, and the label given."""

    key: str
    id: str
    group: str | None
    probability: float
    decision: str
    called: str
    in_distribution: bool | None
    label_in_data: str | None
    proposed: str
    given: str | None
    given_by: str | None


@dataclass(frozen=True)
class Queue:
    """The patches of one cohort as they are reviewed.

    Attributes:
        cohort: Whose patches they are.
        store: Their pixels.
        table: `probability`, `prediction`, `decision`, `in_distribution`; rows as in the cohort.
        names: Names of the negative and of the positive class.
        order: Rows, least sure first.
        ids: Of the rows.
        keys: Of the rows: what stands for an id in addresses.
        rows: The row of each key.
        classes: The classes as the file of corrections spells them.
    """

    cohort: Cohort
    store: PatchStore
    table: pd.DataFrame
    names: tuple[str, str]
    order: list[int] = field(init=False)
    ids: list[str] = field(init=False)
    keys: list[str] = field(init=False)
    rows: dict[str, int] = field(init=False)
    classes: tuple[str, str] = field(init=False)

    def __post_init__(self) -> None:
        unsure = np.abs(self.table["probability"].to_numpy() - 0.5)
        ids = self.cohort.table["id"].tolist()
        keys = [key_of(identity) for identity in ids]
        made = {
            "order": np.argsort(unsure, kind="stable").tolist(),
            "ids": ids,
            "keys": keys,
            "rows": {key: row for row, key in enumerate(keys)},
            "classes": _spelt(self.names),
        }
        for name, value in made.items():
            object.__setattr__(self, name, value)

    def item(self, row: int, given: Correction | None) -> Item:
        """One patch: what is known and what the model says of it, and the label given."""
        known, said = self.cohort.table.iloc[row], self.table.iloc[row]
        in_data = None if pd.isna(known["label"]) else self.classes[int(known["label"])]
        called = self.classes[int(said["prediction"])]
        return {
            "key": self.keys[row],
            "id": known["id"],
            "group": None if pd.isna(known["group"]) else known["group"],
            "probability": float(said["probability"]),
            "decision": said["decision"],
            "called": called,
            "in_distribution": said["in_distribution"],
            "label_in_data": in_data,
            "proposed": in_data or called,
            "given": None if given is None else given.label,
            "given_by": None if given is None else given.reviewer,
        }


def open_queue(
    data: str,
    reading: Mapping[str, Any],
    model: Model,
    assess: Assess,
    folder: Path,
    note: Callable[..., None],
    stopping: threading.Event,
) -> Queue | None:
    """Open the data and predict; None where it is told to stop before all is predicted.

    Args:
        data: Any layout that `open_cohort` takes.
        reading: Options of `open_cohort`.
        model: Whose predictions they are.
        assess: Predicts images and rows.
        folder: Where predictions are kept.
        note: Told `state`, `done` and `total` as they change.
        stopping: Ends it; what has been predicted is kept.

    Raises:
        TumorTraceError: The data cannot be opened, or the model does not fit them.
    """
    cohort = open_cohort(data, **reading)
    model.require_preparation(cohort.preparation, cohort.name)
    _refuse_line_breaks(cohort)
    patches = open_patches(model, cohort, allow=(MISMATCH, "mask-like"), keep_failed=False)  # told, for a person looks
    store = replace(patches.store, notes=tuple(patches.notes))
    file = folder / f"predictions-{cohort.fingerprint[:16]}-{_version(model)}.csv"
    parts = [_read(file)] if file.is_file() else []
    done, total = sum(map(len, parts)), len(cohort)
    kept, begun = time.monotonic(), done
    note(state="predicting", done=done, total=total)
    while done < total and not stopping.is_set():
        rows = np.arange(done, min(done + PIECE, total))
        parts.append(_told(assess(store.images, rows), cohort.table["id"].iloc[rows]))
        done += len(rows)
        note(done=done)
        if time.monotonic() - kept > KEEP_EVERY and done < total:
            write_csv(file, pd.concat(parts))
            kept = time.monotonic()
    if not parts:
        return None
    table = pd.concat(parts, ignore_index=True)
    if done > begun:
        write_csv(file, table)
    if done < total:
        return None
    resembles = np.array([_RESEMBLES[str(told)] for told in table["in_distribution"]], dtype=object)
    names = cohort.classes if cohort.table["label"].notna().any() else model.info.classes
    return Queue(cohort, store, table.assign(in_distribution=resembles), names)


def key_of(identity: str) -> str:
    """What stands for an id in addresses: the same at every start, whatever the id is made of."""
    return hashlib.sha256(identity.encode()).hexdigest()[:20]


def _version(model: Model) -> str:
    """Of all that a prediction depends on: the weights, and calibration, threshold and promise too."""
    return hashlib.sha256(model.info.model_dump_json(exclude={"drift"}).encode()).hexdigest()[:16]


def _spelt(names: tuple[str, str]) -> tuple[str, str]:
    """Class names as the file spells them: names where reading them back gives the same two, else 0 and 1."""
    try:
        understood = binary_labels(list(names)).classes == tuple(names)
    except CohortError:
        understood = False
    return names if understood else ("0", "1")


def _read(file: Path) -> pd.DataFrame:
    """Predictions kept, with every digit."""
    table = read_table(file)
    return table.assign(in_distribution=table["in_distribution"].astype("string").fillna(""))


def _told(said: Assessment, ids: pd.Series) -> pd.DataFrame:
    return pd.DataFrame(
        {
            "id": ids.to_numpy(),
            "probability": said.probability,
            "prediction": said.prediction,
            "decision": said.decision,
            "in_distribution": [""] * len(ids) if said.in_distribution is None else said.in_distribution.astype(str),
        }
    )


def _refuse_line_breaks(cohort: Cohort) -> None:
    for column in ("id", "path", "group"):
        broken = cohort.table[column].fillna("").str.contains("[\r\n]", regex=True)
        if broken.any():
            raise CohortError(
                f"{column} {cohort.table[column][broken].iloc[0]!r} has a line break",
                where=cohort.name,
                expected="names of one line, since corrections are kept a line each",
                remedy="rename the file",
            )
