"""TIFF slides that OpenSlide does not know, reads wrongly, or reads to the same pixels in more time.

OME pyramids, levels in SubIFDs, more than 8 bits, colours as pages, rare compressions; and plain pyramids of no vendor,
which take it 1.4 to 11 times as long (docs/slides.md). Vendors' files are left to OpenSlide.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from contextlib import suppress
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import tifffile

from tumortrace.errors import ImageError, SlideError
from tumortrace.images.decoding import MAX_PIXELS
from tumortrace.images.depth import depth_of
from tumortrace.images.readers import Level, levels_of
from tumortrace.images.tiff import Pixels
from tumortrace.images.tiff_pages import is_tiff, orientation_of, refuse_incomplete

RANK = 10
SUFFIXES = (".tif", ".tiff")
_GENERIC = "generic-tiff"  # OpenSlide's name for tiled TIFFs of no vendor
_KEPT = 32 << 20  # bytes of decoded tiles that are kept, as many as OpenSlide keeps
_SAMPLES, _SQUARE = 8, 512  # squares across and down, and their side in px, by which it is told how many bits are used


class TiffReader:
    """See `Reader`; reads the tiles or strips that a region touches."""

    in_memory = False

    def __init__(self, path: Path, tiff: tifffile.TiffFile, pixels: Pixels, bits: int | None) -> None:
        self._path, self._tiff, self._pixels, self._lock = path, tiff, pixels, threading.Lock()
        self._kept: dict[tuple[int, int], tuple[np.ndarray, tuple[int, int]]] = {}  # the last used at the end
        self._lies, self.kind, self.planes = pixels.orientation >= 5, pixels.kind, pixels.planes
        turned = slice(None, None, -1) if self._lies else slice(None)
        self.levels = levels_of([(pages[0].imagewidth, pages[0].imagelength)[turned] for pages in pixels.levels])
        self.part = (0, 0, self.levels[0].width, self.levels[0].height)
        self.resolution = pixels.resolution and (pixels.resolution[self._lies], pixels.resolution[not self._lies])
        self.properties: Mapping[str, str] = {"description": pixels.page.description}
        turned_so = f"turned as its orientation tag ({pixels.orientation}) says: x and y count in the upright picture"
        self._said = bits
        deep, self.bits = self._depth()
        self.notes = tuple(note for note in (pixels.note, deep, turned_so if pixels.orientation != 1 else "") if note)

    def read_region(self, level: int, x: int, y: int, width: int, height: int) -> np.ndarray:
        """See `Reader`."""
        result = np.full((height, width, 3), 255, np.uint8)
        inside = [max(0, x), max(0, y), min(self.levels[level].width, x + width)]
        inside.append(min(self.levels[level].height, y + height))
        left, top, right, bottom = inside
        if left >= right or top >= bottom:
            return result
        stored = self._stored(self.levels[level], left, top, right, bottom)
        try:
            planes = [self._samples(page, *stored) for page in self._pixels.levels[level]]
            rgb = self._pixels.upright(self._pixels.to_rgb(np.concatenate(planes, axis=2)))
        except ImageError as error:
            remedy = error.remedy if self._said is None or self._pixels.stated else f"correct --bits {self._said}"
            raise SlideError(error.found, where=self._path, expected=error.expected, remedy=remedy) from error
        except Exception as error:  # damaged files make decoders raise nearly anything
            found = f"damaged at x {x}, y {y} of level {level} ({' '.join(str(error).split())[:160]})"
            raise SlideError(found, where=self._path, remedy="copy or scan the slide again") from error
        result[top - y : bottom - y, left - x : right - x] = rgb
        return result

    def close(self) -> None:
        """See `Reader`."""
        self._tiff.close()

    def _depth(self) -> tuple[str, int]:
        """Settle the value of white: a note on it, and the bits that are likely where nothing states them.

        Without a statement, squares of the smallest level tell how far the numbers go.
        """
        pages, settled = self._pixels.levels[-1], self._pixels.stated
        if settled or pages[0].dtype.kind not in "ui" or pages[0].dtype.itemsize == 1:
            return "", 0
        wide, high = pages[0].imagewidth, pages[0].imagelength
        places = [
            [*np.unique(np.linspace(0, max(0, side - _SQUARE), min(_SAMPLES, -(-side // _SQUARE)), dtype=int))]
            for side in (wide, high)
        ]
        # the highest number and the lowest of each square are enough
        ends: list[np.ndarray] = []
        for x, y in product(*places):
            for page in pages:
                square = self._samples(page, x, y, min(wide, x + _SQUARE), min(high, y + _SQUARE))
                square = self._pixels.colours_of(square)
                ends += [square.max(), square.min()]
        depth = depth_of(np.array(ends), self._pixels.top, stated=False, bits=self._said, path=self._path)
        self._pixels.top = depth.top
        return depth.note, depth.likely

    def _stored(self, level: Level, left: int, top: int, right: int, bottom: int) -> tuple[int, int, int, int]:
        """Where a region of the upright picture lies in the stored one: what `Pixels.upright` does, backwards."""
        if self._pixels.orientation in (2, 3, 6, 7):
            left, right = level.width - right, level.width - left
        if self._pixels.orientation in (3, 4, 7, 8):
            top, bottom = level.height - bottom, level.height - top
        return (top, left, bottom, right) if self._lies else (left, top, right, bottom)

    def _samples(self, page: Any, left: int, top: int, right: int, bottom: int) -> np.ndarray:
        """Stored samples of a region of one page, shape (height, width, samples)."""
        planes = page.samplesperpixel if int(page.planarconfig) == 2 else 1
        result = np.zeros((bottom - top, right - left, page.samplesperpixel), page.dtype)
        for number, plane in self._segments(page, left, top, right, bottom, planes):
            piece, first = self._segment(page, number)
            starts = [max(near, edge) for near, edge in zip((top, left), first, strict=True)]
            ends = [min(far, edge + n) for far, edge, n in zip((bottom, right), first, piece.shape, strict=False)]
            rows, columns = (slice(a - edge, b - edge) for a, b, edge in zip(starts, ends, first, strict=True))
            to = [slice(a - near, b - near) for a, b, near in zip(starts, ends, (top, left), strict=True)]
            samples = slice(None) if planes == 1 else slice(plane, plane + 1)
            result[(*to, samples)] = piece[rows, columns]
        return result

    def _segment(self, page: Any, number: int) -> tuple[np.ndarray, tuple[int, int]]:
        """Samples of a tile or strip, and its row and column; kept, as the next region touches most of them again."""
        key = page.offset, number
        with self._lock:
            if (kept := self._kept.pop(key, None)) is not None:
                self._kept[key] = kept
                return kept
            self._tiff.filehandle.seek(page.dataoffsets[number])
            data = self._tiff.filehandle.read(page.databytecounts[number])
        segment, place, shape = page.decode(data, number, jpegtables=page.jpegtables)
        if segment is None:
            raise ValueError(f"tile {number} is missing")
        decoded = segment[0, : shape[1], : shape[2]], (place[-3], place[-2])
        with self._lock:
            self._kept[key] = decoded
            while len(self._kept) > _KEPT // segment.nbytes:
                del self._kept[next(iter(self._kept))]
        return decoded

    @staticmethod
    def _segments(page: Any, left: int, top: int, right: int, bottom: int, planes: int) -> Iterator[tuple[int, int]]:
        """Numbers of the tiles or strips that a region touches, each with its plane of samples."""
        high, wide = (page.tilelength, page.tilewidth) if page.is_tiled else (page.rowsperstrip, page.imagewidth)
        high = min(high, page.imagelength)
        across, down = -(-page.imagewidth // wide), -(-page.imagelength // high)
        for plane in range(planes):
            for row in range(top // high, (bottom - 1) // high + 1):
                for column in range(left // wide, (right - 1) // wide + 1):
                    yield (plane * down + row) * across + column, plane


def open_reader(path: Path, bits: int | None = None, plane: int | None = None) -> TiffReader | None:
    """The slide, or None for what is no TIFF, a vendor's, small, or read rightly by the other readers.

    Raises:
        SlideError: Parts of the file are missing, its channels are no colours, or it has no such plane.
    """
    if not is_tiff(path):
        return None
    vendor = _vendor(path)
    try:
        tiff = tifffile.TiffFile(path)
    except Exception:  # no page that could be read: the next reader says what is the matter
        return None
    taken = False
    try:
        if vendor not in (None, _GENERIC):
            _refuse_cut_off(tiff, path)
            _refuse_turned(tiff, path)
            return None
        pixels = Pixels(tiff, path, plane)
        refuse_incomplete([page for pages in pixels.levels for page in pages], path)
        page = pixels.page
        large = page.is_tiled or len(pixels.levels) > 1 or page.imagewidth * page.imagelength > MAX_PIXELS
        whole_strips = page.is_tiled or page.rowsperstrip * page.imagewidth <= MAX_PIXELS
        ome = tiff.is_ome and (len(pixels.levels) > 1 or pixels.resolution is not None) and page.is_tiled
        other = pixels.orientation != 1 or pixels.note or not pixels.usual  # OpenSlide does not look at these
        taken = large and whole_strips and (vendor is None or ome or bool(other) or _plain(pixels))
        return TiffReader(path, tiff, pixels, bits) if taken else None
    except ImageError as error:
        raise SlideError(error.found, where=path, expected=error.expected, remedy=error.remedy) from error
    except SlideError:
        raise
    except Exception as error:  # tags that break the format may raise anything
        if taken:
            found = f"damaged ({' '.join(str(error).split())[:160]})"
            raise SlideError(found, where=path, remedy="copy or scan the slide again") from error
        return None  # the next reader says what is the matter
    finally:
        if not taken:
            tiff.close()


def _plain(pixels: Pixels) -> bool:
    """Whether each level is a tiled page that says so, of samples that tifffile and libtiff take alike.

    YCbCr that is not JPEG is not: tifffile gives it as it is stored.
    """
    pages = [page for level in pixels.levels for page in level]
    return all(page.is_reduced for page in pages[1:]) and all(
        page.is_tiled
        and int(page.planarconfig) == 1
        and page.samplesperpixel in (1, 3)
        and (int(page.photometric) in (1, 2) or int(page.compression) == 7)
        for page in pages
    )


def _vendor(path: Path) -> str | None:
    """What OpenSlide takes the file for; None where it does not know it, or is not installed."""
    with suppress(Exception):
        import openslide

        vendor: str | None = openslide.OpenSlide.detect_format(path)
        return vendor
    return None


def _refuse_cut_off(tiff: tifffile.TiffFile, path: Path) -> None:
    """Refuse a vendor's file whose tiles lie beyond its end; some vendors leave out empty tiles, which is no fault."""
    size = path.stat().st_size
    for page in tiff.pages:
        offsets, counts = (np.asarray(values) for values in (page.dataoffsets, page.databytecounts))
        number = min(len(offsets), len(counts))
        lost = int((offsets[:number] + counts[:number] > size).sum())
        if lost:
            found = f"incomplete: {lost} of {number} tiles lie beyond the end of the file"
            raise SlideError(found, where=path, expected="a complete file", remedy="copy it again")


def _refuse_turned(tiff: tifffile.TiffFile, path: Path) -> None:
    """Refuse a vendor's file whose tag says that it is turned: OpenSlide mirrors each tile."""
    number = orientation_of(tiff.pages.first)
    if number != 1:
        raise SlideError(
            f"its orientation tag ({number}) says that the picture is turned, and OpenSlide mirrors each tile by it",
            where=path,
            expected="an upright slide",
            remedy="take the tag away (`tiffset -s 274 1 FILE`) where viewers show it upright, or convert it",
        )
