"""Data of object stores and web servers, by way of copies in the cache, and results put there.

The cache mirrors the stores: `remote/s3/BUCKET/...`. A copy has the size and the time of change of what it is of, by
which it is known to be of today, and by which fingerprints of the data are the same on every machine.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Collection, Sequence
from pathlib import Path

import platformdirs

from tumortrace.errors import RunError
from tumortrace.records.files import write_json
from tumortrace.records.journal import Journal
from tumortrace.records.lock import locked
from tumortrace.records.progress import say, track
from tumortrace.records.stores import Store, Stored, telling, told, url_of

KEPT = 50e9
"""Bytes of slides that stay in the cache; TUMORTRACE_CACHE_SLIDES sets another number."""

_BLOCK = 4 << 20
_TABLES = (".csv", ".tsv", ".parquet", ".txt")
_ROOM = "free space, or set TUMORTRACE_CACHE to a folder on another disk"


def cache_folder() -> Path:
    """Where decoded data are kept: the environment variable TUMORTRACE_CACHE, else the user's cache folder."""
    return Path(os.environ.get("TUMORTRACE_CACHE") or platformdirs.user_cache_dir("tumortrace"))


def none_later(names: Sequence[str]) -> Collection[str]:
    """Nothing waits to be fetched until it is opened."""
    return ()


def mirrored(place: str | os.PathLike[str]) -> Path:
    """Where `at_hand` puts what a URL names; of a path, the path."""
    url = url_of(place)
    if url is None:
        text = os.fspath(place)
        return Path("/" + text[5:].lstrip("/") if text.startswith("file:/") else text).expanduser()
    return _place("remote", url)


def at_hand(place: str | os.PathLike[str], later: Callable[[Sequence[str]], Collection[str]] = none_later) -> Path:
    """A path as it is; of a URL, a copy in the cache, brought up to date, file by file, each whole or not at all.

    Of a table, the folder around it is fetched too, as it names files from there; not from web servers.

    Args:
        place: A path or URL of a file or folder.
        later: Which of the files that are there, named from the folder, `require` is to fetch when they are opened.

    Raises:
        RunError: Nothing is there, the store refuses, or there is no room for it.
    """
    url = url_of(place)
    home = mirrored(place)
    if url is None:
        return home
    store = Store(url)
    files = store.files()
    if not files:
        raise RunError("nothing is there", where=store.told, expected="a file or folder", remedy="correct the URL")
    single = store.names_a_file(files)
    if single and home.suffix.lower() in _TABLES and store.scheme in ("s3", "gs", "hf"):
        return at_hand(url.rpartition("/")[0], later) / home.name
    waiting = set(later([file.name for file in files]))
    state = _state(home)
    state.mkdir(parents=True, exist_ok=True)
    with locked(state / "lock", waiting=f"another process fetches {store.told}: waiting for it"):
        pairs = [(file, home if single else home / file.name) for file in files]
        wanted = [(file, copy) for file, copy in pairs if file.name not in waiting and not _same(copy, file)]
        _require_room(home, sum(file.size for file, _ in wanted))
        for file, copy in pairs:
            if file.name in waiting and not _same(copy, file):
                _stand_in(url, file, copy)
        for file, copy in track(wanted, f"fetching {store.told}"):
            _fetch(store, file, copy)
        if not single:
            _remove_others(home, {copy for _, copy in pairs})
    return home


def require(path: Path) -> None:
    """Fetch a slide of a store that waits to be opened; nothing is done with any other file."""
    marker = _marker(path)
    if marker is None:
        return
    with locked(marker.with_suffix(".lock")):
        url, *fields = json.loads(marker.read_text("utf-8"))
        file = Stored(*fields)
        if not _same(path, file):
            _require_room(path, file.size)
            _fetch(Store(url), file, path)


def release(path: Path) -> None:
    """Remove a slide that `require` fetched, where more of them are kept than there is to be room for."""
    marker = _marker(path)
    if marker is None:
        return
    limit = float(os.environ.get("TUMORTRACE_CACHE_SLIDES") or KEPT)
    url, *fields = json.loads(marker.read_text("utf-8"))
    copies = (file.stat() for file in (cache_folder() / "remote").rglob("*") if file.is_file())
    kept = sum(copy.st_size for copy in copies if copy.st_mtime_ns)  # files that stand in for slides are of 1970
    if kept > limit:
        _stand_in(url, Stored(*fields), path)


def tag_of(path: Path) -> str | None:
    """By what a slide of a store is known again: size and time of change there; None of any other file."""
    marker = _marker(path)
    return None if marker is None else " ".join(map(str, json.loads(marker.read_text("utf-8"))[3:]))


def staging(url: str, begun: bool = True) -> Path:
    """Where results for a URL are written until `deliver`.

    Args:
        url: A file or folder of a store.
        begun: Whether what is there already is fetched, so that it is gone on with.

    Raises:
        RunError: It takes no results, or cannot be reached.
    """
    store, home = Store(url), _place("outputs", url)
    if store.scheme.startswith("http"):
        raise RunError("takes no results", where=store.told, expected="s3://, gs://, hf:// or a path")
    home.parent.mkdir(parents=True, exist_ok=True)
    journal, whole = _delivered(home, url), _state(home) / "begun"
    if not begun or whole.exists():
        return home
    files = store.files()
    single = store.names_a_file(files)
    for file in track(files, f"fetching {store.told}"):
        copy = home if single else home / file.name
        _fetch(store, file, copy)
        journal.append(_entry(copy, home))
    whole.touch()
    return home


