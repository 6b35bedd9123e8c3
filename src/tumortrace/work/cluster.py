"""Workers that are actors of a Ray cluster."""

from __future__ import annotations

import logging
import os
import signal
import socket
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from queue import SimpleQueue
from typing import Any

from tumortrace.errors import MissingDependencyError, RunError
from tumortrace.records.progress import say
from tumortrace.work.worker import ONE_THREAD, Attendant, Ended, LostError, Message

_TOKEN = Path("~/.ray/auth_token")  # where Ray keeps it


class Attending:
    """What runs on the cluster: an attendant whose messages are taken one by one, as Ray takes them."""

    def __init__(self, *task: Any) -> None:
        self._attendant = Attendant(*task)

    def ready(self) -> None:
        """Answered as soon as there is a place for it."""

    def answer(self, piece: Any) -> Iterator[Message]:
        """Carry out a piece, telling of it."""
        messages = SimpleQueue[Message]()
        threading.Thread(target=self._attendant, args=(piece, messages.put), daemon=True).start()
        while not isinstance(message := messages.get(), Ended):
            yield message
        yield message


class Actor:
    """An actor, replaced by another where it is lost: see `work.worker.Worker`."""

    def __init__(self, kind: Any, task: Sequence[Any]) -> None:
        self._kind, self._task = kind, task
        self._actor: Any = None
        self._lock, self._closed = threading.Lock(), False

    def start(self) -> None:
        """See `Worker`; waits until the cluster has a place for it."""
        with self._lock:
            if self._closed:
                raise LostError("closed")
            if self._actor is None:
                self._actor = self._kind.remote(*self._task)
            actor = self._actor
        with self._asking() as ray:
            ray.get(actor.ready.remote())

    def answer(self, piece: Any) -> Iterator[Message]:
        """See `Worker`."""
        with self._asking() as ray:
            for reference in self._actor.answer.options(num_returns="streaming").remote(piece):
                yield ray.get(reference)

    def close(self) -> None:
        """See `Worker`."""
        import ray

        with self._lock:
            self._closed, actor = True, self._actor
        if actor is not None:
            with suppress(Exception):  # of a cluster that is gone
                ray.kill(actor)

    @contextmanager
    def _asking(self) -> Iterator[Any]:
        import ray

        try:
            yield ray
        except Exception as error:  # of any class, where the cluster is gone
            with suppress(Exception):
                ray.kill(self._actor)
            self._actor = None
            raise LostError(" ".join(str(error).split())[:200]) from None


@contextmanager
def actors(
    do: Callable[..., Any], begin: Callable[[], Any], address: str, pieces: int, accelerated: bool = False
) -> Iterator[list[Actor]]:
    """An actor for each processor of a cluster, or each accelerator, but no more than there are pieces.

    Args:
        do: As for `Attendant`; like `begin`, a function that its module's name leads to.
        begin: Likewise.
        address: `local`, `auto` or HOST:PORT.
        pieces: How many there are.
        accelerated: Whether the pieces take an accelerator, where the cluster has some.

    Raises:
        MissingDependencyError: Ray is not installed.
        RunError: There is no cluster.
    """
    ray = _connected(address)
    try:
        resources = ray.cluster_resources()
        places = int(resources.get("GPU", 0)) if accelerated else 0
        options = {"num_gpus": 1} if places else {}
        places = places or int(resources.get("CPU", 0))
        if not places:
            raise RunError("a cluster without processors", where=address, remedy="add a machine with `ray start`")
        kind = ray.remote(Attending).options(
            num_cpus=0 if options else 1, max_restarts=0, runtime_env={"env_vars": ONE_THREAD}, **options
        )
        say(f"ray: {min(places, pieces)} workers, {int(resources.get('CPU', 0))} processors in the cluster")
        yield [Actor(kind, (begin, do, os.getcwd())) for _ in range(min(places, pieces))]
    finally:
        ray.shutdown()


def _connected(address: str) -> Any:
    if ":" in address:
        host, _, port = address.rpartition(":")
        try:
            socket.create_connection((host.strip("[]"), int(port)), timeout=10).close()
        except (OSError, OverflowError) as error:
            raise RunError(
                f"nothing answers there ({error})", where=f"--cluster {address}", expected="the head of a Ray cluster"
            ) from error
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"  # before it is imported: nothing is reported to anybody
    # Nor does a late question to an actor start a cluster of its own, which would end with the thread that asked,
    # and a minute later this process with it, by Ray's own `_exit`.
    os.environ["RAY_ENABLE_AUTO_CONNECT"] = "0"
    if ":" in address and ({"RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"} & set(os.environ) or _TOKEN.expanduser().exists()):
        os.environ.setdefault("RAY_AUTH_MODE", "token")  # `ray start` asks for one there; by itself Ray tells none
    try:
        import ray
    except ImportError as error:
        raise MissingDependencyError(
            "Ray is not installed", where="--cluster", remedy="pip install 'tumortrace[cluster]', or use --workers"
        ) from error
    before = signal.getsignal(signal.SIGTERM)
    try:
        ray.init(address=address, include_dashboard=False, log_to_driver=False, logging_level=logging.CRITICAL)
    except Exception as error:  # a node that does not start in time is one of no other class
        raise RunError(
            f"no Ray cluster ({' '.join(str(error).split())[:200]})",
            where=f"--cluster {address}",
            remedy="start one with `ray start --head`, or use --cluster local; where it asks for a token, put that "
            f"here into {_TOKEN}",
        ) from error
    finally:
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, before)  # Ray puts its own in its place, which ends without a word
    return ray
