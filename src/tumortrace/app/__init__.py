"""Web page and HTTP API on one or several models; the extra `serve` brings what it stands on."""

from __future__ import annotations

from importlib.util import find_spec

from tumortrace.errors import MissingDependencyError

_missing = [
    name
    for name in ("fastapi", "markdown_it", "prometheus_client", "python_multipart", "uvicorn")
    if find_spec(name) is None
]
if _missing:  # asked here, so that who imports anything of the room is told in a line what to install
    raise MissingDependencyError(
        f"serving needs {', '.join(_missing)}",
        expected="the extra `serve`",
        remedy="pip install 'tumortrace[serve]'",
    )