def staged_url(path: Path) -> str | None:
    """The URL for which a path in the cache was written; None of any other path."""
    try:
        parts = path.absolute().relative_to(cache_folder().absolute() / "outputs").parts
    except ValueError:
        return None
    return f"{parts[0]}://{'/'.join(parts[1:])}" if len(parts) > 1 else None


def deliver(home: Path, url: str) -> None:
    """Put results where they belong and remove the copy: file by file, records last.

    What was put there is noted, so that a call that breaks off is gone on with; until the last of its records has come,
    nobody takes what is there for a finished run.

    Raises:
        RunError: The store refuses, or cannot be reached.
    """
    files = [home] if home.is_file() else [file for file in home.rglob("*") if file.is_file()]
    beside = home.with_name(home.name + ".json")
    files += [beside] if home.is_file() and beside.is_file() else []
    store, journal = Store(url), _delivered(home, url)
    known = {tuple(entry) for entry in journal.entries}
    files = sorted((file for file in files if file.suffix not in (".lock", ".tmp") and file.name != "lock"), key=_order)
    new = [file for file in files if tuple(_entry(file, home)) not in known]
    for file in track(new, f"bringing results to {store.told}"):
        if file == beside:
            Store(f"{url}.json").put(file, "")
        else:
            store.put(file, "" if file == home else file.relative_to(home).as_posix())
        journal.append(_entry(file, home))
    say(f"{len(new):,} files brought to {store.told}")
    for file in (home, beside):
        shutil.rmtree(file) if file.is_dir() else file.unlink(missing_ok=True)
    journal.remove()
    (_state(home) / "begun").unlink(missing_ok=True)


def _order(file: Path) -> tuple[int, int, str]:
    """Records last, those of folders further up after those within, and run.json after all others."""
    record = file.suffix == ".json"
    return (record + (file.name == "run.json"), -len(file.parts) if record else 0, str(file))


def _entry(file: Path, home: Path) -> list[object]:
    stat = file.stat()
    return [file.relative_to(home.parent).as_posix(), stat.st_size, stat.st_mtime_ns]


def _delivered(home: Path, url: str) -> Journal[list[object]]:
    state = _state(home)
    state.mkdir(parents=True, exist_ok=True)
    return Journal(state / "delivered.jsonl", {"url": told(url)})


def _place(kind: str, url: str) -> Path:
    scheme, _, rest = url.partition("://")
    path, _, query = rest.partition("?") if scheme.startswith("http") else (rest, "", "")
    parts = [part.replace(":", "_") for part in path.split("/") if part]
    if ".." in parts:
        raise RunError("'..' in a URL", where=told(url), expected="none", remedy="write it without")
    if query:
        parts.insert(-1, hashlib.sha256(query.encode()).hexdigest()[:8])
    return cache_folder().joinpath(kind, scheme, *parts)


def _state(path: Path) -> Path:
    """Where notes on a copy are kept, apart from the copies."""
    cache = cache_folder().absolute()
    return cache / "remote-notes" / path.absolute().relative_to(cache)


def _marker(path: Path) -> Path | None:
    """The note on a slide that is fetched when it is opened; None where the file is none of these."""
    if not path.absolute().is_relative_to(cache_folder().absolute() / "remote"):
        return None
    marker = _state(path) / "later.json"
    return marker if marker.is_file() else None


def _same(copy: Path, file: Stored) -> bool:
    """Whether a copy is of the file as it is now."""
    if not copy.is_file():
        return False
    stat = copy.stat()
    return (stat.st_size, stat.st_mtime_ns) == (file.size, file.time)


def _stand_in(url: str, file: Stored, copy: Path) -> None:
    """A file of the slide's size that takes no room, and a note on where it is to be had."""
    write_json(_state(copy) / "later.json", [url, file.name, file.key, file.size, file.time])
    empty = _state(copy) / "empty"
    with open(empty, "wb") as written:
        written.truncate(file.size)
    os.utime(empty, (0, 0))
    copy.parent.mkdir(parents=True, exist_ok=True)
    os.replace(empty, copy)  # whoever has the slide open still reads it


def _fetch(store: Store, file: Stored, copy: Path) -> None:
    """Fetch one file; what an attempt before has left of the same is gone on with."""
    state = _state(copy)
    state.mkdir(parents=True, exist_ok=True)
    part = state / f"{file.size}-{file.time}.part"
    with telling(store.url):
        have = part.stat().st_size if part.is_file() and part.stat().st_size <= file.size else 0
        if have < file.size or not part.is_file():
            with store.open(file, have) as (source, begin), open(part, "r+b" if begin else "wb") as target:
                target.seek(begin)
                while block := source.read(_BLOCK):
                    target.write(block)
                target.truncate()
        if part.stat().st_size != file.size:
            found, expected = f"{part.stat().st_size:,} bytes of {file.name}", f"{file.size:,}"
            part.unlink()
            raise RunError(
                found, where=store.told, expected=expected, remedy="try again; it may just have been changed"
            )
    os.utime(part, ns=(file.time, file.time))
    copy.parent.mkdir(parents=True, exist_ok=True)
    os.replace(part, copy)


def _require_room(home: Path, needed: int) -> None:
    nearest = next(part for part in home.absolute().parents if part.exists())
    if needed > (free := shutil.disk_usage(nearest).free):
        found = f"no room for {needed / 1e9:.1f} GB, with {free / 1e9:.1f} GB free"
        raise RunError(found, where=nearest, expected="room for a copy", remedy=_ROOM)


def _remove_others(home: Path, copies: set[Path]) -> None:
    """Remove what is no longer in the store."""
    for path in sorted(home.rglob("*"), reverse=True):
        if path.is_file() and path not in copies:
            path.unlink()
        elif path.is_dir() and not any(path.iterdir()):
            path.rmdir()
