"""What stands around the application: who may come in, how much a body may take, what is measured, when to hang up."""

from __future__ import annotations

import asyncio
import hmac
import logging
import time
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import urlsplit

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from uvicorn.protocols.http.h11_impl import H11Protocol

from tumortrace.app.problems import Problem, answer, busy
from tumortrace.app.settings import Limits, Settings

POLICY = (
    "default-src 'self'; img-src 'self' data: blob:; object-src 'none'; base-uri 'none'; "
    "frame-ancestors 'none'; form-action 'self'"
)

_HEADERS = {
    "Content-Security-Policy": POLICY,
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), microphone=(), geolocation=()",
}

_LOOPBACK_NAMES = {"localhost", "127.0.0.1", "::1"}
_SAFE_METHODS = {"GET", "HEAD", "OPTIONS"}


class Mark:
    """Puts the headers of safety on every answer.

    Args:
        app: The application within.
    """

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def marked(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in _HEADERS.items():
                    headers.setdefault(name, value)
                if needs_token(scope["path"]):
                    headers.setdefault("Cache-Control", "no-store")
            await send(message)

        await self.app(scope, receive, marked if scope["type"] == "http" else send)


class Door:
    """Turns away what must not come in, before anything of its body is read.

    On loopback, a page of another origin could make the user's browser ask us: under a name that it lets point here
    (DNS rebinding), hence the look at Host; or by posting a form, hence the look at Origin. Elsewhere the token,
    which such a page has not, does the same.

    Args:
        app: The application within.
        settings: Address and token.
    """

    def __init__(self, app: ASGIApp, settings: Settings) -> None:
        self.app, self.settings = app, settings

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return

        refusal = self._refusal(scope)
        await (refusal or self.app)(scope, receive, send)

    def _refusal(self, scope: Scope) -> Response | None:
        headers = Headers(scope=scope)
        host = headers.get("host", "")
        if self.settings.loopback and _name(host) not in _LOOPBACK_NAMES | {self.settings.host}:
            return answer(421, "this server does not go by that name", "ask for localhost or 127.0.0.1")
        origin = headers.get("origin")
        if scope["method"] not in _SAFE_METHODS and origin is not None and _place(origin) != host:
            return answer(403, "a page of another origin asks", "use this server's own pages, or send no Origin")
        if self.settings.token is not None and needs_token(scope["path"]) and not self._knows(headers):
            challenge = {"WWW-Authenticate": "Bearer"}
            return answer(401, "no token, or not the right one", "send Authorization: Bearer TOKEN", challenge)
        return None

    def _knows(self, headers: Headers) -> bool:
        kind, _, token = headers.get("authorization", "").partition(" ")
        right = (self.settings.token or "").encode()
        return kind.lower() == "bearer" and hmac.compare_digest(token.strip().encode(), right)


def needs_token(path: str) -> bool:
    """Whether an address gives answers rather than the pages that ask for the token.

    Example:
        >>> [needs_token(path) for path in ("/", "/static/app.js", "/healthz", "/api/predict", "/metrics")]
        [False, False, False, True, True]
    """
    return path == "/api" or path.startswith("/api/") or path in ("/metrics", "/openapi.json")


def _name(host: str) -> str:
    try:
        return urlsplit(f"//{host}").hostname or ""
    except ValueError:
        return ""


def _place(origin: str) -> str | None:
    try:
        return urlsplit(origin).netloc
    except ValueError:  # such as "http://["
        return None


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
            await _too_long(limit).answer(scope, receive, send)
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
            cause = f"the body took more than {self._limit.seconds:g} s to come in"
            raise Problem(408, cause, "send it faster, or less at once", {"Connection": "close"}) from None
        self._whole = message["type"] != "http.request" or not message.get("more_body", False)
        size = len(message.get("body", b""))
        self.taken += size
        if self.taken > self._limit.bytes:
            raise _too_long(self._limit)
        if self._limit.streamed:
            return message
        self.held += size
        self._all.count(size)
        if self._all.held > self._all.together:
            raise busy("too many bytes are being uploaded at once")
        return message


def _too_long(limit: BodyLimit) -> Problem:
    return Problem(
        413,
        f"the body has more than {limit.bytes:,} bytes",
        "send fewer or smaller files at once",
        {"Connection": "close"},
    )


log = logging.getLogger("tumortrace.app")

_SECONDS = (0.01, 0.025, 0.05, 0.1, 0.2, 0.3, 0.5, 1, 2.5, 5, 10, 30)


class Meters:
    """Counters of one server, in a registry of its own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        labels = ("method", "route", "status")
        self.requests = Counter("tumortrace_requests", "Requests answered", labels, registry=self.registry)
        self.seconds = Histogram(
            "tumortrace_request_seconds",
            "From a request's head to the end of its answer",
            ("route",),
            buckets=_SECONDS,
            registry=self.registry,
        )
        self.rejected = Counter(
            "tumortrace_rejected", "Requests refused because too much was asked at once (503)", registry=self.registry
        )
        self.batches = Histogram(
            "tumortrace_batch_images",
            "Images predicted at once",
            ("model",),
            buckets=(1, 2, 4, 8, 16, 32, 64),
            registry=self.registry,
        )
        self.queue = Gauge(
            "tumortrace_queue_images", "Images that wait for a model", ("model",), registry=self.registry
        )
        self.decoding = Gauge("tumortrace_decoding_images", "Uploads that wait to be decoded", registry=self.registry)
        self.uploading = Gauge("tumortrace_upload_bytes", "Bytes of uploads under way", registry=self.registry)


class Observe:
    """Times and counts each request, and turns an unforeseen error into an answer without a traceback.

    Args:
        app: The application within.
        meters: Where to count.
        most: Requests under way at once; more are asked to come again.
    """

    def __init__(self, app: ASGIApp, meters: Meters, most: int) -> None:
        self.app, self.meters, self.most = app, meters, most
        self.under_way = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        started, status = time.perf_counter(), 0

        async def watched(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        self.under_way += 1
        try:
            crowded = busy("more requests are under way than can be").answer
            await (self.app if self.under_way <= self.most else crowded)(scope, receive, watched)
        except Exception:
            log.exception("unforeseen error")
            if status == 0:
                remedy = "ask again; if it stays, report it with the server's log"
                await answer(500, "an error that was not foreseen", remedy)(scope, receive, watched)
            else:
                raise
        finally:
            self.under_way -= 1
            self._record(scope, status, time.perf_counter() - started)

    def _record(self, scope: Scope, status: int, seconds: float) -> None:
        route = getattr(scope.get("route"), "path", "none")  # the template, so that addresses do not multiply
        method = scope["method"] if scope["method"] in _METHODS else "other"
        self.meters.requests.labels(method, route, str(status)).inc()
        self.meters.seconds.labels(route).observe(seconds)
        if status == 503:
            self.meters.rejected.inc()
        log.info("%s %s %d %.0f ms", method, route, status, seconds * 1000)


_METHODS = {"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"}


class PunctualProtocol(H11Protocol):
    """Closes a connection on which a request does not begin in time, as long as uvicorn waits between requests.

    uvicorn's own clock stops at the first letter: who sent the head of a request letter by letter, or connected and
    said nothing, would hold a connection for ever.
    """

    _clock: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._watch()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        self._watch()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop()
        super().connection_lost(exc)

    def _watch(self) -> None:
        if self.cycle is not None and not self.cycle.response_complete:
            self._stop()
        elif self._clock is None:
            self._clock = self.loop.call_later(self.timeout_keep_alive, self.transport.close)

    def _stop(self) -> None:
        if self._clock is not None:
            self._clock.cancel()
            self._clock = None
