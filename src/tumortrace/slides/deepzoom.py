"""A slide as a Deep Zoom pyramid: the square JPEG tiles that viewers such as OpenSeadragon pan and zoom over."""

from __future__ import annotations

import io
import math
import threading
from pathlib import Path

import numpy as np
from PIL import Image

from tumortrace.errors import SlideError
from tumortrace.records.files import replacing
from tumortrace.slides.slide import Slide

TILE, OVERLAP, QUALITY = 254, 1, 85
_BASE = 1024  # px; what is no longer than this is made from one picture of the whole slide
_LARGER = 4096  # px; likewise where the file has no small levels, and zooming out would read most of it for each tile


class DeepZoom:
    """The tiles of one slide.

    Every level has half the size of the next, rounded up; the last is the slide at full resolution and level 0 a single
    px. A tile repeats `OVERLAP` px of its neighbours, so that no seam shows. Pixels come from `Slide.read_region`, so
    slides and plain images, with or without levels of their own, look alike. Tiles may be made in several threads.

    Args:
        slide: The slide, open as long as tiles are wanted.
        overview: Where `write_overview` has put a picture of the whole slide; not needed, but reading one anew takes
            as long as reading the slide.

    Attributes:
        levels: How many there are.
        lacks_levels: Whether the file has no level that would do for zooming out.

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

    def __init__(self, slide: Slide, overview: Path | None = None) -> None:
        self._slide, self._overview = slide, overview
        longest = max(slide.width, slide.height)
        self.levels = math.ceil(math.log2(longest)) + 1
        self.lacks_levels = slide.lacks_levels
        self._longest_base = _LARGER if self.lacks_levels else _BASE
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
        if max(self.size(level)) <= self._longest_base:
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

    def write_overview(self, path: Path) -> None:
        """Write the picture of the whole slide from which small levels are made, as a JPEG.

        Raises:
            SlideError: The file is damaged.
            OSError: It cannot be written.
        """
        with replacing(path) as temporary:
            Image.fromarray(self._whole()).save(temporary, "JPEG", quality=95, subsampling=0)

    def _small_level(self, level: int) -> np.ndarray:
        """A whole level that fits into one picture; a slide without levels of its own is read for them only once."""
        whole = self._whole()
        if whole.shape[1::-1] == self.size(level):
            return whole
        return np.asarray(Image.fromarray(whole).resize(self.size(level), Image.Resampling.LANCZOS))

    def _whole(self) -> np.ndarray:
        """The largest level that fits into one picture."""
        with self._lock:
            if self._base is None:
                size = self.size(max(n for n in range(self.levels) if max(self.size(n)) <= self._longest_base))
                kept = None if self._overview is None else _read_overview(self._overview, size)
                slide = self._slide
                self._base = kept if kept is not None else slide.read_region(0, 0, slide.width, slide.height, size=size)
        return self._base


def _read_overview(path: Path, size: tuple[int, int]) -> np.ndarray | None:
    """A picture kept; None where there is none of this size."""
    try:
        with Image.open(path, formats=("JPEG",)) as image:
            return np.asarray(image.convert("RGB")) if image.size == size else None
    except OSError:
        return None


def _span(index: int, length: int) -> tuple[int, int]:
    """Where a tile begins and ends along one side, its overlap with the neighbours included."""
    return max(0, index * TILE - OVERLAP), min(length, (index + 1) * TILE + OVERLAP)
