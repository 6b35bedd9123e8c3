"""A picture that says where tissue is on a slide: not zero is tissue."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
from PIL import Image

from tumortrace.errors import SlideError
from tumortrace.images.tiff import MAX_PIXELS
from tumortrace.images.tiff_pages import is_tiff
from tumortrace.records.stand_ins import stand_in
from tumortrace.slides.slide import Slide
from tumortrace.slides.tissue import Tissue, tell_tissue

_MINISWHITE = 0  # photometric interpretation in which the largest number is black
_SHAPE = 0.02  # by how much the ratio of the sides may differ from the slide's


def read_tissue_mask(path: Path, slide: Slide) -> np.ndarray:
    """The mask of a slide, at the size of its picture.

    Args:
        path: A PNG or TIFF of any size that covers the whole slide, of any numbers; of colours, black is no tissue.
        slide: The slide.

    Returns:
        bool array (height, width).

    Raises:
        SlideError: It cannot be read, marks nothing, or has another shape than the slide.
    """
    marked = _read(path)
    refuse_other_shape(marked.shape[::-1], (slide.width, slide.height), path)
    if not marked.any():
        raise SlideError("a mask that is zero everywhere", where=path, expected="tissue that is not zero")
    return marked


def require_one_slide(mask: Path | None, slides: int, verb: str) -> None:
    """Refuse a mask that is given for several slides.

    Raises:
        SlideError: It is.
    """
    if mask is not None and slides > 1:
        found, remedy = f"one mask for {slides} slides", f"{verb} them one by one"
        raise SlideError(found, where=mask, expected="one slide", remedy=remedy)


def tissue_on(thumbnail: np.ndarray, resolution: float | None, marked: np.ndarray | None) -> Tissue:
    """The tissue on a thumbnail: where a mask marks it, or without one, as `tell_tissue` does."""
    if marked is None:
        return tell_tissue(thumbnail, resolution)
    return Tissue(at_size(marked, thumbnail.shape[:2]), "mask")


def refuse_other_shape(mask: tuple[int, ...], slide: tuple[int, int], path: Path) -> None:
    """Refuse a mask whose sides are of another ratio than the slide's.

    Args:
        mask: Its width and height.
        slide: Width and height of the slide.
        path: Of the mask.

    Raises:
        SlideError: They are.
    """
    (width, height), (across, down) = mask, slide
    stretch = width / height * down / across
    off = abs(width - across * height / down), abs(height - down * width / across)
    if max(stretch, 1 / stretch) > 1 + _SHAPE and min(off) > 1:  # small masks are cut to whole px
        raise SlideError(
            f"a mask of {width} x {height} px for a slide of {across} x {down} px",
            where=path,
            expected="a picture of the whole slide, of the same ratio of width to height",
            remedy="export the mask of the whole slide, turned as the slide is",
        )


def at_size(marked: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """The mask at another height and width: a px is tissue where half of it is.

    Example:
        >>> at_size(np.eye(4, dtype=bool)[:, ::-1], (2, 2)).tolist()
        [[False, True], [True, False]]
    """
    height, width = size
    share = Image.fromarray(marked.astype(np.float32)).resize((width, height), Image.Resampling.BOX)
    return np.asarray(share) >= 0.5 - 1e-6


def _read(path: Path) -> np.ndarray:
    """Where the picture is not zero, bool array (height, width)."""
    kinds = SlideError(
        "no picture that can be read as a mask", where=path, expected="a PNG or TIFF", remedy="save it as PNG"
    )
    if not path.is_file():
        raise SlideError("no such file", where=path, expected="a PNG or TIFF with the tissue", remedy="check the path")
    if there := stand_in(path):
        raise SlideError(there.found, where=path, expected="a PNG or TIFF with the tissue", remedy=there.remedy)
    try:
        if is_tiff(path):
            return _of_tiff(path)
        with Image.open(path, formats=("PNG",)) as image:
            if image.width * image.height > MAX_PIXELS:
                raise _too_large(path, image.width, image.height)
            opaque = np.asarray(image.getchannel("A")) > 0 if "A" in image.getbands() else True
            values = np.asarray(image.convert("RGB") if image.mode == "RGBA" else image)
            values = values[..., 0] if image.mode == "LA" else values
    except (OSError, ValueError, Image.DecompressionBombError):
        raise kinds from None
    return np.asarray((values.max(2) if values.ndim == 3 else values) != 0) & opaque


def _of_tiff(path: Path) -> np.ndarray:
    """The largest level that fits into memory."""
    with tifffile.TiffFile(path) as tiff:
        levels = tiff.series[0].levels
        pages: list[Any] = [level.pages[0] for level in levels]
        fitting = [page for page in pages if page.imagewidth * page.imagelength <= MAX_PIXELS]
        if not fitting:
            raise _too_large(path, pages[0].imagewidth, pages[0].imagelength)
        values = None
        with suppress(Exception):  # damaged files make decoders raise nearly anything
            page = fitting[0].aspage()
            values = page.asarray()
        if values is None:
            raise ValueError
        if values.ndim == 3:
            values = np.moveaxis(values, 0, -1) if int(page.planarconfig) == 2 else values
            colours = values.shape[2] - len(page.extrasamples or ())
            values = values[..., :colours].max(2)
        if int(page.photometric) == _MINISWHITE:
            return values != (True if values.dtype == bool else np.iinfo(values.dtype).max)
        return np.nan_to_num(values) != 0


def _too_large(path: Path, width: int, height: int) -> SlideError:
    return SlideError(
        f"a mask of {width} x {height} px",
        where=path,
        expected=f"at most {MAX_PIXELS // 10**6} megapixels",
        remedy="save it smaller; 8 um per pixel are enough",
    )
