"""Errors as callers get them: JSON with a cause and a remedy, whatever went wrong."""

from __future__ import annotations

import re
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

from fastapi import Depends, FastAPI, Request
from fastapi.exceptions import HTTPException, RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException as PlainHTTPException

from tumortrace.errors import DataError, ModelError, TumorTraceError, shortened

RETRY_SECONDS = 2


_TEXT = {"type": "string", "minLength": 1}
_BODY: dict[str, Any] = {
    "type": "object",
    "required": ["error"],
    "properties": {
        "error": {
            "type": "object",
            "required": ["cause", "remedy"],
            "properties": {"cause": _TEXT, "remedy": _TEXT},
        }
    },
}


class Problem(HTTPException):
    """A refusal with its status, cause and remedy.

    Args:
        status: HTTP status, 400 or above.
        cause: What was found, as a sentence without full stop.
        remedy: What to do, likewise.
        headers: Further headers of the answer.
    """

    def __init__(self, status: int, cause: str, remedy: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(status, cause, dict(headers or {}))
        self.cause, self.remedy = cause, remedy

    @property
    def answer(self) -> JSONResponse:
        """The answer that says so."""
        return answer(self.status_code, self.cause, self.remedy, self.headers)


def busy(cause: str) -> Problem:
    """503 with `Retry-After`: more is asked than can be done now."""
    return Problem(503, cause, f"ask again in {RETRY_SECONDS} s", {"Retry-After": str(RETRY_SECONDS)})


def answer(status: int, cause: str, remedy: str, headers: Mapping[str, str] | None = None) -> JSONResponse:
    """The answer that says so.

    Example:
        >>> answer(404, "no such page", "look at /docs").body.decode()
        '{"error":{"cause":"no such page","remedy":"look at /docs"}}'
    """
    return JSONResponse({"error": {"cause": cause, "remedy": remedy}}, status, dict(headers or {}))


def documented(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """What the OpenAPI description says of these statuses, each with an example.

    Example:
        >>> documented(503)[503]["description"]
        'Service Unavailable'
    """
    told: dict[int | str, dict[str, Any]] = {}
    for status in statuses:
        cause, remedy = _EXAMPLES[status]
        example = {"error": {"cause": cause, "remedy": remedy}}
        body = {"application/json": {"schema": _BODY, "example": example}}  # a model would take the route's own type
        told[status] = {"description": HTTPStatus(status).phrase, "content": body}
    return told


_EXAMPLES = {
    400: ("the request's body cannot be read", "send it as /docs describes"),
    401: ("no token, or not the right one", "send Authorization: Bearer TOKEN"),
    403: ("a page of another origin asks", "use this server's own pages, or send no Origin"),
    404: ("no model named 'other'", "choose one of 2026-11-21T141200Z-tumortrace"),
    405: ("this address does not answer to that method", "look at /docs for the methods"),
    408: ("the body took more than 60 s to come in", "send it faster, or less at once"),
    413: ("the body has more than 67,108,864 bytes", "send fewer or smaller files at once"),
    415: ("a body of text/plain", "send multipart/form-data with a field `file`"),
    421: ("this server does not go by that name", "ask for localhost or 127.0.0.1"),
    422: ("patch.png: damaged or truncated (image file is truncated)", "restore it from its source, or remove it"),
    500: ("an error that was not foreseen", "ask again; if it stays, report it with the server's log"),
    503: ("more images wait for the model than it can take", "ask again in 2 s"),
    507: ("the label cannot be written (No space left on device)", "free space on the server and try again"),
}


def require_form(request: Request) -> None:
    """As a dependency of a route that takes files: refuse a body that is no form.

    Raises:
        Problem: It says that it is of another type (415).
    """
    kind = request.headers.get("content-type", "no type").partition(";")[0].strip().lower()
    if kind != "multipart/form-data":
        raise Problem(415, f"a body of {kind[:100]}", "send multipart/form-data with a field `file`")


FORM = [Depends(require_form)]
"""The dependencies of such a route."""

UPLOAD = documented(404, 408, 413, 415)
"""What the OpenAPI description says of routes that take files, beside what holds for all."""


def add_handlers(app: FastAPI) -> None:
    """Let every error of the application be answered in this form."""

    @app.exception_handler(Problem)
    async def _problem(request: Request, error: Problem) -> JSONResponse:
        return error.answer

    @app.exception_handler(PlainHTTPException)
    async def _plain(request: Request, error: PlainHTTPException) -> JSONResponse:
        cause, remedy = _WORDS.get(error.status_code, (str(error.detail), "look at /docs for what can be asked"))
        return answer(error.status_code, cause, remedy, error.headers)

    @app.exception_handler(RequestValidationError)
    async def _invalid(request: Request, error: RequestValidationError) -> JSONResponse:
        return answer(422, _told(error), "look at /docs for what the request must carry")

    @app.exception_handler(TumorTraceError)
    async def _refusal(request: Request, error: TumorTraceError) -> JSONResponse:
        return refused(error)


def refused(error: TumorTraceError) -> JSONResponse:
    """The answer to one of our own refusals: 422 for data and for what a model cannot do, else 500."""
    status = 422 if isinstance(error, DataError | ModelError) else 500
    cause = f"{error.where}: {error.found}" if error.where else error.found
    if error.expected:
        cause += f"; expected {error.expected}"
    return answer(status, as_query(cause), as_query(error.remedy or "give another file"))


def as_query(text: str) -> str:
    """A message with options as requests carry them.

    Example:
        >>> as_query("say --bits 12, or --allow mask-like; --resample, or --resolution says it")
        'say bits=12, or allow=mask-like; resample=true, or resolution says it'
    """
    text = text.replace("--resample", "resample=true").replace("--patch-resolution", "--patch_resolution")
    text = re.sub(
        rf"{_OPTION} (\d[\d.]*)|--(allow) ([\w-]+)", lambda match: "=".join(filter(None, match.groups())), text
    )
    return re.sub(_OPTION, r"\1", text)


_OPTION = "--(bits|dense|resolution|patch_resolution|plane|overlap)"


_WORDS = {
    400: _EXAMPLES[400],
    404: ("there is nothing at this address", "look at /docs for what there is"),
    405: _EXAMPLES[405],
}


def _told(error: RequestValidationError) -> str:
    first = error.errors()[0]
    place = ".".join(str(part) for part in first["loc"])
    return f"{place}: {shortened(str(first['msg']))[:300]}"
