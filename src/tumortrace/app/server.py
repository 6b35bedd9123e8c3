"""The application: routes that are found by themselves, behind the door and the limits; and the loop that serves it."""

from __future__ import annotations

import importlib
import logging
import os
import pkgutil
import signal
import socket
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import torch
import uvicorn
from fastapi import FastAPI
from starlette.staticfiles import StaticFiles

from tumortrace import __version__
from tumortrace.app import routes
from tumortrace.app.middleware import BodyLimit, Door, LimitBodies, Mark, Observe, PunctualProtocol
from tumortrace.app.problems import add_handlers, documented
from tumortrace.app.service import Service
from tumortrace.app.settings import STATIC, Settings
from tumortrace.errors import ServeError
from tumortrace.records.progress import say
from tumortrace.records.provenance import RESEARCH_USE

GRACE_SECONDS = 20
SPARE = 100


def create_app(settings: Settings) -> FastAPI:
    """The application, its models loaded.

    A module in `tumortrace.app.routes` joins by having a `router`; it may have `BODY_LIMITS`, from the beginning of an
    address to the `BodyLimit` that holds there, and `start(service)` and `stop(service)`, awaited with the application.

    Raises:
        TumorTraceError: A model does not load, or two have one name.
    """
    service = Service(settings)
    modules = [
        importlib.import_module(f"{routes.__name__}.{file.name}") for file in pkgutil.iter_modules(routes.__path__)
    ]

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        try:
            await service.start()
            for module in modules:
                if hasattr(module, "start"):
                    await module.start(service)
        except Exception as error:
            app.state.refusal = error  # `serve` raises it; uvicorn would write a traceback and end as if all were well
            await service.stop()
            raise
        yield
        for module in modules:
            if hasattr(module, "stop"):
                await module.stop(service)
        await service.stop()

    app = FastAPI(
        title="TumorTrace",
        version=__version__,
        description=RESEARCH_USE,
        lifespan=lifespan,
        docs_url=None,  # the usual page loads its script from elsewhere, which our policy forbids
        redoc_url=None,
        responses=documented(400, 401, 403, 404, 421, 422, 500, 503),
    )
    app.state.service, app.state.refusal = service, None
    add_handlers(app)
    limits: dict[str, BodyLimit] = {}
    for module in modules:
        app.include_router(module.router)
        limits |= getattr(module, "BODY_LIMITS", {})
    app.mount("/static", StaticFiles(directory=STATIC), name="static")
    app.add_middleware(LimitBodies, limits=settings.limits, special=limits, meters=service.meters)
    app.add_middleware(Door, settings=settings)
    app.add_middleware(Observe, meters=service.meters, most=settings.limits.connections)
    app.add_middleware(Mark)
    return app


def serve(
    runs: Sequence[str | Path],
    *,
    host: str = "127.0.0.1",
    port: int = 8000,
    token: str | None = None,
    review: str | None = None,
    slides: str | Path | None = None,
    workspace: str | Path = "tumortrace-workspace",
    device: str = "auto",
) -> None:
    """Serve web pages and an HTTP API on models until interrupted; what is under way is answered first.

    Args:
        runs: Run folders or bundles; the first answers where a request names none.
        host: Address to listen on; anything but loopback needs a token.
        port: To listen on; 0 takes a free one.
        token: What callers must send as `Authorization: Bearer TOKEN`.
        review: Data whose patches are queued for review.
        slides: Folder whose slides can be chosen.
        workspace: Folder for what must outlast a restart.
        device: "auto", "cpu", "cuda", "cuda:1" or "mps".

    Raises:
        TumorTraceError: A model does not load, the address cannot be listened on, or a token is needed.
    """
    folder = None if slides is None else Path(slides)
    settings = Settings(tuple(Path(run) for run in runs), host, port, token, review, folder, Path(workspace), device)
    _leave_a_core()
    _allow_connections(settings.limits.connections)
    app = create_app(settings)
    listener = _listen(settings)
    host = f"[{settings.host}]" if ":" in settings.host else settings.host
    names = ", ".join(app.state.service.catalogue.names)
    say(f"serve: {names} at http://{host}:{listener.getsockname()[1]} (Ctrl-C ends it). {RESEARCH_USE}")
    _log()
    config = uvicorn.Config(
        app,
        log_config=None,
        access_log=False,  # ours names routes, not what was asked of them
        server_header=False,
        http=PunctualProtocol,
        limit_concurrency=settings.limits.connections + SPARE,  # beyond ours, which says what to do
        timeout_keep_alive=settings.limits.head_seconds,
        timeout_graceful_shutdown=GRACE_SECONDS,
        h11_max_incomplete_event_size=32 << 10,
    )
    quiet, log = (lambda record: app.state.refusal is None), logging.getLogger("uvicorn.error")
    log.addFilter(quiet)
    before = signal.signal(signal.SIGTERM, lambda *_: None)  # uvicorn raises it again once it has ended in order
    try:
        with suppress(KeyboardInterrupt):
            uvicorn.Server(config).run(sockets=[listener])
    except SystemExit:
        if app.state.refusal is None:
            raise
    finally:
        log.removeFilter(quiet)
        signal.signal(signal.SIGTERM, before)
        listener.close()
    if app.state.refusal is not None:
        raise app.state.refusal
    say("serve: ended")


def _listen(settings: Settings) -> socket.socket:
    try:
        places = socket.getaddrinfo(settings.host, settings.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        family, kind, protocol, _, address = places[0]
        listener = socket.socket(family, kind, protocol)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(1024)  # who reads the address may ask at once, and waits
    except OSError as error:
        raise ServeError(
            f"cannot listen there ({error.strerror or error})",
            where=f"{settings.host}:{settings.port}",
            remedy="choose another --port or --host",
        ) from error
    return listener


def _leave_a_core() -> None:
    """Let the models compute on all cores but one: threads that wait for each other bear no one beside them."""
    torch.set_num_threads(max(1, min(torch.get_num_threads(), (os.cpu_count() or 2) - 1)))


def _allow_connections(count: int) -> None:
    """Let the process have so many connections open, and the files that it needs besides, where the system can."""
    with suppress(ImportError, ValueError, OSError):
        import resource

        least, most = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (max(least, min(most, 4 * count)), most))


def _log() -> None:
    """One line per request on standard error."""
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("%(asctime)s %(message)s"))
    for name, level in (("tumortrace.app", logging.INFO), ("uvicorn", logging.WARNING)):
        logger = logging.getLogger(name)
        logger.handlers, logger.propagate = [handler], False
        logger.setLevel(level)
