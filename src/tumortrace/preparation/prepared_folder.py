"""The folder that `prepare` fills: which images are done, and who may write to it."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Sequence
from contextlib import AbstractContextManager
from pathlib import Path

import pandas as pd

from tumortrace.cohorts.cohort import Cohort
from tumortrace.cohorts.resolution import COLUMNS as RESOLUTIONS
from tumortrace.cohorts.resolution import common, stated_before
from tumortrace.errors import DataError, RunError
from tumortrace.images.decoding import fit, read_image
from tumortrace.images.preprocessing import Preprocessing
from tumortrace.preparation.pictures import Outcome, describe, draw_before_after, examples, record_of
from tumortrace.records.data import PreparedFrom, PreparedRecord
from tumortrace.records.journal import Journal
from tumortrace.records.lock import locked
from tumortrace.records.progress import say
from tumortrace.records.provenance import RESEARCH_USE, versions
from tumortrace.records.record import Open
from tumortrace.records.tables import FAILED, LABELS

_OF_THE_FILES = ("mask", "width", "height", *RESOLUTIONS)  # columns that say what holds of the pictures from before
JOURNAL, LOCK = ".progress.jsonl", ".lock"
_END_OF_PNG = b"\x00\x00\x00\x00IEND\xaeB`\x82"


class PreparedFolder:
    """A folder of prepared images, its record `prepared.json`, and a journal of the images that are done.

    Args:
        folder: New, empty, or begun by a call for the same `request`.
        request: What the outcome depends on: the data and the steps.

    Attributes:
        outcomes: By row of the cohort: {"unchanged": bool, "resized": bool}, or {"failed": reason}.

    Raises:
        RunError: The folder holds something else, or was prepared otherwise; nothing in it is changed.
    """

    def __init__(self, folder: Path, request: Open) -> None:
        self.folder, self.images, self.request = folder, folder / "images", request
        self._refuse_others()
        if not PreparedRecord.file(folder).exists():
            self.write_record(PreparedRecord(status="unfinished"))
        self.images.mkdir(exist_ok=True)
        self.outcomes: dict[int, Outcome] = {}
        self._journal = Journal[tuple[int, Outcome]](folder / JOURNAL, request)

    def write_record(self, record: PreparedRecord) -> None:
        """Write `prepared.json`; only the status complete makes the folder open as a cohort."""
        usual = {"layout": "prepared", "format": 1, "request": self.request}
        record.model_copy(update=usual).write(self.folder)

    def locked(self) -> AbstractContextManager[None]:
        """Keep other processes out."""
        busy = RunError("another process is preparing it", where=self.folder, remedy="wait for it to end")
        return locked(self.folder / LOCK, busy=busy)

    def resume(self, names: Sequence[str]) -> None:
        """Take over what an earlier call has done: journalled, and each picture whole to its last byte."""
        self.outcomes = {
            row: outcome
            for row, outcome in self._journal.entries
            if row < len(names) and ("failed" in outcome or is_whole(self.images / names[row]))
        }

    def add(self, rows: Sequence[int], outcomes: Sequence[Outcome]) -> None:
        """Put down the outcomes of rows whose pictures are written."""
        new = dict(zip(rows, outcomes, strict=True))
        self.outcomes |= new
        self._journal.append(*new.items())

    def _refuse_others(self) -> None:
        if self.folder.exists() and not self.folder.is_dir():
            raise RunError("is a file", where=self.folder, expected="a folder or a name not in use")
        if not self.folder.exists() or not any(self.folder.iterdir()):
            return
        record = PreparedRecord.recognise(self.folder)
        if record is None or not record.request:
            told = "the folder is not empty and holds no prepared images"
            raise RunError(told, where=self.folder, remedy="choose another folder with OUT; nothing was changed")
        before = record.request
        if before != self.request:
            differing = [name for name in self.request if before.get(name) != self.request[name]]
            raise RunError(
                f"images prepared otherwise are there: another {' and '.join(differing) or 'request'}",
                where=self.folder,
                expected="the data and steps of this call",
                remedy="choose another folder; nothing was changed",
            )


def safe_names(ids: Sequence[str]) -> list[str]:
    """A file name for each id that every file system takes, unique also where upper and lower case are one.

    Example:
        >>> safe_names(["a1", "b/2"])
        ['a1.png', 'b_2-22e379eb.png']
    """
    taken: set[str] = set()
    names = []
    for row, identity in enumerate(ids):
        stem = re.sub(r"[^A-Za-z0-9._-]", "_", identity)[:100].lstrip(".-")
        if stem != identity or stem.lower() in taken:
            salt = identity if f"{stem}-{_digest(identity)}".lower() not in taken else f"{identity}\0{row}"
            stem = f"{stem}-{_digest(salt)}"
        taken.add(stem.lower())
        names.append(f"{stem}.png")
    return names


def is_whole(picture: Path) -> bool:
    """Whether a PNG file is there to its last byte."""
    try:
        with open(picture, "rb") as file:
            file.seek(-len(_END_OF_PNG), os.SEEK_END)
            return file.read() == _END_OF_PNG
    except OSError:
        return False


def refuse_inside(out: Path, data: object) -> None:
    """Refuse a folder within the data, which would become part of them."""
    if isinstance(data, str | os.PathLike) and Path(data).is_dir():
        home = Path(data).resolve()
        if out.resolve().is_relative_to(home):
            raise DataError("lies within the data", where=out, expected="a folder elsewhere", remedy="choose another")


def _digest(text: str) -> str:
    return hashlib.blake2b(text.encode(), digest_size=4).hexdigest()


# What stands beside prepared images: labels, failures, the picture to look at, and the record.


def finish(
    folder: PreparedFolder,
    cohort: Cohort,
    names: list[str],
    size: tuple[int, int],
    steps: Preprocessing,
    before_after: int,
) -> None:
    """Write everything but the images, the record that makes them a cohort last.

    Args:
        folder: With the outcome of every row.
        cohort: What was prepared.
        names: File names of the images, by row.
        size: Height and width in pixels that the images had.
        steps: What was done to them.
        before_after: Images in the picture; 0 draws none.

    Raises:
        DataError: No image could be read.
    """
    outcomes = [folder.outcomes[row] for row in range(len(cohort))]
    rows = [row for row, outcome in enumerate(outcomes) if "failed" not in outcome]
    if not rows:
        raise DataError("none of the images can be read", where=cohort.name, remedy="run `tumortrace check`")
    counts = {
        "images": len(cohort),
        "prepared": len(rows),
        "failed": len(cohort) - len(rows),
        "resized": sum(outcomes[row]["resized"] for row in rows),
        "stain_unchanged": sum(outcomes[row]["unchanged"] for row in rows),
    }
    notes = _notes(counts, size, steps)
    resolution, note = _resolution(cohort, size, steps)
    _write_failed(folder.folder, cohort, outcomes)
    if before_after:
        _draw(folder, cohort, names, examples(cohort.table["label"], rows, before_after), size, steps.crop)
    table = cohort.table.loc[rows].drop(columns=_OF_THE_FILES, errors="ignore")
    table = table.assign(path=["images/" + names[row] for row in rows])
    if steps.stain != "none":
        table["stain_unchanged"] = [int(outcomes[row]["unchanged"]) for row in rows]
    LABELS.write(folder.folder, table)
    if hasattr(os, "sync"):
        os.sync()
    folder.write_record(
        PreparedRecord(
            status="complete",
            source=PreparedFrom(
                name=cohort.name,
                layout=cohort.layout,
                fingerprint=str(folder.request["data"]),
                size=list(size),
                resolution=cohort.resolution,
                notes=list(cohort.notes),
            ),
            steps=describe(steps),
            preprocessing=record_of(steps),
            super_resolution=None if steps.super_resolution is None else steps.super_resolution.describe(),
            classes=list(cohort.classes),
            positive_class=cohort.positive_class,
            class_names=list(cohort.class_names),
            positive_names=list(cohort.positive_names),
            resolution=resolution,
            size=list(steps.output_size(size)),
            counts=counts,
            notes=[*notes, *note],
            versions=versions(),
            use=RESEARCH_USE,
        )
    )
    for line in (*notes, *note):
        say(f"note: {line}")
    say(f"prepare: {len(rows):,} images in {folder.folder} ({describe(steps)}). {RESEARCH_USE}")


def _notes(counts: dict[str, int], size: tuple[int, int], steps: Preprocessing) -> list[str]:
    """What is to be said about images that did not go the usual way."""
    of = f"of {counts['images']:,} images"
    notes = []
    if counts["failed"]:
        notes.append(f"{counts['failed']:,} {of} could not be read and are left out: see {FAILED.name}")
    if counts["resized"]:
        notes.append(f"{counts['resized']:,} {of} were not {size[1]}x{size[0]} pixels and were resized first")
    if counts["stain_unchanged"]:
        notes.append(
            f"{counts['stain_unchanged']:,} {of} hold too little tissue to normalise its stain ({steps.stain}), or one "
            "stain only, and keep theirs: see column stain_unchanged in labels.csv"
        )
    if steps.crop is not None:
        notes.append(
            f"the images are cropped already: train with --set preprocessing.crop=null where a recipe crops to "
            f"{steps.crop} px as well"
        )
    return notes


def _resolution(cohort: Cohort, size: tuple[int, int], steps: Preprocessing) -> tuple[float | None, list[str]]:
    """Micrometres per pixel of the prepared images, and a note where they have none that holds in both directions."""
    resolution = cohort.resolution or common(stated_before(cohort))
    if resolution is None:
        return None, []
    kept = [min(side, steps.crop or side) * steps.framed for side in size]
    factors = [before / after for before, after in zip(kept, steps.output_size(size), strict=True)]
    if abs(factors[0] - factors[1]) > 1e-9:
        return None, ["the resolution is not known, as height and width were resized differently"]
    return resolution * factors[0], []


def _write_failed(folder: Path, cohort: Cohort, outcomes: list[Outcome]) -> None:
    failed = [row for row, outcome in enumerate(outcomes) if "failed" in outcome]
    if not failed:
        FAILED.file(folder).unlink(missing_ok=True)
        return
    table = cohort.table.loc[failed, ["id", "path"]]
    FAILED.write(folder, table.assign(reason=[outcomes[row]["failed"] for row in failed]))


def _draw(
    folder: PreparedFolder, cohort: Cohort, names: list[str], rows: list[int], size: tuple[int, int], crop: int | None
) -> None:
    before = [fit(read_image(cohort.table["path"][row], cohort.bits), size) for row in rows]
    after = [read_image(folder.images / names[row]) for row in rows]
    labels = cohort.table["label"]
    titles = ["no label" if pd.isna(labels[row]) else cohort.classes[labels[row]] for row in rows]
    draw_before_after(folder.folder / "before_after.png", before, after, titles, crop)
