"""The verbs, one file each: names its arguments and calls the function that does the work, imported only then."""

from __future__ import annotations

import importlib
import pkgutil


def load_verbs() -> None:
    """Import every verb's file, by which it joins the application."""
    for module in pkgutil.iter_modules(__path__):
        importlib.import_module(f"{__name__}.{module.name}")
