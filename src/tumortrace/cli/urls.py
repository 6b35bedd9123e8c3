"""URLs among the words of a command: what is read is fetched, what is written is brought there at the end."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tumortrace.errors import RunError
from tumortrace.records.remote import at_hand, deliver, mirrored, staged_url, staging
from tumortrace.records.stores import told, url_of

_BY_ITSELF = ("data", "slides", "storage")  # what functions fetch themselves, and record as it was named
_WRITTEN = ("out", "resume")


def localised(given: Mapping[str, Any], parent: bool) -> dict[str, Any]:
    """The arguments of a verb with paths of this machine in place of URLs.

    Args:
        given: By name; `out` with its default, where the verb writes.
        parent: Whether `out` is where a folder is made, so that what is there already is not needed.

    Raises:
        RunError: A URL cannot be read or written, or results would be written into the copy of a run.
    """
    if url_of(given.get("run")) and "out" in given and given["out"] is None:
        found, remedy = "a run in a store, and nothing that says where results go", "name it with -o"
        raise RunError(found, where=told(given["run"]), remedy=remedy)
    return {name: value if name in _BY_ITSELF else _local(name, value, parent) for name, value in given.items()}


def _local(name: str, value: Any, parent: bool) -> Any:
    if isinstance(value, list):
        return [_local(name, one, parent) for one in value]
    if not isinstance(value, str | Path):
        return value
    url = (url_of(value) or staged_url(Path(value))) if name in _WRITTEN else url_of(value)
    if url is None:
        return mirrored(value) if isinstance(value, Path) else value
    return type(value)(staging(url, begun=name == "resume" or not parent) if name in _WRITTEN else at_hand(url))


def delivered(result: Any, given: Mapping[str, Any]) -> Any:
    """Bring results to the store that they are for; what the verb returns, with the URL in place of its path there."""
    written = next((given[name] for name in _WRITTEN if given.get(name) is not None), None)
    place = result if isinstance(result, Path) and staged_url(result) else written
    if place is None or (url := staged_url(Path(place))) is None or not Path(place).exists():
        return result
    deliver(Path(place), url)
    return url if isinstance(result, Path) else result
