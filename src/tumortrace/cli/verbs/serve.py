"""`tumortrace serve`: web page and HTTP API."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from tumortrace.cli.app import app


@app.command
def serve(
    runs: list[Path],
    /,
    *,
    host: str = "127.0.0.1",
    port: int = 8000,
    token: Annotated[str | None, Parameter(env_var="TUMORTRACE_TOKEN", show_env_var=True)] = None,
    review: str | None = None,
    slides: Path | None = None,
    workspace: Path = Path("tumortrace-workspace"),
    device: str = "auto",
) -> None:
    """Serve web pages and an HTTP API on one or several models, until Ctrl-C.

    Args:
        runs: Run folders or bundles; the first answers where a request names none.
        host: Address to listen on; anything but loopback needs a token.
        port: Port to listen on; 0 takes a free one.
        token: What callers must send as `Authorization: Bearer TOKEN`.
        review: Data whose patches are queued for review, most uncertain first.
        slides: Folder whose slides can be chosen on the page.
        workspace: Folder for scans, uploaded slides and corrections, which outlast a restart.
        device: `auto`, `cpu`, `cuda`, `cuda:1` or `mps`.
    """
    from tumortrace.app.server import serve

    serve(
        runs,
        host=host,
        port=port,
        token=token or None,
        review=review,
        slides=slides,
        workspace=workspace,
        device=device,
    )
