"""`tumortrace models`: list network families."""

from __future__ import annotations

from tumortrace.cli.app import app


@app.command
def models() -> None:
    """List the network families that a recipe can name, with their arguments."""
    import inspect

    from tumortrace.models.architecture import ARCHITECTURES

    for name in ARCHITECTURES:
        builder = ARCHITECTURES[name]
        arguments = [str(p) for p in inspect.signature(builder).parameters.values() if p.name != "input_size"]
        print(f"{name:16} {(inspect.getdoc(builder) or '').splitlines()[0]}")
        print(f"{'':16} {', '.join(arguments)}")
