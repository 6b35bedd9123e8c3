"""What the pages of a TIFF state of themselves: which is the picture, how it is turned, its scale, what is missing."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree

import numpy as np

from tumortrace.errors import ImageError

if TYPE_CHECKING:
    from tifffile import TiffFile

UNITS = {"pm": 1e-6, "Å": 1e-4, "nm": 1e-3, "µm": 1.0, "um": 1.0, "micron": 1.0, "microns": 1.0, "mm": 1e3, "cm": 1e4}
UNITS |= {"m": 1e6, "in": 25400.0, "inch": 25400.0, "inches": 25400.0}
"""Micrometres of a unit, as OME and ImageJ spell it."""

_MAGIC = (b"II*\x00", b"MM\x00*", b"II+\x00", b"MM\x00+")
_ORIENTATION = 274  # a tag
_ASPECT = 0.02  # by which the shape of a thumbnail may differ from that of its picture


def is_tiff(path: str | Path) -> bool:
    """Whether a file begins as TIFF files do."""
    with open(path, "rb") as file:
        return file.read(4) in _MAGIC


def full_resolution(tiff: TiffFile) -> Any:
    """The series of pages to read: the first, or a larger one where the first page is its thumbnail.

    It is one where NewSubfileType says so, or where another has its shape and more pixels. The pages that are larger
    may stand later in the file or in SubIFDs.
    """
    first: Any = tiff.series[0]
    if tiff.is_ome or tiff.is_imagej or tiff.is_svs:
        return first
    small = _page_of(first)

    def of_it(series: Any) -> bool:
        page = _page_of(series)
        return _is_larger(page, small) and not page.is_reduced and (small.is_reduced or _of_a_shape(page, small))

    return max(filter(of_it, tiff.series[1:]), key=lambda series: series.size, default=first)


def larger_than(page: Any, tiff: TiffFile) -> Any | None:
    """The largest page that is larger than this one along both sides; None where none is.

    OME's, ImageJ's and Aperio's files say which of their pictures is the slide, and one with small copies is it.
    """
    others = [_page_of(series) for series in tiff.series]
    if tiff.is_ome or tiff.is_imagej or tiff.is_svs or len(tiff.series[0].levels) > 1:
        return None
    if any(_is_larger(page, one) and _of_a_shape(one, page) for one in others):
        return None
    larger = [one for one in others if _is_larger(one, page)]
    return max(larger, key=lambda one: one.imagewidth * one.imagelength, default=None)


def _page_of(series: Any) -> Any:
    return series.levels[0].pages[0].aspage()


def _is_larger(page: Any, other: Any) -> bool:
    """Whether a page is along both sides."""
    return bool(page.imagewidth > other.imagewidth and page.imagelength > other.imagelength)


def _of_a_shape(page: Any, other: Any) -> bool:
    one, two = page.imagewidth * other.imagelength, other.imagewidth * page.imagelength  # alike where shapes are
    return bool(abs(one - two) < _ASPECT * max(one, two))


def orientation_of(page: Any) -> int:
    """How the picture of a page is to be turned, 1 to 8; 1 is upright."""
    tag = page.tags.get(_ORIENTATION)
    return int(tag.value) if tag is not None and tag.value in range(1, 9) else 1


def of_a_microscope(resolution: float) -> float | None:
    """Um per px where tags of dots per inch can be believed: printers' and screens' (72 to 2,400 dpi) lie above.

    Example:
        >>> of_a_microscope(0.25), of_a_microscope(25400 / 2400)
        (0.25, None)
    """
    return resolution if 0.05 <= resolution < 2 else None


def refuse_incomplete(pages: list[Any], path: str | Path) -> None:
    """Refuse pages of which strips or tiles are missing or lie beyond the file's end.

    Raises:
        ImageError: Some do. Decoders make them white or black, which a model answers as if it were tissue.
    """
    size = Path(path).stat().st_size
    for page in pages:
        offsets, counts = np.asarray(page.dataoffsets), np.asarray(page.databytecounts)
        number = min(len(offsets), len(counts))
        wanted = int(np.prod(page.chunked)) if page.is_tiled else 0
        lost = max(0, wanted - number) + int((counts[:number] == 0).sum())
        lost += int(((offsets[:number] + counts[:number] > size) & (counts[:number] > 0)).sum())
        if lost or not number:
            what = "tiles" if page.is_tiled else "strips"
            found = f"incomplete: {lost or 'all'} of {max(wanted, number)} {what} are missing"
            raise ImageError(found, where=path, expected="a complete file", remedy="copy or convert it again")


def of_ome(xml: str) -> tuple[float, float] | None:
    """Um per px of the first image that states it."""
    for pixels in ElementTree.fromstring(xml).iter():
        if pixels.tag.endswith("}Pixels") and "PhysicalSizeX" in pixels.attrib:
            sizes = [
                float(pixels.attrib[f"PhysicalSize{axis}"]) * UNITS[pixels.attrib.get(f"PhysicalSize{axis}Unit", "µm")]
                for axis in "XY"
            ]
            return sizes[0], sizes[1]
    return None
