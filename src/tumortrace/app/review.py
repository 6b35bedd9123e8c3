"""The review queue: patches that people label, those first of which the model is least sure.

Predictions are made once in the background and kept in the workspace; labels go to a `Corrections` file there. What is
handed to one reviewer is held back from the others for a while, so that two do not label the same patch.
"""

from __future__ import annotations

import hashlib
import logging
import os
import re
import threading
import time
from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from tumortrace.app.corrections import Correction, Corrections
from tumortrace.cohorts.cohort import Cohort
from tumortrace.cohorts.labels import binary_labels
from tumortrace.cohorts.layouts import open_cohort
from tumortrace.cohorts.store import PatchStore, open_store
from tumortrace.errors import CohortError, DataError, TumorTraceError
from tumortrace.models.assessment import Assessment
from tumortrace.models.bundle import Model
from tumortrace.reports.records import called
from tumortrace.runs.files import write_csv
from tumortrace.runs.run import now

PIECE = 32  # images predicted at a time, so that requests in between do not wait long
KEEP_EVERY = 20.0  # seconds of predicting that a kill loses at most
STOP_SECONDS = 10.0  # for which stopping waits at most
HELD = 120.0  # seconds for which a patch handed out is held back from others
_LOG = logging.getLogger("tumortrace.app.review")
_RESEMBLES = {"True": True, "False": False, "": None}


@dataclass(frozen=True)
class _Opened:
    cohort: Cohort
    store: PatchStore
    table: pd.DataFrame  # id, probability, prediction, decision, in_distribution; rows as in the cohort
    order: list[int]  # rows, least sure first
    ids: list[str]
    keys: list[str]
    rows: dict[str, int]  # row of each key


