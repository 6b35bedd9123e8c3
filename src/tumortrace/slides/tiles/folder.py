"""The folder that `tile` fills: what of it is done, and who may write to it."""

from __future__ import annotations

import re
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pandas as pd

from tumortrace.errors import RunError
from tumortrace.records.files import replacing
from tumortrace.records.journal import Journal
from tumortrace.records.lock import locked
from tumortrace.records.output import differing, require_folder
from tumortrace.records.record import Open
from tumortrace.records.tiles import PREVIEWS, TILES_FOLDER, TiledSlide, TilingRecord

JOURNAL, LOCK, PLANS = ".progress.jsonl", ".lock", ".plans"


class TilesFolder:
    """A folder of tiles, its record `tiles.json`, and a journal of the slides that are planned and cut.

    Args:
        folder: New, empty, or begun by a call for the same `request`.
        request: What the outcome depends on.

    Raises:
        RunError: It holds something else, or tiles that were cut otherwise; nothing in it is changed.
    """

    def __init__(self, folder: Path, request: Open) -> None:
        self.folder, self.request = folder, request
        self._refuse_others()
        for name in (TILES_FOLDER, PREVIEWS, PLANS):
            (folder / name).mkdir(parents=True, exist_ok=True)

    @property
    def complete(self) -> TilingRecord | None:
        """The record of what is there, where that is complete and what is asked for."""
        record = TilingRecord.recognise(self.folder)
        return record if record is not None and record.status == "complete" else None

    def locked(self) -> AbstractContextManager[None]:
        """Keep other processes out."""
        busy = RunError("another process is tiling into it", where=self.folder, remedy="wait for it, or name another")
        return locked(self.folder / LOCK, busy=busy, remove=True)

    def begin(self) -> None:
        """Take up what the same call left, or begin."""
        if not TilingRecord.exists(self.folder):
            self.write(TilingRecord(status="unfinished"))
        self._journal = Journal[dict[str, Any]](self.folder / JOURNAL, self.request)
        entries = self._journal.entries
        self.planned = {entry["plan"]: TiledSlide(**entry["slide"]) for entry in entries if "plan" in entry}
        self.cut = {entry["cut"]: TiledSlide(**entry["slide"]) for entry in entries if "cut" in entry}

    def add_plan(self, number: int, slide: TiledSlide, tiles: pd.DataFrame) -> None:
        """Put down the tiles that a slide has."""
        with replacing(self.plan_file(number)) as temporary:
            tiles.to_parquet(temporary, index=False)
        self._journal.append({"plan": number, "slide": slide.as_json()})
        self.planned[number] = slide

    def add_cut(self, number: int, slide: TiledSlide) -> None:
        """Put down that the files of a slide are written."""
        self._journal.append({"cut": number, "slide": slide.as_json()})
        self.cut[number] = slide

    def names(self, number: int, slide: str) -> tuple[str, str]:
        """Where a slide's tiles and picture go, relative to the folder."""
        stem = f"{number + 1:04d}-{re.sub(r'[^A-Za-z0-9._-]', '_', slide)[:100]}"
        return f"{TILES_FOLDER}/{stem}.parquet", f"{PREVIEWS}/{stem}.png"

    def write(self, record: TilingRecord) -> None:
        """Write `tiles.json`."""
        record.model_copy(update={"layout": "tiles", "request": self.request}).write(self.folder)

    def clear(self) -> None:
        """Remove what is needed to go on alone: all is cut."""
        for plan in (self.folder / PLANS).iterdir():
            plan.unlink()
        (self.folder / PLANS).rmdir()
        self._journal.remove()

    def plan_file(self, number: int) -> Path:
        """The table of tiles that a slide has."""
        return self.folder / PLANS / f"{number + 1:04d}.parquet"

    def _refuse_others(self) -> None:
        require_folder(self.folder)
        if not self.folder.exists() or not any(self.folder.iterdir()):
            return
        record = TilingRecord.recognise(self.folder)
        if record is None or record.layout != "tiles":
            raise RunError("not empty, and holds no tiles", where=self.folder, remedy="choose another folder with -o")
        begun = any((self.folder / TILES_FOLDER).glob("*.parquet")) or record.status == "complete"
        if record.request != self.request and begun:
            raise RunError(
                f"holds tiles that were cut otherwise: {'; '.join(differing(record.request, self.request)[:3])}",
                where=self.folder,
                expected="the slides and settings of this call",
                remedy="choose another folder with -o, or remove it",
            )
        if record.request != self.request:
            self.write(TilingRecord(status="unfinished"))
