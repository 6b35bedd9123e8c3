"""How a server is set up: what it serves, where it listens, and what it refuses."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass, field
from pathlib import Path

from tumortrace.errors import ServeError

TOKEN_VARIABLE = "TUMORTRACE_TOKEN"
SHORTEST_TOKEN = 16
STATIC = Path(__file__).parent / "static"
"""Where the pages' files lie."""


@dataclass(frozen=True)
class Limits:
    """What a server bears, whatever is asked of it.

    Attributes:
        body_bytes: Of one request, all its files together.
        body_seconds: From the head of a request to the last byte of its body.
        upload_bytes: Of all requests under way together.
        files: Files in one request.
        pixels: Of one image, checked before it is decoded.
        pages: Pages of a TIFF, frames of a GIF or DICOM; the first is what is read.
        decode_seconds: For one image.
        decode_bytes: Address space of a process that decodes, beyond what it starts with.
        decoders: Processes that decode.
        decodes: Images that may wait for one of them.
        batch: Images that a model predicts at once at most.
        wait_seconds: How long a batch waits for company after its first image.
        queue: Images that may wait for a model; beyond, callers are answered 503.
        jobs: Explanations that may wait for a model.
        head_seconds: A connection may be silent before a request begins.
        connections: Requests under way at once; beyond, callers are answered 503.
    """

    body_bytes: int = 64 << 20
    body_seconds: float = 60
    upload_bytes: int = 1 << 30
    files: int = 256
    pixels: int = 36_000_000
    pages: int = 64
    decode_seconds: float = 10
    decode_bytes: int = 1 << 30
    decoders: int = 2
    decodes: int = 512
    batch: int = 16
    wait_seconds: float = 0.002
    queue: int = 512
    jobs: int = 16
    head_seconds: int = 20
    connections: int = 1000


@dataclass(frozen=True)
class Settings:
    """How a server is set up.

    Args:
        runs, host, port, token, review, slides, workspace, device: As `tumortrace.serve` takes them.
        limits: What the server bears.

    Raises:
        ServeError: No run, an impossible port, a token that is too short, or none where one is needed.

    Example:
        >>> Settings(runs=(Path("run"),), host="0.0.0.0")
        Traceback (most recent call last):
        ...
        tumortrace.errors.ServeError: 0.0.0.0: other machines could reach this address without a token; ...
    """

    runs: tuple[Path, ...]
    host: str = "127.0.0.1"
    port: int = 8000
    token: str | None = None
    review: str | None = None
    slides: Path | None = None
    workspace: Path = Path("tumortrace-workspace")
    device: str = "auto"
    limits: Limits = field(default_factory=Limits)

    def __post_init__(self) -> None:
        if not self.runs:
            raise ServeError("no run to serve", remedy="name at least one run folder")
        if not 0 <= self.port <= 65535:
            raise ServeError(f"port {self.port}", expected="0 to 65535", remedy="choose another --port")
        if self.slides is not None and not self.slides.is_dir():
            raise ServeError("no such folder", where=self.slides, expected="a folder of slides", remedy="mend --slides")
        if self.token is not None and (len(self.token) < SHORTEST_TOKEN or not _sendable(self.token)):
            raise ServeError(
                "a token that is too short or has blanks in it",
                expected=f"at least {SHORTEST_TOKEN} printable ASCII characters",
                remedy="make one with: python -c 'import secrets; print(secrets.token_urlsafe())'",
            )
        if self.token is None and not self.loopback:
            raise ServeError(
                "other machines could reach this address without a token",
                where=self.host,
                expected="a token wherever it is not loopback",
                remedy=f"give --token or set {TOKEN_VARIABLE}, or leave --host at 127.0.0.1",
            )

    @property
    def loopback(self) -> bool:
        """Whether only this machine can reach the address.

        Example:
            >>> run = (Path("run"),)
            >>> [Settings(run, host).loopback for host in ("localhost", "127.0.0.9", "::1")]
            [True, True, True]
            >>> Settings(run, "192.168.0.7", token="a-long-enough-token").loopback
            False
        """
        if self.host == "localhost":
            return True
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:  # another name may be any address
            return False


def _sendable(token: str) -> bool:
    return token.isascii() and token.isprintable() and " " not in token
