"""Whole slides and plain images behind one door: size, resolution, and regions at any scale as RGB."""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import closing
from itertools import pairwise, product
from pathlib import Path
from types import TracebackType
from typing import NamedTuple

import numpy as np
from PIL import Image

from tumortrace.cohorts.findings.forms import told_of_kind
from tumortrace.images.readers import Reader, open_reader
from tumortrace.images.shrunk import shrunk
from tumortrace.records.remote import release, require

RESOLUTIONS = (0.05, 20.0)  # um/px that a microscope scan can have; 72 or 96 dpi mean that nobody measured
_CONFIRMED = 2.0  # um/px from which on a resolution has to be confirmed: 2,400 dpi are 10.6, and nobody scans so
RESAMPLING = "lanczos, exact box"
_SQUARE = 0.1  # sides of a pixel may differ by this much before the resolution counts as unknown
_BLOCK = 4096  # largest square, in pixels of a level, that is decoded at once
_SMALL = 4096  # px; a level with no longer side is small
_GAP = 3.0  # px that are resampled to one of an overview of a slide without small levels
_LOBES = 3  # of Lanczos: how far it looks around, in px of the result


class Slide:
    """An open whole slide, or a plain image (PNG, JPEG, flat TIFF) that stands for one.

    The file is read by the first of `tumortrace.images.readers` that knows it. The label and the overview picture of a
    slide, which may name the patient, are never read. Regions may be read from several threads.

    Args:
        path: The slide's file.
        name: What to call it; the file's name where None.
        bits: Bits that its numbers hold where the file does not say, such as 12 for 12 bits stored in 16.
        plane: Number of the plane of focus to read, from 1; None for the middle one.

    Attributes:
        path, name: The file and its name.
        reader: What reads it.
        width, height: Size in px at full resolution (level 0). Where the file says which part of it was scanned
            (MIRAX and others), that part is the slide and coordinates begin at its corner, as they do in QuPath.
        resolution: Micrometres per px at level 0, or None when the file states none that can be true.
        unbelieved: Why a resolution that it states is not taken; blank where it is, or where it states none.
        coarsest: How many times smaller its smallest level is; 1 where it has no levels besides full resolution.
        notes: What was assumed while opening.

    Raises:
        SlideError: The file is missing, damaged, of no known format, too large to be read without levels, or has no
            such plane.
        MissingDependencyError: OpenSlide is not installed.

    Example:
        >>> import tempfile
        >>> file = Path(tempfile.mkdtemp()) / "a.png"
        >>> Image.new("RGB", (300, 200), "purple").save(file)
        >>> with Slide(file) as slide:
        ...     slide.width, slide.height, slide.resolution, slide.read_region(0, 0, 300, 200, size=(30, 20)).shape
        (300, 200, None, (20, 30, 3))
    """

    def __init__(
        self, path: str | Path, *, name: str | None = None, bits: int | None = None, plane: int | None = None
    ) -> None:
        self.path = Path(path)
        self.name = name or self.path.name
        require(self.path)
        self.reader = open_reader(self.path, bits, plane)
        self._left, self._top, self.width, self.height = self.reader.part
        self.coarsest = max(level.across for level in self.reader.levels)
        self.resolution, notes = _believable(self.reader.resolution)
        self.unbelieved = notes[0] if notes and self.resolution is None else ""
        kind = told_of_kind(self.reader.kind)
        self.notes = (*self.reader.notes, *([kind] if kind else []), *notes)
        # A file can open and still hold nothing readable; better said now than after the model has loaded.
        self.read_region(self.width // 2, self.height // 2, 1, 1, size=(1, 1))

    def read_region(
        self,
        x: int,
        y: int,
        width: int,
        height: int,
        *,
        size: tuple[int, int],
        level: int | None = None,
        progress: Callable[[int, int], None] | None = None,
    ) -> np.ndarray:
        """Pixels of a rectangle, read from the best level and resampled once, with antialiasing (Lanczos).

        Whole pixels of the level are read with a margin, and resampled with the exact box, so that a region comes out
        the same whatever its place and whatever is read beside it.

        Args:
            x, y: Upper left corner in level-0 px; what lies outside the slide is white.
            width, height: Size in level-0 px.
            size: Width and height of the result in px.
            level: Number of the level to read; None takes that of `level_for`.
            progress: Called with the blocks read so far and all blocks.

        Returns:
            uint8 array of shape (size[1], size[0], 3), RGB, transparency laid over white.

        Raises:
            SlideError: The file is damaged there.
        """
        number = self.level_for(min(width / size[0], height / size[1])) if level is None else level
        return self._resampled(self.reader, number, (x, y, width, height), size, progress)

    def _resampled(
        self,
        reader: Reader,
        number: int,
        region: tuple[int, int, int, int],
        size: tuple[int, int],
        progress: Callable[[int, int], None] | None,
        gap: float | None = None,
    ) -> np.ndarray:
        """Pixels of a region from a level of a reader; with a `gap`, means of whole px are resampled where many are."""
        x, y, width, height = region
        wide, high, across, down = reader.levels[number]
        result = np.empty((size[1], size[0], 3), np.uint8)
        blocks = list(product(pairwise(_edges(size[1], height / down)), pairwise(_edges(size[0], width / across))))
        for done, ((top, bottom), (left, right)) in enumerate(blocks, 1):
            columns = _Span.of(x, width, size[0], left, right, self._left, across, wide)
            rows = _Span.of(y, height, size[1], top, bottom, self._top, down, high)
            block = reader.read_region(number, columns.start, rows.start, columns.length, rows.length)
            box = (columns.near, rows.near, columns.far, rows.far)
            wanted = (right - left, bottom - top)
            resampled = Image.fromarray(block).resize(wanted, Image.Resampling.LANCZOS, box, gap)
            result[top:bottom, left:right] = np.asarray(resampled)
            if progress is not None:
                progress(done, len(blocks))
        return result

    def level_for(self, factor: float) -> int:
        """Number of the coarsest level that is no coarser than `factor`, in px of level 0 to one, give or take 1 %."""
        levels = self.reader.levels
        fine = [number for number, level in enumerate(levels) if max(level.across, level.down) <= factor * 1.01]
        return max(fine, key=lambda number: levels[number].across, default=0)

    def thumbnail(self, longest: int, progress: Callable[[int, int], None] | None = None) -> np.ndarray:
        """The whole slide as uint8 RGB whose longer side has `longest` px (fewer when the slide itself has)."""
        factor = min(1.0, longest / max(self.width, self.height))
        size = (max(1, round(self.width * factor)), max(1, round(self.height * factor)))
        region = (0, 0, self.width, self.height)
        if not self.lacks_levels:
            return self.read_region(*region, size=size, progress=progress)
        number = self.level_for(1 / factor)
        level = self.reader.levels[number]
        small = shrunk(self.path, self.reader, number, 1 / factor / max(level.across, level.down))
        if small is None:
            return self._resampled(self.reader, number, region, size, progress, _GAP)
        with closing(small):
            return self._resampled(small, 0, region, size, progress)

    @property
    def lacks_levels(self) -> bool:
        """Whether looking at all of it means reading nearly all of it at full resolution."""
        return not self.in_memory and max(self.width, self.height) / self.coarsest > _SMALL

    @property
    def in_memory(self) -> bool:
        """Whether it is a plain image, whose pixels have all been decoded."""
        return self.reader.in_memory

    def close(self) -> None:
        """Close the file; nothing can be read afterwards."""
        self.reader.close()
        release(self.path)

    def __enter__(self) -> Slide:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class _Span(NamedTuple):
    """Along one side, the whole pixels of a level to read, and the box in them to resample."""

    start: int
    length: int
    near: float
    far: float

    @classmethod
    def of(
        cls, place: int, wanted: int, pixels: int, first: int, last: int, origin: int, factor: float, most: int
    ) -> _Span:
        """For the px `first` to `last` of `pixels` that show `wanted` px of level 0 from `place` on.

        Args:
            origin: Where the slide's coordinates begin, in px of level 0.
            factor: Px of level 0 to one of the level.
            most: Px of the level.
        """
        step = wanted / pixels / factor
        near, far = ((place + origin) / factor + edge * step for edge in (first, last))
        if place + origin + wanted <= most * factor + factor:  # a level may lack the rest that its factor leaves
            far = min(far, most)
        margin = math.ceil(_LOBES * max(1.0, step)) + 1
        # beyond the slide only as far as was asked: white would shine into its border
        start = min(math.floor(near), max(0, math.floor(near) - margin))
        end = max(math.ceil(far), min(most, math.ceil(far) + margin))
        return cls(start, end - start, near - start, far - start)


def _believable(stated: tuple[float, float] | None) -> tuple[float | None, tuple[str, ...]]:
    """Geometric mean of the stated um per px in x and y where both can be true, and what to say about it."""
    if stated is None:
        return None, ()
    x, y = stated
    if not all(RESOLUTIONS[0] <= value <= RESOLUTIONS[1] for value in (x, y)):
        return None, (f"stated resolution of {x:.4g} x {y:.4g} um/px is not a microscope's and was ignored",)
    if max(x, y) >= _CONFIRMED:
        return None, (
            f"stated resolution of {x:.4g} x {y:.4g} um/px is coarser than slides are scanned and was not believed: "
            "--resolution confirms it",
        )
    if max(x, y) > min(x, y) * (1 + _SQUARE):
        return None, (f"pixels are not square ({x:.4g} x {y:.4g} um); the stated resolution was ignored",)
    notes = (f"pixels are not quite square ({x:.4g} x {y:.4g} um); the mean was used",) if abs(x / y - 1) > 0.01 else ()
    return math.sqrt(x * y), notes


def _edges(size: int, level_pixels: float) -> list[int]:
    """Edges that cut `size` px of result into blocks of at most `_BLOCK` px of the level (or single px)."""
    blocks = min(size, max(1, math.ceil(level_pixels / _BLOCK)))
    return [round(size * block / blocks) for block in range(blocks + 1)]
