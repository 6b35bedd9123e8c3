"""Bodies that come too slowly, and too many bytes at once, are ended without holding others up."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

from fastapi import FastAPI, Request
from starlette.types import Message

from tumortrace.app.middleware import BodyLimit, LimitBodies, Meters
from tumortrace.app.problems import add_handlers
from tumortrace.app.settings import Limits

Receive = Callable[[], Awaitable[Message]]


def application(special: dict[str, BodyLimit] | None = None, **limits: Any) -> LimitBodies:
    """An application that answers with the length of what it was sent."""
    app = FastAPI()
    add_handlers(app)

    @app.post("/{path:path}")
    async def length(request: Request) -> int:
        return len(await request.body())

    return LimitBodies(app, Limits(**limits), special or {}, Meters())


async def send(app: LimitBodies, pieces: AsyncIterator[bytes], path: str = "/", declared: str | None = None) -> int:
    """The status of a request whose body comes in pieces."""
    answers: list[Message] = []

    async def receive() -> Message:
        async for piece in pieces:
            return {"type": "http.request", "body": piece, "more_body": True}
        return {"type": "http.request", "body": b"", "more_body": False}

    async def collect(message: Message) -> None:
        answers.append(message)

    headers = [] if declared is None else [(b"content-length", declared.encode())]
    scope = {"type": "http", "method": "POST", "path": path, "headers": headers, "query_string": b""}
    await app(scope, receive, collect)
    return int(answers[0]["status"])


async def slowly(count: int, pause: float, size: int = 1) -> AsyncIterator[bytes]:
    for _ in range(count):
        await asyncio.sleep(pause)
        yield bytes(size)


def test_a_slow_body_is_ended_by_its_deadline_however_it_drips() -> None:
    """Each piece comes soon after the last, yet the whole takes too long: 408. A quicker one is answered."""
    app = application(body_seconds=0.2)
    assert asyncio.run(send(app, slowly(1000, 0.02))) == 408
    assert asyncio.run(send(app, slowly(3, 0.01))) == 200


def test_the_limit_of_bytes_holds_for_what_comes_and_for_what_is_declared() -> None:
    """Exactly at the limit is taken; a byte more is 413; a length that is none is 400."""
    app = application(body_bytes=100)
    assert asyncio.run(send(app, slowly(10, 0, 10))) == 200
    assert asyncio.run(send(app, slowly(101, 0))) == 413
    assert asyncio.run(send(app, slowly(0, 0), declared="101")) == 413
    assert asyncio.run(send(app, slowly(0, 0), declared="-1")) == 400


def test_addresses_may_have_limits_of_their_own() -> None:
    """Slides may be larger than patches."""
    app = application({"/api/slides": BodyLimit(1000, 5)}, body_bytes=100)
    assert asyncio.run(send(app, slowly(5, 0, 100), "/api/slides")) == 200
    assert asyncio.run(send(app, slowly(5, 0, 100), "/api/predict")) == 413


def test_all_bodies_together_are_bounded_and_let_go_afterwards() -> None:
    """Three at once of 60 bytes do not fit into 100: someone is asked to come again; afterwards one is taken."""
    app = application(upload_bytes=100)

    async def main() -> list[int]:
        together = await asyncio.gather(*(send(app, slowly(6, 0.01, 10)) for _ in range(3)))
        return [*together, await send(app, slowly(6, 0, 10))]

    *together, later = asyncio.run(main())
    assert 503 in together
    assert later == 200
    assert app.held == 0
