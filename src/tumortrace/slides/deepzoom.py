"""A slide as a Deep Zoom pyramid: the square JPEG tiles that viewers such as OpenSeadragon pan and zoom over."""

from __future__ import annotations

import io
import math
import threading

import numpy as np
from PIL import Image

from tumortrace.errors import SlideError
from tumortrace.slides.reading import Slide

TILE, OVERLAP, QUALITY = 254, 1, 85
_BASE = 1024  # px; what is no longer than this is made from one picture of the whole slide


class DeepZoom:
    """The tiles of one slide.

    Every level has half the size of the next, rounded up; the last is the slide at full resolution and level 0 a single
    px. A tile repeats `OVERLAP` px of its neighbours, so that no seam shows. Pixels come from `Slide.read_region`, so
    slides and plain images, with or without levels of their own, look alike. Tiles may be made in several threads.

    Args:
        slide: The slide, open as long as tiles are wanted.

    Attributes:
        levels: How many there are.

    Example:
        >>> import tempfile
        >>> from pathlib import Path
        >>> file = Path(tempfile.mkdtemp()) / "a.png"
        >>> Image.new("RGB", (300, 200), "purple").save(file)
        >>> with Slide(file) as slide:
        ...     zoom = DeepZoom(slide)
        ...     zoom.levels, zoom.grid(9), Image.open(io.BytesIO(zoom.tile(9, 1, 0))).size
        (10, (2, 1), (47, 200))
    """

    def __init__(self, slide: Slide) -> None:
        self._slide = slide
        self.levels = math.ceil(math.log2(max(slide.width, slide.height))) + 1
        self._base: np.ndarray | None = None
        self._lock = threading.Lock()

    def descriptor(self) -> str:
        """The pyramid's description as XML, what a viewer asks for first."""
        return (
            '<?xml version="1.0" encoding="UTF-8"?>\n'
            f'<Image xmlns="http://schemas.microsoft.com/deepzoom/2008" Format="jpeg" TileSize="{TILE}" '
            f'Overlap="{OVERLAP}"><Size Width="{self._slide.width}" Height="{self._slide.height}"/></Image>\n'
        )

    def size(self, level: int) -> tuple[int, int]:
        """Width and height of a level in px."""
        factor = 1 << (self.levels - 1 - level)
        return -(-self._slide.width // factor), -(-self._slide.height // factor)

    def grid(self, level: int) -> tuple[int, int]:
        """Columns and rows of tiles of a level."""
        width, height = self.size(level)
        return -(-width // TILE), -(-height // TILE)

    def has(self, level: int, column: int, row: int) -> bool:
        """Whether there is such a tile."""
        if not 0 <= level < self.levels:
            return False
        columns, rows = self.grid(level)
        return 0 <= column < columns and 0 <= row < rows

    def tile(self, level: int, column: int, row: int) -> bytes:
        """One tile as a JPEG without metadata.

        Raises:
            SlideError: There is no such tile, or the file is damaged there.
        """
        if not self.has(level, column, row):
            raise SlideError(
                f"no tile {column}, {row} at level {level}", where=self._slide.name, remedy="ask for one of its tiles"
            )
        left, right = _span(column, self.size(level)[0])
        top, bottom = _span(row, self.size(level)[1])
        if max(self.size(level)) <= _BASE:
            pixels = self._small_level(level)[top:bottom, left:right]
        else:
            factor = 1 << (self.levels - 1 - level)
            x, y = left * factor, top * factor
            width = min(right * factor, self._slide.width) - x
            height = min(bottom * factor, self._slide.height) - y
            pixels = self._slide.read_region(x, y, width, height, size=(right - left, bottom - top))
        with io.BytesIO() as file:
            Image.fromarray(np.ascontiguousarray(pixels)).save(file, "JPEG", quality=QUALITY, subsampling=0)
            return file.getvalue()

    def _small_level(self, level: int) -> np.ndarray:
        """A whole level that fits into one picture; a slide without levels of its own is read for them only once."""
        with self._lock:
            if self._base is None:
                largest = max(number for number in range(self.levels) if max(self.size(number)) <= _BASE)
                slide = self._slide
                self._base = slide.read_region(0, 0, slide.width, slide.height, size=self.size(largest))
        if self._base.shape[1::-1] == self.size(level):
            return self._base
        return np.asarray(Image.fromarray(self._base).resize(self.size(level), Image.Resampling.LANCZOS))


def _span(index: int, length: int) -> tuple[int, int]:
    """Where a tile begins and ends along one side, its overlap with the neighbours included."""
    return max(0, index * TILE - OVERLAP), min(length, (index + 1) * TILE + OVERLAP)
