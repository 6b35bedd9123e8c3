"""Object stores and web servers: what lies there, read from any byte on, and files put there; errors become a line."""

from __future__ import annotations

import os
import re
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from email.utils import parsedate_to_datetime
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Any

from tumortrace.errors import RunError, TumorTraceError

SCHEMES = ("s3", "gs", "hf", "http", "https")
_PLACE = re.compile(r"([a-z][a-z0-9+]+):/+(.*)", re.DOTALL)  # a Path takes one slash of an URL away
_REFUSED = ("access_denied", "accessdenied", "forbidden", "credential", "signature", "unauthor", "401", "403", "token")
_ABSENT = ("no_such_bucket", "nosuchbucket", "bucket does not exist")
_KEYS = {
    "s3": "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or a profile in ~/.aws",
    "gs": "`gcloud auth application-default login`, or GOOGLE_APPLICATION_CREDENTIALS",
    "hf": "`hf auth login`, or HF_TOKEN",
}


def url_of(place: object) -> str | None:
    """The URL that a path or text is; None where it is neither one of a store nor of a web server.

    Raises:
        RunError: It is one of a kind that is not known here, or has a password in it, which would be recorded.

    Example:
        >>> url_of(Path("s3://lab/slides")), url_of("slides"), url_of("synthetic:patches")
        ('s3://lab/slides', None, None)
    """
    match = _PLACE.fullmatch(os.fspath(place)) if isinstance(place, str | os.PathLike) else None
    if match is None or match[1] in ("file", "synthetic"):
        return None
    scheme, rest = match[1], match[2]
    if scheme not in SCHEMES:
        expected = ", ".join(f"{known}://" for known in SCHEMES) + ", or a path"
        raise RunError(f"{scheme}:// is not read or written here", expected=expected, remedy="copy it there")
    if "@" in rest.partition("/")[0]:
        found, remedy = "a name or password in a URL, which would be recorded", _KEYS.get(scheme, "a signed URL")
        raise RunError(found, where=f"{scheme}://", expected="none", remedy=f"give them by {remedy}")
    return f"{scheme}://{rest.rstrip('/')}" + ("/" if scheme.startswith("http") and rest.endswith("/") else "")


def told(place: str | os.PathLike[str]) -> str:
    """A place as records and messages name it: an URL without the query, which may be a signature.

    Example:
        >>> told("https://lab.org/a.h5?X-Amz-Signature=0a1b"), told(Path("s3://lab/a")), told("a?b")
        ('https://lab.org/a.h5', 's3://lab/a', 'a?b')
    """
    text = os.fspath(place)
    match = _PLACE.fullmatch(text)
    if match is None or match[1] not in SCHEMES:
        return text
    return f"{match[1]}://{match[2].partition('?')[0] if match[1].startswith('http') else match[2]}"


@dataclass(frozen=True)
class Stored:
    """A file in a store.

    Attributes:
        name: Relative to what was listed, with forward slashes; its own name where it alone was.
        key: What the store calls it.
        size: In bytes.
        time: Of its last change, ns; where the store tells a tag alone, a number that follows from that.
    """

    name: str
    key: str
    size: int
    time: int


