"""Label masks: a picture of the whole slide whose values are classes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import shapely
import tifffile
from PIL import Image
from shapely.affinity import translate
from shapely.geometry.base import BaseGeometry

from tumortrace.errors import SlideError
from tumortrace.images.tiff import MAX_PIXELS
from tumortrace.images.tiff_pages import is_tiff
from tumortrace.slides.annotations.region import Region, polygonal
from tumortrace.slides.annotations.tracing import trace
from tumortrace.slides.tissue_mask import refuse_other_shape

TUMOUR = "tumor"
"""What a mask of two values, 0 and the largest there can be, marks."""

_MOST = 256  # classes; more are the shades of a photograph
_MINISWHITE = 0


class _Piece(NamedTuple):
    """A part of the mask: its upper left corner, and integers (height, width)."""

    x: int
    y: int
    values: np.ndarray


def read_label_mask(path: Path, size: tuple[int, int], notes: list[str]) -> list[Region]:
    """One region for each value but 0, called by its number; for arguments and errors see `read_annotations`.

    A mask of 0 and 255 (of 16 bits 65535, of one bit 1) marks tumour.
    """
    try:
        (width, height), most, pieces = _tiff(path) if is_tiff(path) else _png(path)
        refuse_other_shape((width, height), size, path)
        areas = _areas(path, pieces)
    except (OSError, EOFError, IndexError, KeyError, ValueError, Image.DecompressionBombError, RuntimeError) as error:
        why = str(error) or type(error).__name__
        raise SlideError(
            f"no picture that can be read as a mask ({why})",
            where=path,
            expected="a PNG or TIFF",
            remedy="save it as PNG",
        ) from None
    scale = size[0] / width, size[1] / height
    regions = []
    for value, area in sorted(areas.items()):
        marked = polygonal(shapely.transform(area, lambda points: points * scale))
        assert marked is not None  # it has a px at least
        regions.append(Region(TUMOUR if list(areas) == [most] else str(value), marked))
    if regions and (width, height) != size:
        notes.append(f"a mask of {width} x {height} px: one is {scale[0]:.4g} px of the slide")
    return regions


def _areas(path: Path, pieces: Iterator[_Piece]) -> dict[int, BaseGeometry]:
    """What has each value but 0, in px of the mask."""
    parts: dict[int, list[BaseGeometry]] = {}
    for x, y, piece in pieces:
        values = [int(value) for value in np.unique(piece) if value]
        for value in values:
            parts.setdefault(value, []).append(translate(trace(piece == value), x, y))
            if len(parts) > _MOST:
                raise SlideError(
                    f"more than {_MOST} values",
                    where=path,
                    expected="a mask whose values are classes",
                    remedy="save it without lossy compression and without smoothing",
                )
    return {value: areas[0] if len(areas) == 1 else shapely.union_all(areas) for value, areas in parts.items()}


def _png(path: Path) -> tuple[tuple[int, int], int, Iterator[_Piece]]:
    """Size, largest possible value, and the whole as one piece."""
    with Image.open(path, formats=("PNG",)) as image:
        if image.width * image.height > MAX_PIXELS:
            raise _too_large(path, image.width, image.height)
        opaque = np.asarray(image.getchannel("A")) > 0 if "A" in image.getbands() else None
        values = np.asarray(image.convert("RGB") if image.mode == "RGBA" else image)
    values = values[..., 0] if values.ndim == 3 and values.shape[2] == 2 else values
    most = 1 if values.dtype == bool else 65535 if values.dtype != np.uint8 else 255
    values = _one_channel(path, values)
    values = values if opaque is None else np.where(opaque, values, 0)
    return (values.shape[1], values.shape[0]), most, iter([_Piece(0, 0, values)])


def _tiff(path: Path) -> tuple[tuple[int, int], int, Iterator[_Piece]]:
    """Size, largest possible value, and the tiles or strips of the first page, one after the other.

    Smaller levels are not read: many are blends, which are no classes.
    """
    with tifffile.TiffFile(path) as tiff:
        page: Any = tiff.series[0].levels[0].pages[0]
        page = page.aspage()
        width, height, dtype = page.imagewidth, page.imagelength, page.dtype
    if dtype is None or int(page.planarconfig) == 2:
        raise ValueError("pixels of several planes")
    most = 1 if page.bitspersample == 1 else 0 if dtype.kind == "f" else int(np.iinfo(dtype).max)
    return (width, height), most, _segments(path, int(page.photometric) == _MINISWHITE, most)


def _segments(path: Path, inverted: bool, most: int) -> Iterator[_Piece]:
    with tifffile.TiffFile(path) as tiff:
        page: Any = tiff.series[0].levels[0].pages[0]
        page = page.aspage()
        colours = page.samplesperpixel - len(page.extrasamples or ())
        for segment, (_, _, y, x, _), (_, high, wide, _) in page.segments():
            if segment is None:  # a tile that was never written
                continue
            values = _one_channel(path, np.asarray(segment)[0, :high, :wide, :colours])
            yield _Piece(x, y, most - values if inverted else values)


def _one_channel(path: Path, values: np.ndarray) -> np.ndarray:
    """Whole numbers (height, width); of colours, where they are shades of grey."""
    if values.ndim == 3:
        if (values != values[..., :1]).any():
            raise SlideError(
                "a mask of colours",
                where=path,
                expected="one channel, whose values are classes",
                remedy="save the classes' numbers",
            )
        values = values[..., 0]
    if values.dtype.kind == "f":
        whole = np.nan_to_num(values)
        if (whole != np.rint(whole)).any():
            raise SlideError("a mask of fractions", where=path, expected="whole numbers, which are classes")
        values = whole
    return values.astype(np.int64)


def _too_large(path: Path, width: int, height: int) -> SlideError:
    return SlideError(
        f"a PNG of {width} x {height} px",
        where=path,
        expected=f"at most {MAX_PIXELS // 10**6} megapixels",
        remedy="save it as tiled TIFF, or smaller",
    )
