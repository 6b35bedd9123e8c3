"""The server's child processes as it sees them: started bare, asked in turn, killed and replaced on a breach."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import suppress

from tumortrace.app.processes import Message

MODULE = "tumortrace.app.processes"
_KEPT = ("PATH", "SYSTEMROOT", "LANG")


class Worker:
    """One child process at a time; safe in threads.

    Args:
        kind: What it is: `decoder`, `reader` or `scanner`; see `tumortrace.app.processes`.
        rules: Told at its start, with `memory`: bytes of address space beyond what it starts with.
        seconds: For one answer.
        retire: Answers after which it makes room for a fresh one, lest a library's leaks add up.
        without: A variable that it must not know of the server's environment; where None, it gets next to none of it
            and computes with one thread.
    """

    def __init__(
        self,
        kind: str,
        rules: Message | None = None,
        *,
        seconds: float = math.inf,
        retire: float = math.inf,
        without: str | None = None,
    ) -> None:
        self.seconds = seconds
        self._kind, self._rules, self._retire, self._without = kind, rules, retire, without
        self._process: subprocess.Popen[bytes] | None = None
        self._lock = threading.Lock()
        self._answers, self._spent = 0, False

    @property
    def pid(self) -> int | None:
        """Id of the process, where there is one."""
        return None if self._process is None else self._process.pid

    def start(self) -> None:
        """Start the process now rather than with the first question."""
        with self._lock:
            self._running()

    def ask(self, request: Message) -> tuple[Message, bytes]:
        """Its answer: a header, and the content that follows it.

        Whatever the process does, there is an answer: where it takes too long or too much, or fails, the header has an
        `error` with what was `found`, and the next question starts another process.
        """
        late = threading.Event()
        with self._lock:
            try:
                process = self._running()

                def give_up() -> None:
                    late.set()
                    process.kill()

                timer = threading.Timer(self.seconds, give_up)
                timer.start()
                try:
                    self._answers += 1
                    return _converse(process, request)
                finally:
                    timer.cancel()
            except (EOFError, OSError, ValueError):
                self._end()
        memory = (self._rules or {}).get("memory", 0) >> 20
        cause = f"takes more than {memory} MiB of memory, or makes its {self._kind} fail"
        if late.is_set():
            cause = f"takes more than {self.seconds:g} s to {'decode' if self._kind == 'decoder' else 'read'}"
        return {"error": {"found": cause}}, b""

    def follow(self, request: Message, stop: threading.Event) -> Iterator[Message]:
        """What it tells of one request until it ends; `stop` kills it."""
        ended = threading.Event()
        with self._lock:
            process = self._running()
            watcher = threading.Thread(target=_kill_on, args=(stop, ended, process), daemon=True)
            watcher.start()
            try:
                with suppress(BrokenPipeError):
                    _send(process, request)
                while header := _receive(process):
                    yield header
            except ValueError:  # a line that a kill has cut off
                pass
            finally:
                ended.set()
                self._end()
                watcher.join()

    def kill(self) -> None:
        """End the process, also from a thread that does not wait for its answer; who waits gets an error."""
        self._spent, process = True, self._process
        if process is not None:
            with suppress(ProcessLookupError):
                process.kill()

    def close(self) -> None:
        """End the process and what is held for it; another question would start another."""
        self.kill()
        with self._lock:
            self._end()

    def _running(self) -> subprocess.Popen[bytes]:
        process = self._process
        if process is not None and process.poll() is None and not self._spent and self._answers < self._retire:
            return process
        self._end()
        process = self._process = subprocess.Popen(
            [sys.executable, "-P", "-m", MODULE, self._kind],  # -P: not what lies in the folder of the start
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=_environment(self._without),
            start_new_session=True,  # an interrupt from the keyboard is the server's to handle
        )
        self._answers, self._spent = 0, False
        if self._rules is not None:
            _converse(process, self._rules)
        return process

    def _end(self) -> None:
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.wait()
            for stream in (process.stdin, process.stdout):
                with suppress(OSError):  # what was not flushed has nobody to go to
                    assert stream is not None
                    stream.close()


def _environment(without: str | None) -> Mapping[str, str]:
    """Of a child, which imports what the server imports, from the same places."""
    if without is None:  # it opens what was uploaded, and knows no token
        kept = {name: os.environ[name] for name in _KEPT if name in os.environ}
        kept |= {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    else:
        kept = {name: value for name, value in os.environ.items() if name != without}
    return kept | {"PYTHONPATH": os.pathsep.join(place for place in sys.path if place)}


def _converse(process: subprocess.Popen[bytes], request: Message) -> tuple[Message, bytes]:
    _send(process, request)
    header = _receive(process)
    if header is None:
        raise EOFError("no answer")
    assert process.stdout is not None
    content = process.stdout.read(header["bytes"])
    if len(content) != header["bytes"]:
        raise EOFError("the answer ends in the middle")
    return header, content


def _send(process: subprocess.Popen[bytes], request: Message) -> None:
    assert process.stdin is not None
    process.stdin.write(json.dumps(request).encode() + b"\n")
    process.stdin.flush()


def _receive(process: subprocess.Popen[bytes]) -> Message | None:
    assert process.stdout is not None
    line = process.stdout.readline()
    header: Message | None = json.loads(line) if line else None
    return header


def _kill_on(stop: threading.Event, ended: threading.Event, process: subprocess.Popen[bytes]) -> None:
    while not ended.is_set():
        if stop.wait(0.2):
            process.kill()
            return
