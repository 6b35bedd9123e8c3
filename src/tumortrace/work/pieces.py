"""Pieces of work that need not wait for each other, carried out by whoever there is."""

from __future__ import annotations

import threading
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from tumortrace.errors import RunError
from tumortrace.records.progress import say
from tumortrace.work.hands import Hands
from tumortrace.work.pace import Pace
from tumortrace.work.processes import processes
from tumortrace.work.worker import REFUSALS, Done, LostError, Tell, Worker

ATTEMPTS = 3  # at a piece that ends its workers
_PATIENCE = 5.0  # seconds in which who waits for a worker that was ended learns of it; of a cluster that is gone, never

Shared = TypeVar("Shared")
Piece = TypeVar("Piece")
Result = TypeVar("Result")


def nothing() -> None:
    """What pieces share that share nothing."""


def carry_out(
    do: Callable[[Shared, Piece, Tell], Result],
    pieces: Sequence[Piece],
    receive: Callable[[int, Result | Exception], object],
    *,
    begin: Callable[[], Shared] = nothing,  # type: ignore[assignment]
    places: Sequence[Path],
    title: str,
    hands: Hands | None = None,
    accelerated: bool = False,
) -> None:
    """Carry out pieces of work, in this process or by the workers that `hands` names.

    A piece writes its own result: whole, once, and going on with what an earlier attempt left, so that a call that was
    killed is made again, and a piece whose worker is lost is done by another.

    Args:
        do: Carries out a piece, given what `begin` made, the piece, and whom to tell how far it is. For workers, it and
            `begin` are functions that their module's name leads to, or `functools.partial` of such.
        pieces: What pickle takes, for workers.
        receive: Called in this process with the number of a piece and its result, or the error that kept it from being
            carried out (a `TumorTraceError` or `OSError`); in the order of the pieces, each as soon as those before it
            have ended. What it raises ends all.
        begin: Makes what pieces share, such as a loaded model; once in each worker, or here. Default None.
        places: The file or folder that each piece is about, for the user.
        title: What is being done, for the user.
        hands: Default this process.
        accelerated: Whether workers take an accelerator each, where there are some.

    Raises:
        RunError: Interrupted, or the workers cannot be had.
        Exception: What is no fault of a single piece.

    Example:
        >>> words, folder = [], Path("slides")
        >>> carry_out(lambda add, piece, tell: piece + add, [1, 2], lambda *told: words.append(told),
        ...           begin=lambda: 10, places=[folder / "a", folder / "b"], title="adding")
        >>> words
        [(0, 11), (1, 12)]
    """
    if not pieces:
        return
    hands, received = hands or Hands(), 0

    def hand_on(number: int, outcome: Result | Exception) -> None:
        nonlocal received
        receive(number, outcome)
        received = number + 1

    pace = Pace([place.name for place in places], title)
    try:
        with ExitStack() as stack:
            workers = stack.enter_context(_workers(do, begin, hands, len(pieces), accelerated))
            stack.enter_context(pace.shown())
            if workers:
                _Division(pieces, places, workers, pace).carry_out(hand_on)
            else:
                _here(do, pieces, hand_on, begin, pace)
    except KeyboardInterrupt:
        where = places[min(received, len(places) - 1)]
        raise RunError("interrupted", where=where, remedy="the same command goes on where it stopped") from None


def _here(
    do: Callable[[Shared, Piece, Tell], Result],
    pieces: Sequence[Piece],
    receive: Callable[[int, Result | Exception], object],
    begin: Callable[[], Shared],
    pace: Pace,
) -> None:
    shared = begin()
    for number, piece in enumerate(pieces):
        outcome: Result | Exception
        try:
            outcome = do(shared, piece, partial(pace.tell, number, 0))
        except REFUSALS as error:
            outcome = error
        pace.end(number)
        receive(number, outcome)


@contextmanager
def _workers(
    do: Callable[..., Any], begin: Callable[[], Any], hands: Hands, pieces: int, accelerated: bool
) -> Iterator[Sequence[Worker]]:
    """Those among whom the pieces are divided; none where all is done here."""
    workers: Sequence[Worker] = []
    with ExitStack() as stack:
        if hands.cluster is not None:
            from tumortrace.work.cluster import actors

            workers = stack.enter_context(actors(do, begin, hands.cluster, pieces, accelerated))
        elif hands.workers > 1:
            workers = processes(begin, do, min(hands.workers, pieces), accelerated)
        yield workers


