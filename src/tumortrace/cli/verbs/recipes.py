"""`tumortrace recipes`: list or print recipes."""

from __future__ import annotations

from typing import Annotated

from cyclopts import Parameter

from tumortrace.cli.app import app


@app.command
def recipes(
    name: str | None = None, *, changes: Annotated[list[str] | None, Parameter(name="--set", negative="")] = None
) -> None:
    """List the recipes, or print one with every default spelt out.

    Args:
        name: A recipe's name or path.
        changes: A change to it, as for `train`.
    """
    from tumortrace.training.recipe import load_recipe, recipe_names

    if name is not None:
        print(load_recipe(name, changes or ()).to_yaml(), end="")
        return
    for known in recipe_names():
        print(f"{known:28} {load_recipe(known).description}")
