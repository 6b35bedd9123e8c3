"""What is measured of every request, for Prometheus and for the log; never the names of uploads."""

from __future__ import annotations

import logging
import time

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from tumortrace.app.problems import answer, busy

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
            await (self.app if self.under_way <= self.most else _crowded)(scope, receive, watched)
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


async def _crowded(scope: Scope, receive: Receive, send: Send) -> None:
    problem = busy("more requests are under way than can be")
    await answer(problem.status_code, problem.cause, problem.remedy, problem.headers)(scope, receive, send)


_METHODS = {"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"}
