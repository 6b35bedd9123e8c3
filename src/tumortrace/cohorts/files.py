"""Which images lie in a folder, found quickly: a quarter of a million files are listed, none is opened."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from tumortrace.errors import CohortError
from tumortrace.images.decoding import IMAGE_SUFFIXES
from tumortrace.images.dicom import is_dicom
from tumortrace.images.reference import ImageRef

SPLIT_NAMES = {
    "train": "train",
    "training": "train",
    "valid": "validation",
    "val": "validation",
    "validation": "validation",
    "calibration": "calibration",
    "test": "test",
}
"""What people call the splits, to what they are called here."""

_CLUTTER = frozenset(("__macosx", "thumbs.db", "desktop.ini"))


class Listing(NamedTuple):
    """Paths of images relative to a folder, with forward slashes and sorted, and of the other files in it."""

    images: list[str]
    others: list[str]

    def notes(self) -> list[str]:
        """What is to be said about files that are not images."""
        if not self.others:
            return []
        return [f"left out {len(self.others)} files that are not images, such as {self.others[0]}"]


def list_images(folder: Path) -> Listing:
    """All images in a folder and its subfolders; hidden files and what file managers leave behind are passed over.

    Args:
        folder: The folder.

    Raises:
        CohortError: A file name is not valid text.
        OSError: The folder or one below cannot be read.

    Example:
        >>> import tempfile
        >>> folder = Path(tempfile.mkdtemp())
        >>> for name in ("b.PNG", "a.tif", ".a.tif", "notes.txt"):
        ...     (folder / name).touch()
        >>> list_images(folder)
        Listing(images=['a.tif', 'b.PNG'], others=['notes.txt'])
    """
    images: list[str] = []
    others: list[str] = []
    for path in _files(os.fspath(folder), ""):
        (images if is_image(path) or _is_nameless(folder, path) else others).append(path)
    return Listing(sorted(images), sorted(others))


def is_image(name: str) -> bool:
    """Whether a file's name ends like that of an image."""
    _, dot, ending = name.rpartition(".")
    return dot + ending.lower() in IMAGE_SUFFIXES


def _is_nameless(folder: Path, path: str) -> bool:
    """Whether a file without an ending is a DICOM image, as archives and scanners export them."""
    if "." in path.rpartition("/")[2]:
        return False
    try:
        return is_dicom(os.path.join(folder, path))
    except OSError:
        return False


def has_images(folder: Path) -> bool:
    """Whether there is an image in a folder or below; it stops looking at the first."""
    return any(is_image(path) or _is_nameless(folder, path) for path in _files(os.fspath(folder), ""))


def absolute_paths(folder: Path, images: Iterable[str]) -> list[str]:
    """Absolute paths of images listed relative to a folder."""
    root = os.path.join(os.path.abspath(folder), "")
    return [root + image.replace("/", os.sep) for image in images]


def images_beside(files: Iterable[str]) -> list[str]:
    """Absolute paths, sorted, of the images in the folders of these files that are none of them.

    Args:
        files: Absolute paths of images; rows of arrays, whose folders hold other things, do not count.
    """
    known = set(files)
    folders = {os.path.dirname(path) for path in known if not ImageRef.parse(path).part}
    there = {path for folder in folders for path in absolute_paths(Path(folder), flat_images(Path(folder)))}
    return sorted(there - known)


def flat_images(folder: Path) -> list[str]:
    """Names of the images that lie in a folder itself, sorted."""
    return sorted(name for name in os.listdir(folder) if is_image(name) and not _passed_over(name))


def subfolders(folder: Path) -> list[str]:
    """Names of the folders in a folder that are not hidden, sorted; none where there is no such folder."""
    if not folder.is_dir():
        return []
    with os.scandir(folder) as entries:
        return sorted(entry.name for entry in entries if not _passed_over(entry.name) and entry.is_dir())


def _passed_over(name: str) -> bool:
    return name.startswith(".") or name.lower() in _CLUTTER


def _files(folder: str, prefix: str) -> Iterator[str]:
    with os.scandir(folder) as entries:
        for entry in entries:
            name = entry.name
            if _passed_over(name):
                continue
            if not name.isascii():
                try:
                    name.encode()
                except UnicodeEncodeError:
                    found = f"a file name that is not valid text: {os.fsencode(name)!r}"
                    raise CohortError(found, where=folder, remedy="rename it") from None
            if not entry.is_dir():
                yield prefix + name
            elif not (entry.is_symlink() and _leads_back(entry.path)):
                yield from _files(entry.path, f"{prefix}{name}/")


def _leads_back(link: str) -> bool:
    """Whether a link leads to a folder that it lies in, so that following it would never end."""
    target = os.path.join(os.path.realpath(link), "")
    return os.path.join(os.path.realpath(os.path.dirname(link)), "").startswith(target)
