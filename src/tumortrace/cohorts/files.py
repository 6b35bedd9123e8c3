"""Which images lie in a folder, found quickly: a quarter of a million files are listed, none is opened."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import NamedTuple

from tumortrace.cohorts.names import is_clutter, masks_among
from tumortrace.errors import CohortError, plain
from tumortrace.images.decoding import IMAGE_SUFFIXES
from tumortrace.images.dicom import is_dicom
from tumortrace.images.reference import ImageRef

AS_CSV = "save it as CSV in UTF-8"  # what to do with a spreadsheet


class Listing(NamedTuple):
    """What lies in a folder and below: paths relative to it, with forward slashes and sorted.

    Attributes:
        images: The images.
        others: Files that are none.
        masks: Images that are masks or labels of others beside them.
        clutter: Files that are hidden or that the system keeps.
    """

    images: list[str]
    others: list[str]
    masks: tuple[str, ...] = ()
    clutter: tuple[str, ...] = ()

    def notes(self) -> list[str]:
        """What is to be said about files that are not taken."""
        clutter, masks, others = map(_told, (self.clutter, self.masks, self.others))
        told = [f"passed over {clutter} hidden or kept by the system" + _such_as(self.clutter)] if self.clutter else []
        if self.masks:
            told.append(f"left out {masks} named as masks or labels of images beside them" + _such_as(self.masks))
        if self.others:
            what = "is no image" if len(self.others) == 1 else "are not images"
            told.append(f"left out {others} that {what}" + _such_as(self.others))
        if sheets := list(filter(is_spreadsheet, self.others)):
            told.append(f"not read: {plain(sheets[0])}, which may say what the images are: {AS_CSV}")
        return told


def _told(files: Sequence[str]) -> str:
    return f"{len(files):,} file{'s' * (len(files) != 1)}"


def _such_as(files: Sequence[str]) -> str:
    return f", such as {plain(files[0])}"


def list_images(folder: Path) -> Listing:
    """All images in a folder and its subfolders.

    Hidden files, what systems and file managers keep, and masks that stand beside their pictures are named apart.

    Args:
        folder: The folder.

    Raises:
        CohortError: A file name is not valid text.
        OSError: The folder or one below cannot be read.

    Example:
        >>> import tempfile
        >>> folder = Path(tempfile.mkdtemp())
        >>> for name in ("b.PNG", "a.tif", ".a.tif", "notes.txt", "a_mask.png"):
        ...     (folder / name).touch()
        >>> list_images(folder)
        Listing(images=['a.tif', 'b.PNG'], others=['notes.txt'], masks=('a_mask.png',), clutter=('.a.tif',))
    """
    images: list[str] = []
    others: list[str] = []
    clutter: list[str] = []
    for path in _files(os.fspath(folder), "", clutter):
        (images if is_image(path) or _is_nameless(folder, path) else others).append(path)
    masks = masks_among(images)
    kept = sorted(set(images) - set(masks)) if masks else sorted(images)
    return Listing(kept, sorted(others), tuple(sorted(masks)), tuple(sorted(clutter)))


def is_image(name: str) -> bool:
    """Whether a file's name ends like that of an image."""
    _, dot, ending = name.rpartition(".")
    return dot + ending.lower() in IMAGE_SUFFIXES


def is_spreadsheet(name: str) -> bool:
    """Whether a file's name ends like that of a table which is not read: a spreadsheet, or a compressed table."""
    return name.lower().endswith((".xlsx", ".xls", ".ods", ".csv.gz", ".tsv.gz", ".csv.zip"))


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
    return any(is_image(path) or _is_nameless(folder, path) for path in _files(os.fspath(folder), "", []))


def some_images(folder: Path, count: int) -> list[str]:
    """The first images that are met in a folder and below, as `list_images` names them, without looking at all."""
    return list(islice((path for path in _files(os.fspath(folder), "", []) if is_image(path)), count))


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
    """Names of the images that lie in a folder itself, sorted, without the masks of others among them."""
    images = [name for name in os.listdir(folder) if is_image(name) and not is_clutter(name)]
    return sorted(set(images).difference(masks_among(images)))


def subfolders(folder: Path) -> list[str]:
    """Names of the user's folders in a folder, sorted; none where there is no such folder."""
    if not folder.is_dir():
        return []
    with os.scandir(folder) as entries:
        return sorted(entry.name for entry in entries if not is_clutter(entry.name) and entry.is_dir())


def only_folder(folder: Path) -> Path | None:
    """The one folder that holds all images of a folder which has none itself, as archives unpack into; else None."""
    folders = subfolders(folder)
    return folder / folders[0] if len(folders) == 1 and not flat_images(folder) else None


def _files(folder: str, prefix: str, clutter: list[str]) -> Iterator[str]:
    """Every file below a folder; what is passed over is put into `clutter`."""
    with os.scandir(folder) as entries:
        for entry in entries:
            name = entry.name
            if is_clutter(name):
                inside = os.walk(entry.path) if entry.is_dir(follow_symlinks=False) else [("", [], [name])]
                clutter += [prefix + name for _, _, files in inside for _ in files]
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
                yield from _files(entry.path, f"{prefix}{name}/", clutter)


def _leads_back(link: str) -> bool:
    """Whether a link leads to a folder that it lies in, so that following it would never end."""
    target = os.path.join(os.path.realpath(link), "")
    return os.path.join(os.path.realpath(os.path.dirname(link)), "").startswith(target)
