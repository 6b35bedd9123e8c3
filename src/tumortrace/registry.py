"""Name to builder: how models and data layouts are found without a list of them anywhere."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from typing import Generic, TypeVar

from tumortrace.errors import TumorTraceError

T = TypeVar("T")


class Registry(Generic[T]):
    """Named builders, collected from every module of a package when first asked for.

    Adding an entry is adding a file to the package: the registry imports its modules, and each registers what it
    offers. An entry whose module has its name is had without the others, some of which take seconds to import.

    Args:
        kind: What the entries are, for messages ("model", "layout").
        package: Dotted name of the package whose modules register entries.
        error: What to raise for an unknown name.

    Example:
        >>> numbers = Registry("number", package="")
        >>> @numbers.register("one")
        ... def one():
        ...     return 1
        >>> numbers["one"]()
        1
    """

    def __init__(self, kind: str, package: str, error: type[TumorTraceError] = TumorTraceError) -> None:
        self.kind = kind
        self._package = package
        self._error = error
        self._entries: dict[str, T] = {}
        self._discovered = not package

    def register(self, name: str) -> Callable[[T], T]:
        """Register the decorated object as `name`; a name taken twice is a programming error."""

        def add(entry: T) -> T:
            if name in self._entries:
                raise ValueError(f"{self.kind} {name!r} is registered twice")
            self._entries[name] = entry
            return entry

        return add

    def __getitem__(self, name: str) -> T:
        if name not in self._entries:
            self._find(name)
        if name not in self._entries:
            raise self._error(
                f"no {self.kind} named {name!r}",
                expected="one of " + ", ".join(sorted(self._entries)),
                remedy="choose one of these",
            )
        return self._entries[name]

    def __iter__(self) -> Iterator[str]:
        self._discover()
        return iter(sorted(self._entries))

    def _find(self, name: str) -> None:
        module = name.replace("-", "_")
        if not self._discovered and module.isidentifier() and find_spec(f"{self._package}.{module}"):
            importlib.import_module(f"{self._package}.{module}")
        if name not in self._entries:
            self._discover()

    def _discover(self) -> None:
        if self._discovered:
            return
        self._discovered = True
        package = importlib.import_module(self._package)
        for module in pkgutil.iter_modules(package.__path__):
            importlib.import_module(f"{self._package}.{module.name}")
