"""One scan in a process of its own, as the server runs it."""

from __future__ import annotations

import json
import subprocess
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from tumortrace.app.child import command, environment_without
from tumortrace.app.settings import TOKEN_VARIABLE

Tell = Callable[[int, int], None]


def scan_apart(request: dict[str, Any], tell: Tell, stop: threading.Event) -> dict[str, str] | None:
    """Scan in a process of its own, at a lower priority than the server's.

    Args:
        request: Arguments of `scan`.
        tell: Told the tiles done and all tiles.
        stop: Ends the process; the scan can go on later.

    Returns:
        Cause and remedy of a failure, or None.
    """
    process = subprocess.Popen(
        command("tumortrace.app.scan_process"),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env=environment_without(TOKEN_VARIABLE),
        start_new_session=True,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    ended = threading.Event()

    def watch() -> None:
        while not ended.is_set():
            if stop.wait(0.2):
                process.kill()
                return

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    last: dict[str, Any] = {}
    try:
        with suppress(BrokenPipeError):
            process.stdin.write(json.dumps(request).encode() + b"\n")
            process.stdin.flush()
        for line in process.stdout:
            with suppress(ValueError):  # a line that a kill has cut off
                last = json.loads(line)
            if "total" in last:
                tell(last["done"], last["total"])
    finally:
        ended.set()
        process.kill()
        process.wait()
        watcher.join()
        process.stdin.close()
        process.stdout.close()
    if "finished" in last or stop.is_set():
        return None
    crashed = {"cause": "the slide made the scan fail", "remedy": "copy or convert the slide again"}
    error: dict[str, str] = last.get("error", crashed)
    return error
