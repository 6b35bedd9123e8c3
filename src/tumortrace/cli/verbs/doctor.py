"""`tumortrace doctor`: what this machine can do."""

from __future__ import annotations

from tumortrace.cli.app import app


@app.command
def doctor() -> None:
    """Say what this machine can do: devices, precision, libraries, cache."""
    from tumortrace.cli.doctor import doctor

    doctor()
