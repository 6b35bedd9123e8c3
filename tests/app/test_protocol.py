"""Connections on which nothing happens are closed; what has begun is not cut off."""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from collections.abc import Iterator

import pytest
import uvicorn
from starlette.types import Message, Receive, Scope, Send

from tumortrace.app.middleware import Meters, Observe, PunctualProtocol


async def patient(scope: Scope, receive: Receive, send: Send) -> None:
    """Answer ok once the whole body is there."""
    while (await receive()).get("more_body"):
        pass
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
    await send({"type": "http.response.body", "body": b"ok"})


@pytest.fixture
def port() -> Iterator[int]:
    """A server that waits a second for a request to begin."""
    config = uvicorn.Config(patient, port=0, http=PunctualProtocol, timeout_keep_alive=1, lifespan="off", log_level=50)
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    yield server.servers[0].sockets[0].getsockname()[1]
    server.should_exit = True
    thread.join()


@pytest.mark.parametrize("said", [b"", b"POST / HT"])
def test_who_says_nothing_or_never_ends_is_hung_up_on(port: int, said: bytes) -> None:
    """The connection is closed without an answer."""
    with socket.create_connection(("127.0.0.1", port), timeout=30) as caller:
        caller.sendall(said)
        assert caller.recv(100) == b""


def test_a_request_that_has_begun_may_take_longer(port: int) -> None:
    """Its body comes after twice that time, and is answered."""
    with socket.create_connection(("127.0.0.1", port), timeout=30) as caller:
        caller.sendall(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n1")
        time.sleep(2)
        caller.sendall(b"2")
        assert caller.recv(100).startswith(b"HTTP/1.1 200")


def test_more_requests_than_the_server_bears_are_asked_to_come_again() -> None:
    """With one under way of one allowed, the second is 503; afterwards one is answered."""
    statuses: list[int] = []

    async def main() -> None:
        free = asyncio.Event()

        async def slow(scope: Scope, receive: Receive, send: Send) -> None:
            await free.wait()
            await send({"type": "http.response.start", "status": 200, "headers": []})

        async def note(message: Message) -> None:
            if message["type"] == "http.response.start":
                statuses.append(message["status"])

        async def receive() -> Message:
            return {"type": "http.request", "body": b""}

        app, scope = Observe(slow, Meters(), most=1), {"type": "http", "method": "GET", "path": "/"}
        first = asyncio.create_task(app(scope, receive, note))
        await asyncio.sleep(0)
        await app(scope, receive, note)
        free.set()
        await first
        await app(scope, receive, note)

    asyncio.run(main())
    assert statuses == [503, 200, 200]
