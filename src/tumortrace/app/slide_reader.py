"""Slides read and scanned in processes of their own, which are killed and replaced when one takes too much."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from types import TracebackType

from tumortrace.app.processes import Message
from tumortrace.app.settings import TOKEN_VARIABLE
from tumortrace.app.slide_files import identity
from tumortrace.app.workers import Worker
from tumortrace.errors import SlideError

Tell = Callable[[int, int], None]


class Busy(Exception):
    """More is asked than can be done now; asking again a little later helps."""


class SlideReader:
    """What slides are, and their Deep Zoom tiles, read by one process that a hostile file may crash.

    Safe in threads; one slide is read at a time, and tiles that were read lately are kept.

    Args:
        seconds: For one answer.
        memory: Bytes of address space of the process, beyond what it starts with.
        waiting: Callers that may wait for an answer.
        cache: Bytes of tiles to keep.
    """

    def __init__(self, *, seconds: float = 20, memory: int = 3 << 30, waiting: int = 32, cache: int = 64 << 20) -> None:
        self.worker = Worker("reader", {"memory": memory}, seconds=seconds)
        self._places = threading.BoundedSemaphore(waiting)
        self._tiles = _Kept(cache)

    def facts(self, path: Path, name: str, **reading: int) -> Message:
        """`width`, `height`, `resolution`, `notes` and Deep Zoom `descriptor` of a slide.

        Args:
            path: The slide's file.
            name: For messages alone.
            **reading: `bits` and `plane`, see `Slide`.

        Raises:
            SlideError: It cannot be read, or not within the limits.
            Busy: Too many callers wait.
        """
        return self._ask({"path": str(path), "file": _identity(path, name), "reading": reading}, name)[0]

    def tile(
        self, path: Path, name: str, level: int, column: int, row: int, overview: Path | None = None, **reading: int
    ) -> bytes:
        """A Deep Zoom tile as a JPEG; of another file, where another has taken the place of the one asked for before.

        Args:
            path: The slide's file.
            name: For messages alone.
            level: Of the pyramid.
            column: Of the tile.
            row: Of the tile.
            overview: See `DeepZoom`.
            **reading: `bits` and `plane`, see `Slide`.

        Raises:
            LookupError: There is no such tile.
            SlideError: It cannot be read, or not within the limits.
            Busy: Too many callers wait.
        """
        file = _identity(path, name)
        key = (str(path), *file, *sorted(reading.items()), level, column, row)
        kept = self._tiles.get(key)
        if kept is not None:
            return kept
        request = {
            "path": str(path),
            "file": file,
            "overview": overview and str(overview),
            "reading": reading,
            "tile": [level, column, row],
        }
        header, content = self._ask(request, name)
        if header.get("missing"):
            raise LookupError("no such tile")
        self._tiles.put(key, content)
        return content

    def close(self) -> None:
        """End the process; the next question starts another."""
        self.worker.close()

    def __enter__(self) -> SlideReader:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _ask(self, request: Message, name: str) -> tuple[Message, bytes]:
        if not self._places.acquire(blocking=False):
            raise Busy("more tiles are asked for than can be read")
        try:
            header, content = self.worker.ask(request)
        finally:
            self._places.release()
        if "error" in header:
            raise SlideError(where=name, **{"remedy": "copy or convert the slide again", **header["error"]})
        return header, content


def scan_apart(request: Message, tell: Tell, stop: threading.Event) -> dict[str, str] | None:
    """Scan in a process of its own, at a lower priority than the server's.

    Args:
        request: Arguments of `scan`.
        tell: Told the tiles done and all tiles.
        stop: Ends the process; the scan can go on later.

    Returns:
        Cause and remedy of a failure, or None.
    """
    last: Message = {}
    for last in Worker("scanner", without=TOKEN_VARIABLE).follow(request, stop):
        if "total" in last:
            tell(last["done"], last["total"])
    if "finished" in last or stop.is_set():
        return None
    crashed = {"cause": "the slide made the scan fail", "remedy": "copy or convert the slide again"}
    error: dict[str, str] = last.get("error", crashed)
    return error


def _identity(path: Path, name: str) -> list[int]:
    try:
        return identity(path)
    except OSError:
        raise SlideError("no such file", where=name, remedy="look whether it has been moved") from None


class _Kept:
    """The tiles that were asked for last, up to so many bytes; safe in threads."""

    def __init__(self, most: int) -> None:
        self._most, self._bytes = most, 0
        self._tiles: OrderedDict[tuple[object, ...], bytes] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, key: tuple[object, ...]) -> bytes | None:
        with self._lock, suppress(KeyError):
            self._tiles.move_to_end(key)
            return self._tiles[key]
        return None

    def put(self, key: tuple[object, ...], tile: bytes) -> None:
        with self._lock:
            self._bytes += len(tile) - len(self._tiles.pop(key, b""))
            self._tiles[key] = tile
            while self._bytes > self._most:
                self._bytes -= len(self._tiles.popitem(last=False)[1])
