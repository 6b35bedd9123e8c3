"""What the extra `serve` brings, asked for before anything of it is imported."""

from __future__ import annotations

from importlib.util import find_spec

from tumortrace.errors import MissingDependencyError

MODULES = ("fastapi", "markdown_it", "prometheus_client", "python_multipart", "uvicorn")


def require_extra() -> None:
    """Refuse in one line where the libraries of the extra `serve` are not installed.

    Raises:
        MissingDependencyError: One of them is missing; the message says how to install all.
    """
    missing = [name for name in MODULES if find_spec(name) is None]
    if missing:
        raise MissingDependencyError(
            f"serving needs {', '.join(missing)}",
            expected="the extra `serve`",
            remedy="pip install 'tumortrace[serve]'",
        )
