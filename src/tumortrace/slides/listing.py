"""The slides in a folder, each once."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path

from tumortrace.errors import SlideError
from tumortrace.images.dicom import is_dicom, series_of
from tumortrace.images.readers import slide_suffixes
from tumortrace.records.scans import ScanRecord
from tumortrace.slides.result import JOURNAL


def find_slides(paths: Sequence[Path]) -> list[Path]:
    """The slides that are named, and those in folders that are, each once and each DICOM series once.

    Raises:
        SlideError: A folder holds none.
    """
    files: list[Path] = []
    for path in paths:
        inside = list(_slides_in(path)) if path.is_dir() else [path]
        if not inside:
            raise SlideError("no slide in this folder", where=path, expected="slides", remedy="name the slides' files")
        files += inside
    kept: dict[object, Path] = {}
    for file in files:
        series = _series(file)
        kept.setdefault((file.resolve().parent, series) if series else file.resolve(), file)
    return list(kept.values())


def _slides_in(folder: Path) -> Iterator[Path]:
    """Slides below a folder at any depth, without hidden ones and what scans have left."""
    inside = sorted(folder.iterdir())
    if any(path.name in (ScanRecord.FILE, JOURNAL) for path in inside):
        return
    indices = tuple(path.stem for path in inside if path.suffix.lower() in (".vms", ".vmu"))  # of pictures beside them
    for path in inside:
        if path.name.startswith((".", "@")) or (path.suffix.lower() == ".jpg" and path.name.startswith(indices)):
            continue
        if path.is_dir():
            if not folder.resolve().is_relative_to(path.resolve()):  # a link upwards would go round in circles
                yield from _slides_in(path)
        elif path.is_file() and (path.suffix.lower() in slide_suffixes() or (not path.suffix and _series(path))):
            yield path


def _series(file: Path) -> str | None:
    """The DICOM series of a file; None for other files, and for those that cannot be read, which the scan tells."""
    with suppress(OSError):
        return series_of(file) if file.is_file() and is_dicom(str(file)) else None
    return None
