"""A level of a slide at a half, a quarter or an eighth of its size, without decoding its pixels.

JPEG keeps blocks of 8 x 8 px by their mean and how they vary around it. For a small picture the mean is all that is
needed: it takes an eighth of the time that decoding takes and resampling what was decoded.
"""

from __future__ import annotations

import io
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
from PIL import Image

from tumortrace.errors import SlideError
from tumortrace.images.readers import Level, Reader, cut
from tumortrace.images.tiff_pages import is_tiff, orientation_of

_JPEG, _GREY, _RGB, _YCBCR = 7, 1, 2, 6  # compression; photometric interpretations
_START, _END, _SCAN, _APPLICATION = b"\xff\xd8", b"\xff\xd9", 0xDA, range(0xE0, 0xF0)  # markers of a JPEG stream
_SQUARE, _APART = 32, 4.0  # px, and mean levels by which its colours may differ
_ADOBE = b"\xff\xee\x00\x0eAdobe\x00\x64\x00\x00\x00\x00"  # a segment whose next byte says whether RGB became YCbCr


class ShrunkReader:
    """A `Reader` of one level, whose px are the means of `by` x `by` px of a tiled JPEG page of a TIFF.

    Args:
        tiff: The opened file; closed with the reader.
        page: Of it, one that `shrunk` takes.
        level: The slide's level that it is.
        by: 2, 4 or 8.
    """

    in_memory = False
    notes: tuple[str, ...] = ()
    bits = 0
    kind = "RGB"
    planes = 1
    resolution: tuple[float, float] | None = None
    properties: Mapping[str, str] = {}

    def __init__(self, tiff: tifffile.TiffFile, page: Any, level: Level, by: int) -> None:
        self._tiff, self._page, self._by = tiff, page, by
        width, height, across, down = level
        smaller = Level(max(1, width // by), max(1, height // by), across * by, down * by)
        self.levels: tuple[Level, ...] = (smaller,)
        self.part = (0, 0, smaller.width, smaller.height)

    def read_region(self, level: int, x: int, y: int, width: int, height: int) -> np.ndarray:
        """See `Reader`."""
        high, wide = self._page.tilelength // self._by, self._page.tilewidth // self._by
        across, down = -(-self._page.imagewidth // self._page.tilewidth), -(-self._page.imagelength // high // self._by)
        rows = range(max(0, y // high), min(down, -(-(y + height) // high)))
        columns = range(max(0, x // wide), min(across, -(-(x + width) // wide)))
        canvas = np.full((len(rows) * high, len(columns) * wide, 3), 255, np.uint8)
        for row in rows:
            for column in columns:
                tile = self._tile(row * across + column)[:high, :wide]
                top, left = (row - rows[0]) * high, (column - columns[0]) * wide
                canvas[top : top + len(tile), left : left + tile.shape[1]] = tile
        if not len(canvas) or not canvas.shape[1]:
            return np.full((height, width, 3), 255, np.uint8)
        first, (most_wide, most_high) = (columns[0] * wide, rows[0] * high), self.levels[0][:2]
        canvas = canvas[: most_high - first[1], : most_wide - first[0]]
        return cut(canvas, x - first[0], y - first[1], width, height)

    def close(self) -> None:
        """See `Reader`."""
        self._tiff.close()

    def _tile(self, number: int) -> np.ndarray:
        """A tile, shrunk; white where the file leaves it out."""
        page = self._page
        size = page.tilewidth // self._by, page.tilelength // self._by
        if not page.databytecounts[number]:
            return np.full((*size[::-1], 3), 255, np.uint8)
        self._tiff.filehandle.seek(page.dataoffsets[number])
        data = self._tiff.filehandle.read(page.databytecounts[number])
        try:
            image = Image.open(io.BytesIO(_stream(data, page.jpegtables, int(page.photometric))), formats=("JPEG",))
            image.draft(None, size)
            return np.asarray(image.convert("RGB"))
        except Exception as error:  # damaged streams make decoders raise nearly anything
            found = f"damaged in tile {number} ({' '.join(str(error).split())[:160]})"
            where = self._tiff.filehandle.path
            raise SlideError(found, where=where, remedy="copy or scan the slide again") from error


def shrunk(path: Path, reader: Reader, number: int, factor: float) -> ShrunkReader | None:
    """A level of a slide, made smaller, or None where that would not do: it is no tiles of JPEG, or says other colours.

    Args:
        path: The slide's file.
        reader: Of the slide.
        number: Of its level.
        factor: Px of the level to one that is wanted; it is made half as many times smaller, at most, so that what is
            left is resampled well.
    """
    by = next((by for by in (8, 4, 2) if 2 * by <= factor), 1)
    if by == 1 or not is_tiff(path):
        return None
    small = None
    with suppress(Exception):  # which its own reader knows how to read
        tiff = tifffile.TiffFile(path)
        try:
            page = next((page for page in tiff.pages if _fits(page, reader.levels[number])), None)
            opened = None if page is None else ShrunkReader(tiff, page, reader.levels[number], by)
            small = opened if opened and _agrees(opened, reader, number, by) else None
        finally:
            if small is None:
                tiff.close()
    return small


def _agrees(small: ShrunkReader, reader: Reader, number: int, by: int) -> bool:
    """Whether squares on the diagonal are as the reader gives them, which may weigh otherwise what a file says."""
    width, height = small.levels[0][:2]
    side = min(_SQUARE, width, height)
    for share in (0.25, 0.5, 0.75):
        x, y = (round((length - side) * share) for length in (width, height))
        whole = reader.read_region(number, x * by, y * by, side * by, side * by)
        means = whole.reshape(side, by, side, by, 3).mean((1, 3))
        if np.abs(means - small.read_region(0, x, y, side, side)).mean() > _APART:
            return False
    return True


def _fits(page: Any, level: Level) -> bool:
    """Whether a page is the level's, of tiles that `_stream` makes whole."""
    return (page.imagewidth, page.imagelength) == (level.width, level.height) and bool(
        page.is_tiled
        and int(page.compression) == _JPEG
        and page.bitspersample == 8
        and int(page.planarconfig) == 1
        and (page.samplesperpixel, int(page.photometric)) in ((1, _GREY), (3, _RGB), (3, _YCBCR))
        and orientation_of(page) == 1
    )


def _stream(data: bytes, tables: bytes | None, photometric: int) -> bytes:
    """A tile's JPEG stream by itself: with the tables that all tiles share, and its colours as the page says.

    What the tile says of its colours is left out: writers of slides copy it from elsewhere.
    """
    at, kept = 2, [_START, _ADOBE + bytes([photometric == _YCBCR]), (tables or b"")[2:].removesuffix(_END)]
    while data[at + 1] != _SCAN:
        end = at + 2 + int.from_bytes(data[at + 2 : at + 4], "big")
        if data[at + 1] not in _APPLICATION:
            kept.append(data[at:end])
        at = end
    return b"".join([*kept, data[at:]])
