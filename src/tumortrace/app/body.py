"""Request bodies within limits: of bytes, of time, and of what all requests together may hold."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from dataclasses import dataclass

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from tumortrace.app.observing import Meters
from tumortrace.app.problems import Problem, answer, busy
from tumortrace.app.settings import Limits


@dataclass(frozen=True)
class BodyLimit:
    """What one request's body may take.

    Attributes:
        bytes: At most.
        seconds: From its first byte to its last.
        streamed: Whether it goes to the disk as it comes in, and so does not count to what all requests hold.
    """

    bytes: int
    seconds: float
    streamed: bool = False


class LimitBodies:
    """Refuses bodies that are too long (413) or too slow (408), as they come in and before they are parsed.

    Args:
        app: The application within.
        limits: For all addresses but those in `special`.
        special: Limits of addresses that begin so, from the routes' `BODY_LIMITS`.
        meters: Where the bytes under way are shown.
    """

    def __init__(self, app: ASGIApp, limits: Limits, special: Mapping[str, BodyLimit], meters: Meters) -> None:
        self.app, self.special = app, dict(special)
        self.usual = BodyLimit(limits.body_bytes, limits.body_seconds)
        self.together, self.meters = limits.upload_bytes, meters
        self.held = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        limit = next((limit for start, limit in self.special.items() if scope["path"].startswith(start)), self.usual)
        declared = Headers(scope=scope).get("content-length", "0")
        if not declared.isdecimal():
            await answer(400, "a Content-Length that is no number", "send a proper one")(scope, receive, send)
            return
        if int(declared) > limit.bytes:
            await _too_long(limit)(scope, receive, send)
            return
        counted = _Counted(receive, limit, self)
        try:
            await self.app(scope, counted.receive, send)
        finally:
            self.count(-counted.held)

    def count(self, change: int) -> None:
        """Note bytes that came in (positive) or were let go."""
        self.held += change
        self.meters.uploading.set(self.held)


class _Counted:
    """The body of one request as it comes in."""

    def __init__(self, receive: Receive, limit: BodyLimit, all_bodies: LimitBodies) -> None:
        self._receive, self._limit, self._all = receive, limit, all_bodies
        self._ends = time.monotonic() + limit.seconds
        self._whole = False
        self.taken = self.held = 0

    async def receive(self) -> Message:
        if self._whole:  # what now comes is the caller's leaving, for which there is no hurry
            return await self._receive()
        try:
            message = await asyncio.wait_for(self._receive(), self._ends - time.monotonic())
        except TimeoutError:
            found = f"the body took more than {self._limit.seconds:g} s to come in"
            raise Problem(408, found, "send it faster, or less at once", {"Connection": "close"}) from None
        self._whole = message["type"] != "http.request" or not message.get("more_body", False)
        size = len(message.get("body", b""))
        self.taken += size
        if self.taken > self._limit.bytes:
            raise _problem_too_long(self._limit)
        if self._limit.streamed:
            return message
        self.held += size
        self._all.count(size)
        if self._all.held > self._all.together:
            raise busy("too many bytes are being uploaded at once")
        return message


def _problem_too_long(limit: BodyLimit) -> Problem:
    return Problem(
        413,
        f"the body has more than {limit.bytes:,} bytes",
        "send fewer or smaller files at once",
        {"Connection": "close"},
    )


def _too_long(limit: BodyLimit) -> ASGIApp:
    problem = _problem_too_long(limit)
    return answer(problem.status_code, problem.cause, problem.remedy, problem.headers)