class Store:
    """Where an URL leads.

    Args:
        url: As `url_of` gives it.
    """

    def __init__(self, url: str) -> None:
        self.url, self.scheme = url, url.partition(":")[0]
        self.told = told(url)

    @cached_property
    def _arrow(self) -> tuple[Any, str]:
        from pyarrow import fs

        url = f"{self.url}?retry_limit_seconds=20" if self.scheme == "gs" else self.url
        filesystem, key = fs.FileSystem.from_uri(url)
        return filesystem, key

    @cached_property
    def _fsspec(self) -> Any:
        import fsspec

        if self.scheme == "hf":
            return fsspec.filesystem("hf")
        from aiohttp import ClientTimeout

        patient = ClientTimeout(total=None, sock_connect=30, sock_read=120)  # hours, but no long silence
        return fsspec.filesystem(self.scheme, client_kwargs={"timeout": patient})

    @property
    def _path(self) -> str:
        return self.url if self.scheme.startswith("http") else self.url.partition("://")[2]

    def files(self) -> list[Stored]:
        """The file that is there, or those at any depth; empty where there is nothing.

        Raises:
            RunError: The store refuses, or cannot be reached.
        """
        with telling(self.url):
            listed = self._listed_by_arrow() if self.scheme in ("s3", "gs") else self._listed_by_fsspec()
        for file in listed:
            if ".." in PurePosixPath(file.name).parts or file.name.startswith("/"):
                raise RunError(f"a file called {file.name!r}", where=self.told, expected="a name without '..'")
        return listed

    def names_a_file(self, files: Sequence[Stored]) -> bool:
        """Whether the URL is of one file, that of the listing, and of no folder."""
        return len(files) == 1 and files[0].key in (self.url, self._path.rstrip("/"))

    def _listed_by_arrow(self) -> list[Stored]:
        from pyarrow import fs

        filesystem, key = self._arrow
        single = filesystem.get_file_info(key) if "/" in key else None
        if single is not None and single.type == fs.FileType.File:
            return [Stored(single.base_name, key, single.size, single.mtime_ns)]
        inside = filesystem.get_file_info(fs.FileSelector(key, recursive=True, allow_not_found="/" in key))
        files = [info for info in inside if info.type == fs.FileType.File]
        return [Stored(info.path[len(key) :].lstrip("/"), info.path, info.size, info.mtime_ns) for info in files]

    def _listed_by_fsspec(self) -> list[Stored]:
        path = self._path
        if path.endswith("/") or self._fsspec.info(path)["type"] == "directory":
            keys = self._fsspec.find(path)
        else:
            keys = [path]
        files = []
        for key in keys:
            info = self._fsspec.info(key)
            name = key[len(path) :].lstrip("/") or PurePosixPath(path.partition("?")[0]).name
            if info.get("size") is None:
                raise RunError("the server does not tell its size", where=told(key), remedy="fetch it by hand")
            files.append(Stored(name, key, int(info["size"]), _time(info)))
        return files

    @contextmanager
    def open(self, file: Stored, offset: int = 0) -> Iterator[tuple[Any, int]]:
        """A stream of a file's bytes, and where it begins: at `offset`, or at 0 where its server cannot skip any."""
        if self.scheme in ("s3", "gs"):
            opened: Any = self._arrow[0].open_input_file(file.key)
        elif self.scheme == "hf" or (offset and self._fsspec.info(file.key).get("partial")):
            opened = self._fsspec.open(file.key, "rb")
        else:
            opened, offset = self._fsspec.open(file.key, "rb", block_size=0), 0
        with opened:
            if offset:
                opened.seek(offset)
            yield opened, offset

    def put(self, file: Path, name: str) -> None:
        """Put a file there; it appears when it is whole.

        Raises:
            RunError: It cannot be put there.
        """
        with telling(self.url):
            if self.scheme in ("s3", "gs"):
                filesystem, key = self._arrow
                with open(file, "rb") as source, filesystem.open_output_stream(_below(key, name)) as target:
                    while block := source.read(8 << 20):
                        target.write(block)
            else:
                self._fsspec.put_file(str(file), _below(self._path, name))


def _below(key: str, name: str) -> str:
    return f"{key}/{name}" if name else key


def _time(info: dict[str, Any]) -> int:
    """When a file was changed, or a number that follows from its tag; 0 where nothing is told."""
    if changed := info.get("mtime") or info.get("Last-Modified"):
        moment = changed if isinstance(changed, datetime) else parsedate_to_datetime(changed)
        return int(moment.timestamp()) * 10**9
    tag = info.get("ETag") or (info.get("lfs") or {}).get("sha256") or info.get("blob_id") or ""
    return zlib.crc32(str(tag).encode()) * 10**9 if tag else 0


@contextmanager
def telling(url: str) -> Iterator[None]:
    """Turn what a store or the network refuses into one line, without signatures."""
    try:
        yield
    except TumorTraceError:
        raise
    except Exception as error:  # of several libraries, which share no class
        cause = error.__cause__ if isinstance(error, FileNotFoundError) and error.__cause__ else error
        reason = re.sub(r"\?\S+", "", " ".join(str(cause).split()) or type(cause).__name__)
        known = reason.casefold()
        scheme = url.partition(":")[0]
        if isinstance(cause, FileNotFoundError) or any(word in known for word in _ABSENT) or "404" in known:
            found, remedy = "nothing is there", "correct the URL, or make the bucket"
        elif any(word in known for word in _REFUSED):
            found, remedy = (
                f"access is refused ({reason})",
                f"credentials are taken from {_KEYS.get(scheme, 'the URL')}",
            )
        else:
            found, remedy = f"cannot be reached ({reason})", "look at the network; the same command goes on from here"
        raise RunError(found, where=told(url), remedy=remedy) from None
