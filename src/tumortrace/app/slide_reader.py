"""Slides read in a process of their own, which is killed and replaced when one takes too much."""

from __future__ import annotations

import json
import subprocess
import threading
from collections import OrderedDict
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any

from tumortrace.app.child import bare_environment, command
from tumortrace.app.slide_files import identity
from tumortrace.errors import SlideError


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
        self._seconds, self._memory = seconds, memory
        self._process: subprocess.Popen[bytes] | None = None
        self._lock = threading.Lock()
        self._places = threading.BoundedSemaphore(waiting)
        self._tiles = _Kept(cache)

    def facts(self, path: Path, name: str) -> dict[str, Any]:
        """`width`, `height`, `resolution`, `notes` and Deep Zoom `descriptor` of a slide.

        Args:
            path: The slide's file.
            name: For messages alone.

        Raises:
            SlideError: It cannot be read, or not within the limits.
            Busy: Too many callers wait.
        """
        return self._ask({"path": str(path), "file": _identity(path, name)}, name)[0]

    def tile(self, path: Path, name: str, level: int, column: int, row: int, overview: Path | None = None) -> bytes:
        """A Deep Zoom tile as a JPEG; of another file, where another has taken the place of the one asked for before.

        Args:
            path: The slide's file.
            name: For messages alone.
            level: Of the pyramid.
            column: Of the tile.
            row: Of the tile.
            overview: See `DeepZoom`.

        Raises:
            LookupError: There is no such tile.
            SlideError: It cannot be read, or not within the limits.
            Busy: Too many callers wait.
        """
        file = _identity(path, name)
        key = (str(path), *file, level, column, row)
        kept = self._tiles.get(key)
        if kept is not None:
            return kept
        request = {
            "path": str(path),
            "file": file,
            "overview": overview and str(overview),
            "tile": [level, column, row],
        }
        header, content = self._ask(request, name)
        if header.get("missing"):
            raise LookupError("no such tile")
        self._tiles.put(key, content)
        return content

    def close(self) -> None:
        """End the process; the next question starts another."""
        process = self._process
        if process is not None:
            process.kill()  # a thread that waits for an answer gets none, and lets go of the lock
        with self._lock:
            self._end()

    def __enter__(self) -> SlideReader:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _ask(self, request: dict[str, Any], name: str) -> tuple[dict[str, Any], bytes]:
        if not self._places.acquire(blocking=False):
            raise Busy("more tiles are asked for than can be read")
        try:
            with self._lock:
                header, content = self._exchange(request)
        finally:
            self._places.release()
        if "error" in header:
            raise SlideError(where=name, **header["error"])
        return header, content

    def _exchange(self, request: dict[str, Any]) -> tuple[dict[str, Any], bytes]:
        late = threading.Event()
        try:
            process = self._running()

            def give_up() -> None:
                late.set()
                process.kill()

            timer = threading.Timer(self._seconds, give_up)
            timer.start()
            try:
                return _converse(process, request)
            finally:
                timer.cancel()
        except (EOFError, OSError, ValueError):
            self._end()
        found = f"takes more than {self._memory >> 20} MiB of memory, or makes its reader fail"
        if late.is_set():
            found = f"takes more than {self._seconds:g} s to read"
        return {"error": {"found": found, "expected": None, "remedy": "copy or convert the slide again"}}, b""

    def _end(self) -> None:
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.wait()
            for stream in (process.stdin, process.stdout):
                with suppress(OSError):  # what was not flushed has nobody to go to
                    assert stream is not None
                    stream.close()

    def _running(self) -> subprocess.Popen[bytes]:
        if self._process is not None and self._process.poll() is not None:
            self._end()
        if self._process is None:
            self._process = subprocess.Popen(
                command("tumortrace.app.slide_process"),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                env=bare_environment(),
                start_new_session=True,  # an interrupt from the keyboard is the server's to handle
            )
            _converse(self._process, {"bytes": self._memory})
        return self._process


def _identity(path: Path, name: str) -> list[int]:
    try:
        return identity(path)
    except OSError:
        raise SlideError("no such file", where=name, remedy="look whether it has been moved") from None


def _converse(process: subprocess.Popen[bytes], request: dict[str, Any]) -> tuple[dict[str, Any], bytes]:
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(json.dumps(request).encode() + b"\n")
    process.stdin.flush()
    header = json.loads(process.stdout.readline())
    content = process.stdout.read(header.get("bytes", 0))
    if len(content) != header.get("bytes", 0):
        raise EOFError("the answer ends in the middle")
    return header, content


class _Kept:
    """The tiles that were asked for last, up to so many bytes; safe in threads."""

    def __init__(self, most: int) -> None:
        self._most, self._bytes = most, 0
        self._tiles: OrderedDict[tuple[Any, ...], bytes] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, key: tuple[Any, ...]) -> bytes | None:
        with self._lock, suppress(KeyError):
            self._tiles.move_to_end(key)
            return self._tiles[key]
        return None

    def put(self, key: tuple[Any, ...], tile: bytes) -> None:
        with self._lock:
            self._bytes += len(tile) - len(self._tiles.pop(key, b""))
            self._tiles[key] = tile
            while self._bytes > self._most:
                self._bytes -= len(self._tiles.popitem(last=False)[1])
