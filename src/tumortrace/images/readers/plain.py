"""Plain images that stand for a slide: PNG, JPEG, flat TIFF, at most as large as fits into memory."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

import numpy as np
import tifffile
from PIL import Image

from tumortrace.errors import ImageError, SlideError
from tumortrace.images.decoding import IMAGE_SUFFIXES, Facts, read_with_facts
from tumortrace.images.readers import cut, levels_of
from tumortrace.images.tiff import MAX_PIXELS, Pixels
from tumortrace.images.tiff_pages import is_tiff

RANK = 90  # the last: it refuses what it cannot decode
SUFFIXES = IMAGE_SUFFIXES


class PlainReader:
    """See `Reader`; decoded once, with full resolution as its only level."""

    in_memory = True

    def __init__(self, path: Path, bits: int | None, plane: int | None) -> None:
        self._pixels, facts = _decoded(path, bits, plane)
        self.bits, self.kind = facts.bits, facts.kind
        several = f"the first of {facts.frames} pictures in the file was read" if facts.frames > 1 else ""
        turned = f"turned as its orientation tag ({facts.orientation}) says" if facts.orientation != 1 else ""
        self.notes = tuple(note for note in (facts.note or several, turned) if note)
        height, width = self._pixels.shape[:2]
        self.levels = levels_of([(width, height)])
        self.part = (0, 0, width, height)
        self.properties: Mapping[str, str] = {}
        self.resolution, self.planes = _stated(path)

    def read_region(self, level: int, x: int, y: int, width: int, height: int) -> np.ndarray:
        """See `Reader`."""
        return cut(self._pixels, x, y, width, height)

    def close(self) -> None:
        """See `Reader`."""


def open_reader(path: Path, bits: int | None = None, plane: int | None = None) -> PlainReader:
    """The image.

    Raises:
        SlideError: It cannot be decoded, is too large, or has no such plane.
    """
    return PlainReader(path, bits, plane)


def _decoded(path: Path, bits: int | None, plane: int | None) -> tuple[np.ndarray, Facts]:
    try:
        return read_with_facts(path, slide=True, bits=bits, plane=plane)
    except ImageError as error:
        if error.expected and error.remedy and "tumortrace scan" not in error.remedy:  # which is what was asked for
            raise SlideError(error.found, where=path, expected=error.expected, remedy=error.remedy) from error
        raise SlideError(
            error.found,
            where=path,
            expected=f"a slide that OpenSlide knows, or an image of at most {MAX_PIXELS // 10**6} megapixels",
            remedy="check that the file is complete; `vips tiffsave IN OUT --tile --pyramid` makes a slide of an image",
        ) from error


def _stated(path: Path) -> tuple[tuple[float, float] | None, int]:
    """Um per px across and down, and planes of focus; what is not known here states none, and has one."""
    if is_tiff(path):
        with suppress(Exception), tifffile.TiffFile(path) as tiff:
            pixels = Pixels(tiff, path)
            return pixels.resolution, pixels.planes
        return None, 1
    with suppress(Exception), Image.open(path) as image:
        across, down = (25400 / float(value) for value in image.info["dpi"])
        return (across, down), 1
    return None, 1