class _Division:
    """Pieces among workers, each followed by a thread of its own."""

    def __init__(self, pieces: Sequence[Any], places: Sequence[Path], workers: Sequence[Worker], pace: Pace) -> None:
        self._pieces, self._places, self._workers, self._pace = pieces, places, workers, pace
        self._waiting = deque(range(len(pieces)))
        self._lost = Counter[int]()
        self._outcomes: dict[int, Any] = {}
        self._fatal: BaseException | None = None
        self._changed = threading.Condition()

    def carry_out(self, receive: Callable[[int, Any], object]) -> None:
        following = [_thread(self._follow, seat, worker) for seat, worker in enumerate(self._workers, 1)]
        try:
            for number in range(len(self._pieces)):
                with self._changed:
                    while self._fatal is None and number not in self._outcomes:
                        self._changed.wait()
                    if self._fatal is not None:
                        raise self._fatal
                    outcome = self._outcomes[number]
                receive(number, outcome)
                self._outcomes[number] = None  # it may be large
        except BaseException as error:
            with self._changed:
                self._fatal = error  # workers that are ended now are not lost
                self._changed.notify_all()
            raise
        finally:
            for ending in [_thread(worker.close) for worker in self._workers]:  # side by side, as each takes its time
                ending.join()
            for thread in following:  # nobody asks a worker any more where the cluster is left next
                thread.join(_PATIENCE)

    def _follow(self, seat: int, worker: Worker) -> None:
        number: int | None = None
        try:
            while True:
                try:
                    number = None
                    worker.start()
                    if (number := self._next()) is None:
                        return
                    self._settle(number, seat, self._answer(number, seat, worker))
                except LostError as lost:
                    self._take_back(seat, number, str(lost))
        except BaseException as error:
            with self._changed:
                self._fatal = self._fatal or error
                self._changed.notify_all()

    def _next(self) -> int | None:
        """A piece to carry out; None where there will be none any more."""
        with self._changed:
            while not self._waiting:
                if len(self._outcomes) == len(self._pieces) or self._fatal is not None:
                    return None
                self._changed.wait()
            return self._waiting.popleft()

    def _answer(self, number: int, seat: int, worker: Worker) -> Any:
        """The outcome of a piece; meanwhile how far it is is shown, and what the worker says is said."""
        for message in worker.answer(self._pieces[number]):
            if isinstance(message, Done):
                self._pace.tell(number, seat, message.done, message.total)
            elif isinstance(message, str):
                say(message)
            elif message.fatal and message.error is not None:
                raise message.error
            else:
                return message.result if message.error is None else message.error
        raise LostError("without an answer")

    def _settle(self, number: int, seat: int, outcome: Any) -> None:
        self._pace.end(number, seat)
        with self._changed:
            self._outcomes[number] = outcome
            self._changed.notify_all()

    def _take_back(self, seat: int, number: int | None, how: str) -> None:
        """Let others begin anew what a worker was lost over, which need not be the piece's fault."""
        key = -seat if number is None else number
        with self._changed:
            if self._fatal is not None:
                raise self._fatal
            self._lost[key] += 1
            given_up = self._lost[key] == ATTEMPTS
            if number is not None and not given_up:
                self._waiting.appendleft(number)
                self._changed.notify_all()
        if number is None:
            if given_up:
                raise RunError(f"a worker cannot be started ({how})", remedy="look at the machine it is to run on")
        elif given_up:
            remedy = "look at it alone, without workers; SIGKILL is often for want of memory"
            found = f"has ended each of {ATTEMPTS} workers ({how})"
            self._settle(number, seat, RunError(found, where=self._places[number], remedy=remedy))
        else:
            say(f"{self._places[number].name}: its worker was lost ({how}); it is taken up again")


def _thread(function: Callable[..., object], *arguments: object) -> threading.Thread:
    thread = threading.Thread(target=function, args=arguments, daemon=True)
    thread.start()
    return thread
