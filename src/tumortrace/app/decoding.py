"""Uploads become pixels in processes of their own, which are killed and replaced when they take too much."""

from __future__ import annotations

import asyncio
import json
import secrets
import shutil
import tempfile
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from tumortrace.app.child import bare_environment, command
from tumortrace.app.problems import busy
from tumortrace.app.settings import Limits
from tumortrace.errors import ImageError

_RETIRE = 5000  # images after which a process makes room for a fresh one, lest a decoder's leaks add up


@dataclass(frozen=True)
class Decoded:
    """One upload as pixels.

    Attributes:
        pixels: uint8, shape (height, width, 3), of the size asked for; as `cohorts.images.fit` makes it.
        format: What the content is: `JPEG`, `PNG`, `TIFF`, ...
        size: Height and width in pixels of the original.
    """

    pixels: np.ndarray
    format: str
    size: tuple[int, int]


class Decoder:
    """A pool of processes that decode.

    A file's name plays no part: the content is written under a random name into a private folder, decoded from
    there by the very function that `predict` uses, and deleted.

    Args:
        limits: Processes, seconds, bytes, pixels, pages, and how many images may wait.
    """

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._idle: asyncio.Queue[_Process] = asyncio.Queue()
        self._folder = tempfile.TemporaryDirectory(prefix="tumortrace-uploads-")
        self._processes: list[_Process] = []
        self.waiting = 0

    async def start(self) -> None:
        """Start the processes."""
        self._processes = [_Process(self._limits) for _ in range(self._limits.decoders)]
        await asyncio.gather(*(process.start() for process in self._processes))
        for process in self._processes:
            self._idle.put_nowait(process)

    async def stop(self) -> None:
        """Kill the processes and delete what was uploaded."""
        await asyncio.gather(*(process.stop() for process in self._processes))
        self._folder.cleanup()

    async def decode(self, content: BinaryIO, size: tuple[int, int], name: str = "upload") -> Decoded:
        """The pixels of an upload, resized to `size` (height, width) as `predict` resizes.

        Args:
            content: The file, open for reading at its beginning.
            size: Height and width wanted, in pixels.
            name: For messages alone.

        Raises:
            ImageError: It cannot be decoded within the limits.
            Problem: Too many images wait (503).
        """
        if self.waiting >= self._limits.decodes:
            raise busy("more images wait to be decoded than can be")
        path = Path(self._folder.name) / secrets.token_hex(16)
        self.waiting += 1
        try:
            await asyncio.to_thread(_copy, content, path)
            process = await self._idle.get()
            try:
                header, pixels = await process.ask({"path": str(path), "size": size})
            finally:
                self._idle.put_nowait(process)
        finally:
            self.waiting -= 1
            with suppress(OSError):
                path.unlink()
        if "error" in header:
            raise ImageError(where=name, **header["error"])
        shape = (*size, 3)
        return Decoded(np.frombuffer(pixels, np.uint8).reshape(shape), header["format"], tuple(header["size"]))


def _copy(content: BinaryIO, path: Path) -> None:
    with open(path, "xb") as file:
        shutil.copyfileobj(content, file)


class _Process:
    """One process, started anew after each breach."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._process: asyncio.subprocess.Process | None = None
        self._done, self._fit = 0, False

    async def start(self) -> None:
        self._process = await asyncio.create_subprocess_exec(
            *command("tumortrace.app.decoder_process"),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,
            env=bare_environment(),
            start_new_session=True,  # an interrupt from the keyboard is the server's to handle
        )
        limits = self._limits
        rules = {"bytes": limits.decode_bytes, "pixels": limits.pixels, "pages": limits.pages}
        await self._exchange(rules)
        self._done, self._fit = 0, True

    async def stop(self) -> None:
        self._kill()
        if self._process is not None:
            await self._process.wait()

    def _kill(self) -> None:
        self._fit = False
        if self._process is not None and self._process.returncode is None:
            with suppress(ProcessLookupError):
                self._process.kill()

    async def ask(self, request: dict[str, Any]) -> tuple[dict[str, Any], bytes]:
        if not self._fit or self._done >= _RETIRE:
            await self.stop()
            await self.start()
        self._done += 1
        limits, answered = self._limits, False
        try:
            header, pixels = await asyncio.wait_for(self._exchange(request), limits.decode_seconds)
            answered = True
            return header, pixels
        except TimeoutError:
            found = f"takes more than {limits.decode_seconds:g} s to decode"
        except (EOFError, OSError, ValueError):
            found = f"takes more than {limits.decode_bytes >> 20} MiB of memory, or makes its decoder fail"
        finally:
            if not answered:  # a caller that gave up, too: the next one must not get this one's pixels
                self._kill()
        remedy = "restore it from its source, or save it as a plain PNG"
        return {"error": {"found": found, "expected": None, "remedy": remedy}}, b""

    async def _exchange(self, request: dict[str, Any]) -> tuple[dict[str, Any], bytes]:
        process = self._process
        assert process is not None
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(json.dumps(request).encode() + b"\n")
        await process.stdin.drain()
        header = json.loads(await process.stdout.readline())
        return header, await process.stdout.readexactly(header.get("bytes", 0))