class Review:
    """One cohort in review.

    Args:
        data: Any layout that `open_cohort` takes.
        workspace: Folder in which `review/NAME/` is made.
        model: What predicts.
        assess: Called instead of `model.assess` with images and rows, where the model is not to be used directly.
        **reading: Options of `open_cohort`.

    Raises:
        DataError: The corrections there are damaged.
    """

    def __init__(
        self,
        data: str,
        workspace: Path,
        model: Model,
        *,
        assess: Callable[[np.ndarray, np.ndarray], Assessment] | None = None,
        **reading: Any,
    ) -> None:
        self.folder = workspace / "review" / _name(data)
        self.corrections = Corrections(self.folder / "corrections.csv")
        self._data, self._model, self._reading = data, model, reading
        self._assess = assess or model.assess
        self._state: dict[str, Any] = {"state": "opening", "done": 0, "total": 0, "error": None}
        self._opened: _Opened | None = None
        self._held: dict[str, tuple[str, float]] = {}
        self._lock = threading.Lock()
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="review", daemon=True)

    def start(self) -> None:
        """Open the data and predict, in the background."""
        self._thread.start()

    def stop(self) -> None:
        """Stop predicting; what has been predicted is kept."""
        self._stopping.set()
        if self._thread.is_alive():  # data may take long to open; what is left of that ends with the program
            self._thread.join(STOP_SECONDS)

    def wait(self, seconds: float) -> bool:
        """Wait until the queue is ready or has failed; False where it is neither in time."""
        self._thread.join(seconds)
        return not self._thread.is_alive()

    def status(self) -> dict[str, Any]:
        """State (`opening`, `predicting`, `ready`, `failed`), progress, class names, counts, the latest labels."""
        opened = self._opened
        if opened is None:
            return dict(self._state)
        given = self.corrections.given()
        mine = {identity: row for identity, row in given.items() if _key(identity) in opened.rows}
        changed = sum(bool(row.previous_label) and row.previous_label != row.label for row in mine.values())
        return self._state | {
            "name": opened.cohort.name,
            "model": self._model.info.name,
            "classes": list(self._classes(opened)),
            "class_names": [called(name) for name in self._names(opened)],
            "images": len(opened.cohort),
            "reviewed": len(mine),
            "changed": changed,
            "remaining": len(opened.cohort) - len(mine),
            "notes": [*opened.cohort.notes, *opened.store.notes],
            "file": str(self.corrections.file),
            "recent": [
                {"key": _key(row.id), "id": row.id, "label": row.label, "reviewer": row.reviewer, "at": row.reviewed}
                for row in reversed(list(mine.values())[-8:])
            ],
        }

    def next(self, reader: str, limit: int = 4, without: Collection[str] = ()) -> list[dict[str, Any]]:
        """The patches that this reader is to look at next, least sure first, without those labelled.

        Args:
            reader: Tells one reader's browser from another's; a patch handed out is held back from the others.
            limit: How many at most.
            without: Keys to leave out, such as those skipped.

        Raises:
            DataError: The queue is not ready.
        """
        opened = self._ready()
        given, left, moment = self.corrections.given(), set(without), time.monotonic()
        chosen = []
        with self._lock:
            for row in opened.order:
                key = opened.keys[row]
                if key in left or opened.ids[row] in given:
                    continue
                holder, until = self._held.get(key, ("", 0.0))
                if holder not in ("", reader) and until > moment:
                    continue
                self._held[key] = (reader, moment + HELD)
                chosen.append(self._item(opened, row, None))
                if len(chosen) == limit:
                    break
        return chosen

    def item(self, key: str) -> dict[str, Any]:
        """One patch: what is known and what the model says of it, and the label given.

        Raises:
            KeyError: There is no such patch.
            DataError: The queue is not ready.
        """
        opened = self._ready()
        row = opened.rows[key]
        return self._item(opened, row, self.corrections.given().get(opened.ids[row]))

    def pixels(self, key: str) -> np.ndarray:
        """The patch: uint8, shape (*patch_size, 3).

        Raises:
            KeyError: There is no such patch.
            DataError: The queue is not ready.
        """
        opened = self._ready()
        return np.array(opened.store.images[opened.rows[key]])

    def label(self, key: str, label: str, *, expected: str | None = "", reviewer: str = "") -> dict[str, Any]:
        """Write a label down; it is on the disk when this returns.

        Args:
            key: The patch.
            label: One of the class names.
            expected: The label believed to stand; blank for none, None where it does not matter.
            reviewer: Who gives it.

        Returns:
            The patch as `item` tells it; its `given` is another label where that stood and was not expected.

        Raises:
            KeyError: There is no such patch.
            DataError: The label is no class, or the queue is not ready.
        """
        opened = self._ready()
        row, classes = opened.rows[key], self._classes(opened)
        if label not in classes:
            raise DataError(f"label {label[:80]!r}", expected=" or ".join(classes), remedy="give one of these")
        known, said = opened.cohort.table.iloc[row], opened.table.iloc[row]
        correction = Correction(
            id=str(known["id"]),
            path=os.path.abspath(str(known["path"])),
            label=label,
            group="" if pd.isna(known["group"]) else str(known["group"]),
            split="" if pd.isna(known["split"]) else str(known["split"]),
            previous_label="" if pd.isna(known["label"]) else classes[int(known["label"])],
            probability=repr(float(said["probability"])),
            model=self._model.info.name,
            reviewer=" ".join(reviewer.split()).lstrip("=+-@ ")[:80],  # no formula where a spreadsheet opens it
            reviewed=now(),
        )
        return self._item(opened, row, self.corrections.give(correction, expected))

    def take_back(self, key: str, *, expected: str | None = None) -> dict[str, Any]:
        """Remove a label; the patch is in the queue again.

        Raises:
            KeyError: There is no such patch.
            DataError: The queue is not ready.
        """
        opened = self._ready()
        self.corrections.take_back(opened.ids[opened.rows[key]], expected)
        return self.item(key)

    def _ready(self) -> _Opened:
        if self._opened is None:
            error = self._state["error"]
            raise DataError(
                error or "the predictions are still being made",
                where="review",
                remedy="correct the data and start again" if error else "wait until they are done",
            )
        return self._opened

    def _classes(self, opened: _Opened) -> tuple[str, str]:
        """Class names as the file spells them: names where reading them back gives the same two, else 0 and 1."""
        names = self._names(opened)
        try:
            understood = binary_labels(list(names)).classes == tuple(names)
        except CohortError:
            understood = False
        return names if understood else ("0", "1")

    def _names(self, opened: _Opened) -> tuple[str, str]:
        return opened.cohort.classes if opened.cohort.table["label"].notna().any() else self._model.info.classes

    def _item(self, opened: _Opened, row: int, given: Correction | None) -> dict[str, Any]:
        known, said, classes = opened.cohort.table.iloc[row], opened.table.iloc[row], self._classes(opened)
        in_data = None if pd.isna(known["label"]) else classes[int(known["label"])]
        called = classes[int(said["prediction"])]
        return {
            "key": opened.keys[row],
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

    def _run(self) -> None:
        try:
            self._opened = self._open()
            if self._opened is not None:
                self._state = self._state | {"state": "ready"}
        except (TumorTraceError, OSError) as error:
            self._state = self._state | {"state": "failed", "error": str(error)}
        except Exception:  # whatever it is, the page must not wait for ever
            _LOG.exception("review")
            found = "an error that was not foreseen; the server's log has more"
            self._state = self._state | {"state": "failed", "error": found}

    def _open(self) -> _Opened | None:
        cohort = open_cohort(self._data, **self._reading)
        self._model.require_preparation(cohort.preparation, cohort.name)
        _refuse_line_breaks(cohort)
        store = open_store(cohort, size=self._model.info.patch_size)
        table = self._predictions(cohort, store)
        if table is None:
            return None
        ids = cohort.table["id"].tolist()
        keys = [_key(identity) for identity in ids]
        order = np.argsort(np.abs(table["probability"].to_numpy() - 0.5), kind="stable").tolist()
        return _Opened(cohort, store, table, order, ids, keys, {key: row for row, key in enumerate(keys)})

    def _predictions(self, cohort: Cohort, store: PatchStore) -> pd.DataFrame | None:
        """Predictions of all rows; begun ones are taken up where they ended. None where it is told to stop."""
        versions = f"{cohort.fingerprint[:16]}-{self._model.info.weights_sha256[:16]}"
        file = self.folder / f"predictions-{versions}.csv"
        parts = [_read(file)] if file.is_file() else []
        done, total = sum(map(len, parts)), len(cohort)
        kept, begun = time.monotonic(), done
        self._state = self._state | {"state": "predicting", "done": done, "total": total}
        while done < total and not self._stopping.is_set():
            rows = np.arange(done, min(done + PIECE, total))
            parts.append(_told(self._assess(store.images, rows), cohort.table["id"].iloc[rows]))
            done += len(rows)
            self._state = self._state | {"done": done}
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
        return table.assign(in_distribution=resembles)


def _read(file: Path) -> pd.DataFrame:
    """Predictions kept, with every digit."""
    text = {"id": str, "in_distribution": str}
    return pd.read_csv(file, dtype=text, keep_default_na=False)


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


def _key(identity: str) -> str:
    """What stands for an id in addresses: the same at every start, whatever the id is made of."""
    return hashlib.sha256(identity.encode()).hexdigest()[:20]


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


def _name(data: str) -> str:
    """A folder name for the data, the same at every start from anywhere."""
    whole = data if data.startswith("synthetic:") else os.path.abspath(os.path.expanduser(data))
    words = re.sub(r"[^A-Za-z0-9]+", "-", Path(whole).name).strip("-")[:40] or "data"
    return f"{words}-{hashlib.sha256(whole.encode()).hexdigest()[:8]}"
