"""Who may come in: the Host and Origin of a request, its token; and the headers that every answer carries."""

from __future__ import annotations

import hmac
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from tumortrace.app.problems import answer
from tumortrace.app.settings import Settings

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
