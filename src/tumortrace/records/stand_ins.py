"""Files that stand in the place of data: what Git LFS, git-annex and failed downloads leave behind."""

from __future__ import annotations

import os
import re
from typing import NamedTuple

_START = 512  # bytes that are looked at


class StandIn(NamedTuple):
    """What a file is instead of data, and what to do, both as an error says them."""

    found: str
    remedy: str


_POINTER = StandIn("a pointer of Git LFS in place of the file", "fetch the file: git lfs pull")
_ANNEX = StandIn("a pointer of git-annex in place of the file", "fetch the file: git annex get, or datalad get")
_PAGE = StandIn("a web page in place of the file, as a failed download leaves it", "download it again")
_MESSAGE = StandIn("a server's message in place of the file, as a failed download leaves it", "download it again")
_EMPTY = StandIn("the file is empty", "download it again, or restore it from its source")


def stand_in(path: str | os.PathLike[str]) -> StandIn | None:
    """What stands in the place of a file's data; None where nothing does.

    Raises:
        OSError: It cannot be read.

    Example:
        >>> import tempfile
        >>> file = tempfile.mkdtemp() + "/train.parquet"
        >>> _ = open(file, "w").write("version https://git-lfs.github.com/spec/v1\\noid sha256:4d7a\\nsize 12345\\n")
        >>> stand_in(file).remedy
        'fetch the file: git lfs pull'
    """
    with open(path, "rb") as file:
        start = file.read(_START)
    if not start:
        return _EMPTY
    text = start.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if text.startswith(b"version https://git-lfs"):
        return _POINTER
    if text.startswith((b"/annex/objects/", b"../.git/annex/", b".git/annex/")):
        return _ANNEX
    if re.match(rb'\{\s*"', text):
        return _MESSAGE
    return _PAGE if text.startswith((b"<!doctype html", b"<html", b"<?xml")) and b"svg" not in text else None
