"""A worker that is a process of this machine; messages between it and its caller are pickles on standard streams."""

from __future__ import annotations

import ctypes
import os
import pickle
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from queue import SimpleQueue
from typing import Any

from tumortrace.work.worker import ONE_THREAD, Attendant, Ended, LostError, Message, Tell

_PATIENCE = 5.0  # seconds in which a process that is asked to end may put its files in order


def processes(
    begin: Callable[[], Any], do: Callable[[Any, Any, Tell], Any], number: int, accelerated: bool
) -> list[Process]:
    """So many processes of one thread, to which the accelerators of this machine are dealt out in turn.

    Args:
        begin: As for `Attendant`; like `do`, a function that its module's name leads to.
        do: Likewise.
        number: Of processes.
        accelerated: Whether they take an accelerator.
    """
    devices: list[str] = []
    if accelerated and _may_have_gpus():
        import torch

        devices = os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",")
        devices = devices if devices[0] else [str(place) for place in range(torch.cuda.device_count())]
    return [
        Process(begin, do, ONE_THREAD | ({"CUDA_VISIBLE_DEVICES": devices[place % len(devices)]} if devices else {}))
        for place in range(number)
    ]


def _may_have_gpus() -> bool:
    """Whether the machine has a driver of NVIDIA or AMD; to count its GPUs takes torch."""
    with suppress(OSError):
        ctypes.CDLL("nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1")
        return True
    return os.path.exists("/dev/kfd")


class Process:
    """A process, replaced by another where it is lost.

    Args:
        begin: As for `processes`.
        do: Likewise.
        variables: Of its environment, besides those of this process.
    """

    def __init__(
        self, begin: Callable[[], Any], do: Callable[[Any, Any, Tell], Any], variables: Mapping[str, str]
    ) -> None:
        self._task, self._variables = pickle.dumps((begin, do, os.getcwd())), variables
        self._process: subprocess.Popen[bytes] | None = None
        self._lock, self._closed = threading.Lock(), False

    def start(self) -> None:
        """See `Worker`."""
        with self._lock:
            if self._closed:
                raise LostError("closed")
            if self._process is not None and self._process.poll() is None:
                return
            places = os.pathsep.join(place for place in sys.path if place)
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-c", f"from {__name__} import serve; serve()"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                env=os.environ | {"PYTHONPATH": places, **self._variables},
                start_new_session=True,  # an interrupt from the keyboard is the caller's to handle
            )
            assert self._process.stdin is not None
            with suppress(OSError):  # who has ended already is found out by the first answer
                self._process.stdin.write(self._task)

    def answer(self, piece: Any) -> Iterator[Message]:
        """See `Worker`."""
        asked, process = pickle.dumps(piece), self._process
        assert process is not None
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            process.stdin.write(asked)
            process.stdin.flush()
            while True:
                message = pickle.load(process.stdout)  # noqa: S301 -- of a process that this one started
                yield message
                if isinstance(message, Ended):
                    return
        except (OSError, EOFError, ValueError, pickle.UnpicklingError):
            _end(process)
            raise LostError(_how(process.returncode)) from None

    def close(self) -> None:
        """See `Worker`."""
        with self._lock:
            self._closed, process = True, self._process
        if process is not None:
            _end(process)


def serve() -> None:
    """Carry out the pieces that standard input brings, until it ends."""
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # whatever a library prints does not get between the answers
    asked, ending = SimpleQueue[Any](), threading.Event()

    def interrupted(*_: object) -> None:
        ending.set()  # a piece may make an error of the interrupt
        raise KeyboardInterrupt

    def send(message: Message) -> None:
        try:
            content = pickle.dumps(message)
        except Exception as error:
            content = pickle.dumps(Ended(error=RuntimeError(f"cannot be sent: {error}"), fatal=True))
        answers.write(content)
        answers.flush()

    signal.signal(signal.SIGTERM, interrupted)
    threading.Thread(target=_listen, args=(asked,), daemon=True).start()
    with suppress(KeyboardInterrupt):
        attendant = Attendant(*asked.get())
        while not ending.is_set():
            attendant(asked.get(), send)
    os._exit(0)


def _listen(asked: SimpleQueue[Any]) -> None:
    with suppress(EOFError, pickle.UnpicklingError):
        while True:
            asked.put(pickle.load(sys.stdin.buffer))  # noqa: S301 -- from the process that started this one
    os._exit(1)  # the caller is gone: its successor must not find this one's locks


def _end(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(_PATIENCE)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    for stream in (process.stdin, process.stdout):
        with suppress(OSError):  # what was not flushed has nobody to go to
            assert stream is not None
            stream.close()


def _how(code: int) -> str:
    """How a process ended."""
    with suppress(ValueError):
        return f"killed by {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
    return f"killed by signal {-code}"
