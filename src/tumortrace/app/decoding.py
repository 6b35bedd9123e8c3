"""Uploads become pixels in processes of their own, which are killed and replaced when they take too much."""

from __future__ import annotations

import asyncio
import secrets
import shutil
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np

from tumortrace.app.problems import busy
from tumortrace.app.processes import Message
from tumortrace.app.settings import Limits
from tumortrace.app.workers import Worker
from tumortrace.errors import ImageError

_RETIRE = 5000


class Decoded(NamedTuple):
    """An upload: its pixels, uint8, shape (height, width, 3), and what was seen, by the names of `Look`."""

    pixels: np.ndarray
    seen: Message


class Decoder:
    """A pool of processes that decode.

    A file's name plays no part: the content is written under a random name into a private folder, decoded from
    there by the very function that `predict` uses, and deleted.

    Args:
        limits: Processes, seconds, bytes, pixels, pages, and how many images may wait.
    """

    def __init__(self, limits: Limits) -> None:
        self._most, self.waiting = limits.decodes, 0
        rules = {"memory": limits.decode_bytes, "pixels": limits.pixels, "pages": limits.pages}
        self.workers = [
            Worker("decoder", rules, seconds=limits.decode_seconds, retire=_RETIRE) for _ in range(limits.decoders)
        ]
        self._idle: asyncio.Queue[Worker] = asyncio.Queue()
        self._folder = tempfile.TemporaryDirectory(prefix="tumortrace-uploads-")

    async def start(self) -> None:
        """Start the processes."""
        await asyncio.gather(*(asyncio.to_thread(worker.start) for worker in self.workers))
        for worker in self.workers:
            self._idle.put_nowait(worker)

    async def stop(self) -> None:
        """Kill the processes and delete what was uploaded."""
        await asyncio.gather(*(asyncio.to_thread(worker.close) for worker in self.workers))
        self._folder.cleanup()

    async def decode(
        self, content: BinaryIO, size: tuple[int, int], name: str = "upload", **told: float | None
    ) -> Decoded:
        """The pixels of an upload as `predict` reads and resizes them, and what was seen of it.

        Args:
            content: The file, open for reading at its beginning.
            size: Height and width wanted, in pixels.
            name: For messages alone.
            **told: `bits`, `resolution` and `resample` of the request; see `tumortrace.app.processes.decoder`.

        Raises:
            ImageError: It cannot be decoded within the limits.
            Problem: Too many images wait (503).
        """
        if self.waiting >= self._most:
            raise busy("more images wait to be decoded than can be")
        path = Path(self._folder.name) / secrets.token_hex(16)
        self.waiting += 1
        try:
            await asyncio.to_thread(_copy, content, path)
            worker = await self._idle.get()
            try:
                header, pixels = await asyncio.to_thread(worker.ask, {"path": str(path), "size": size, **told})
            except asyncio.CancelledError:
                worker.kill()  # the next caller must not wait for an image that nobody asks for any more
                raise
            finally:
                self._idle.put_nowait(worker)
        finally:
            self.waiting -= 1
            with suppress(OSError):
                path.unlink()
        if "error" in header:
            raise ImageError(
                where=name, **{"remedy": "restore it from its source, or save it as a plain PNG"} | header["error"]
            )
        return Decoded(np.frombuffer(pixels, np.uint8).reshape(*size, 3), header["seen"])


def _copy(content: BinaryIO, path: Path) -> None:
    with open(path, "xb") as file:
        shutil.copyfileobj(content, file)
