"""By what a slide and the settings of a scan are known again: contents, not names and times."""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import lru_cache
from hashlib import blake2b
from pathlib import Path

from tumortrace.images.dicom import is_dicom, series_of
from tumortrace.records.remote import tag_of

_WHOLE = 64 << 20  # bytes up to which all of a file is read
_PLACES, _PIECE = 256, 64 << 10  # of a larger one


def content_of(path: Path) -> str:
    """Digest of a slide's content, which stays where the file is moved or copied; blank where it cannot be read.

    A DICOM slide is its series, whichever of its files is named. Of files beyond 64 MiB, 256 places are read, and the
    time of the last change counts too. Of slides in a store, size and time of change there are told instead.

    Example:
        >>> import tempfile
        >>> file = Path(tempfile.mkdtemp()) / "a.tiff"
        >>> _ = file.write_bytes(b"II*")
        >>> content_of(file) == content_of(file.rename(file.with_name("b.tiff"))), content_of(file)
        (True, '')
    """
    try:
        if not path.is_file():  # opening a named pipe would wait for ever
            return ""
        if tag := tag_of(path):
            return blake2b(tag.encode(), digest_size=16).hexdigest()
        stat = path.stat()
        return _digest(path.resolve(), stat.st_size, stat.st_mtime_ns)
    except OSError:
        return ""


@lru_cache(maxsize=4096)
def _digest(path: Path, size: int, changed: int) -> str:
    digest = blake2b(digest_size=16)
    series = series_of(path) if is_dicom(str(path)) else None
    for piece in [series.encode()] if series else _pieces(path, size, changed):
        digest.update(piece)
    return digest.hexdigest()


def digest_of(request: object) -> str:
    """Digest of what JSON takes."""
    return blake2b(json.dumps(request, sort_keys=True).encode(), digest_size=16).hexdigest()


def _pieces(path: Path, size: int, changed: int) -> Iterator[bytes]:
    beside = path.with_suffix("")  # MIRAX keeps its pixels in a folder
    for part in sorted(beside.iterdir()) if path.suffix.lower() == ".mrxs" and beside.is_dir() else ():
        yield f"{part.name} {part.stat().st_size}".encode()
    with path.open("rb") as file:
        if size <= _WHOLE:
            while piece := file.read(1 << 20):
                yield piece
            return
        yield f"{size} {changed}".encode()
        for place in range(_PLACES):
            file.seek((size - _PIECE) * place // (_PLACES - 1))
            yield file.read(_PIECE)
