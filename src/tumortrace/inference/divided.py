"""What a model says of many images, asked here or by several workers: to the last bit the same."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from zipfile import BadZipFile

import numpy as np

from tumortrace.cohorts.bags import bags_of
from tumortrace.cohorts.store import PatchStore
from tumortrace.models.bundle import Assessment, Model
from tumortrace.models.runtimes import Outputs
from tumortrace.records.files import replacing
from tumortrace.records.provenance import versions
from tumortrace.work.hands import Hands
from tumortrace.work.pieces import carry_out
from tumortrace.work.worker import Tell

_PIECES, _BATCHES = 64, 4  # pieces that there are at least, where there are batches for them; most batches of a piece


def assess_divided(
    model: Model,
    store: PatchStore,
    hands: Hands,
    *,
    begin: Callable[[], Model],
    paths: Sequence[str],
    accelerated: bool,
) -> Assessment:
    """What `Model.assess` says of the images of a store that could be read.

    Workers are sent them by whole batches and answer with logits and features. Until all have answered, answers are
    kept beside the decoded images, so that the same call goes on after one that was killed.

    Args:
        model: Which is asked, at its precision.
        store: The images.
        hands: Who computes.
        begin: Loads the model in a worker.
        paths: Of the images, for the user.
        accelerated: Whether workers take an accelerator each, where there are some.

    Raises:
        ModelError: As for `Model.assess`.
        RunError: Interrupted, a piece has ended several workers, or these cannot be had.
    """
    rows = store.sound
    if not hands.elsewhere:
        return model.assess(store.images, rows, description="predicting")
    batch = model.batch_of(len(rows))
    pieces = _Pieces(store.images, rows, batch * max(1, min(_BATCHES, len(rows) // batch // _PIECES)))
    kept = _Kept(None if store.folder is None else store.folder / "answers" / _key(model, rows, pieces.step))
    answers = {start: answer for start in pieces.starts if (answer := kept.read(start)) is not None}
    pieces.starts = [start for start in pieces.starts if start not in answers]

    def receive(number: int, outcome: Outputs | Exception) -> None:
        if isinstance(outcome, Exception):
            raise outcome
        answers[pieces.starts[number]] = outcome
        kept.write(pieces.starts[number], outcome)

    carry_out(
        partial(_answer, model.precision, batch),
        pieces,
        receive,
        begin=begin,
        places=[Path(paths[rows[start]]) for start in pieces.starts],
        title="predicting",
        hands=hands,
        accelerated=accelerated,
    )
    kept.remove()
    return model.judge(Outputs(*map(np.concatenate, zip(*(answers[start] for start in sorted(answers)), strict=True))))


def _answer(precision: str, batch: int, model: Model, images: np.ndarray, tell: Tell) -> Outputs:
    outputs = model.at(precision).outputs(images, batch=batch)
    tell(len(images), len(images))
    return outputs


def _key(model: Model, rows: np.ndarray, step: int) -> str:
    """What tells answers from others on the same decoded images."""
    computing = model.runtime.name if model.runtime is not None else f"torch {model.device.type}"
    what = (versions(), model.info.model_dump_json(), computing, model.precision, rows.tobytes(), step)
    return hashlib.sha256(repr(what).encode()).hexdigest()[:32]


class _Pieces(Sequence[np.ndarray]):
    """Images, so many at a time, read when they are asked for; `starts` tells the first row of each piece."""

    def __init__(self, images: np.ndarray, rows: np.ndarray, step: int) -> None:
        self._images, self._rows, self.step = images, rows, step
        self.starts: Sequence[int] = range(0, len(rows), step)

    def __len__(self) -> int:
        return len(self.starts)

    def __getitem__(self, number: int) -> np.ndarray:  # type: ignore[override]  # no slices
        rows = self._rows[self.starts[number] :][: self.step]
        bags = bags_of(self._images)
        return self._images[rows] if bags is None else bags.of(rows)  # type: ignore[return-value]


class _Kept:
    """Answers in a folder, a file each; None keeps nothing."""

    def __init__(self, folder: Path | None) -> None:
        self._folder = folder

    def read(self, start: int) -> Outputs | None:
        """What was answered of the piece that begins there; None where it is not known."""
        if self._folder is None:
            return None
        try:
            with np.load(self._folder / f"{start}.npz") as arrays:
                return Outputs(**arrays)
        except (OSError, ValueError, TypeError, BadZipFile):
            return None

    def write(self, start: int, answer: Outputs) -> None:
        """Keep it."""
        if self._folder is not None:
            with replacing(self._folder / f"{start}.npz") as temporary, temporary.open("wb") as file:
                np.savez(file, **answer._asdict())

    def remove(self) -> None:
        """Forget all."""
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)
