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
from collections.abc import Collection
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from tumortrace.app.corrections import Correction, Corrections
from tumortrace.app.processes import Message
from tumortrace.app.review_queue import Assess, Item, Queue, key_of, open_queue
from tumortrace.errors import DataError, TumorTraceError
from tumortrace.models.bundle import Model
from tumortrace.records.run import now
from tumortrace.records.tables import CORRECTIONS
from tumortrace.reports.wording import called

STOP_SECONDS = 10.0  # for which stopping waits at most
HELD = 120.0  # seconds for which a patch handed out is held back from others
_LOG = logging.getLogger("tumortrace.app.review")


class Review:
    """One cohort in review.

    Args:
        data: Any layout that `open_cohort` takes.
        workspace: Folder in which `review/NAME/` is made.
        model: What predicts.
        assess: Called instead of `model.assess` with images and rows, where the model is not to be used directly.
        **reading: Options of `open_cohort`.

    Raises:
        DataError: The corrections there are damaged; of a method, that the queue is not ready or a label is no class.
        KeyError: Of a method, that there is no patch of this key.
    """

    def __init__(
        self,
        data: str,
        workspace: Path,
        model: Model,
        *,
        assess: Assess | None = None,
        **reading: Any,
    ) -> None:
        self.folder = workspace / "review" / _name(data)
        self.corrections = Corrections(CORRECTIONS.file(self.folder))
        self._data, self._model, self._reading = data, model, reading
        self._assess = assess or model.assess
        self._state: Message = {"state": "opening", "done": 0, "total": 0, "error": None}
        self._opened: Queue | None = None
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

    def status(self) -> Message:
        """State (`opening`, `predicting`, `ready`, `failed`), progress, class names, counts, the latest labels."""
        opened = self._opened
        if opened is None:
            return dict(self._state)
        given = self.corrections.given()
        mine = {identity: row for identity, row in given.items() if key_of(identity) in opened.rows}
        changed = sum(bool(row.previous_label) and row.previous_label != row.label for row in mine.values())
        return self._state | {
            "name": opened.cohort.name,
            "model": self._model.info.name,
            "classes": list(opened.classes),
            "class_names": [called(name) for name in opened.names],
            "images": len(opened.cohort),
            "reviewed": len(mine),
            "changed": changed,
            "remaining": len(opened.cohort) - len(mine),
            "notes": [*opened.cohort.notes, *opened.store.notes],
            "file": str(self.corrections.file),
            "recent": [
                {"key": key_of(row.id), "id": row.id, "label": row.label, "reviewer": row.reviewer, "at": row.reviewed}
                for row in reversed(list(mine.values())[-8:])
            ],
        }

    def next(self, reader: str, limit: int = 4, without: Collection[str] = ()) -> list[Item]:
        """The patches that this reader is to look at next, least sure first, without those labelled.

        Args:
            reader: Tells one reader's browser from another's; a patch handed out is held back from the others.
            limit: How many at most.
            without: Keys to leave out, such as those skipped.
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
                chosen.append(opened.item(row, None))
                if len(chosen) == limit:
                    break
        return chosen

    def item(self, key: str) -> Item:
        """One patch: what is known and what the model says of it, and the label given."""
        opened = self._ready()
        row = opened.rows[key]
        return opened.item(row, self.corrections.given().get(opened.ids[row]))

    def pixels(self, key: str) -> np.ndarray:
        """The patch: uint8, shape (*patch_size, 3)."""
        opened = self._ready()
        return np.array(opened.store.images[opened.rows[key]])

    def label(self, key: str, label: str, *, expected: str | None = "", reviewer: str = "") -> Item:
        """Write a label down; it is on the disk when this returns.

        Args:
            key: The patch.
            label: One of the class names.
            expected: The label believed to stand; blank for none, None where it does not matter.
            reviewer: Who gives it.

        Returns:
            The patch as `item` tells it; its `given` is another label where that stood and was not expected.
        """
        opened = self._ready()
        row, classes = opened.rows[key], opened.classes
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
        return opened.item(row, self.corrections.give(correction, expected))

    def take_back(self, key: str, *, expected: str | None = None) -> Item:
        """Remove a label; the patch is in the queue again."""
        opened = self._ready()
        self.corrections.take_back(opened.ids[opened.rows[key]], expected)
        return self.item(key)

    def _ready(self) -> Queue:
        if self._opened is None:
            error = self._state["error"]
            raise DataError(
                error or "the predictions are still being made",
                where="review",
                remedy="correct the data and start again" if error else "wait until they are done",
            )
        return self._opened

    def _note(self, **state: Any) -> None:
        self._state = self._state | state

    def _run(self) -> None:
        try:
            self._opened = open_queue(
                self._data, self._reading, self._model, self._assess, self.folder, self._note, self._stopping
            )
            if self._opened is not None:
                self._note(state="ready")
        except (TumorTraceError, OSError) as error:
            self._note(state="failed", error=str(error))
        except Exception:  # whatever it is, the page must not wait for ever
            _LOG.exception("review")
            self._note(state="failed", error="an error that was not foreseen; the server's log has more")


def _name(data: str) -> str:
    """A folder name for the data, the same at every start from anywhere."""
    whole = data if data.startswith("synthetic:") else os.path.abspath(os.path.expanduser(data))
    words = re.sub(r"[^A-Za-z0-9]+", "-", Path(whole).name).strip("-")[:40] or "data"
    return f"{words}-{hashlib.sha256(whole.encode()).hexdigest()[:8]}"
