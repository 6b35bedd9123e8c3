"""Slides that OpenSlide knows: Aperio, Hamamatsu, Leica, MIRAX, Philips, Ventana, DICOM, tiled TIFF and others."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from scipy.signal import lfilter

from tumortrace.errors import MissingDependencyError, SlideError
from tumortrace.images.readers import levels_of

RANK = 30
SUFFIXES = (".bif", ".czi", ".mrxs", ".ndpi", ".scn", ".svs", ".svslide", ".vms", ".vmu")
_AROUND = 8  # px read around a region to undo an interpolation, whose error falls to a third or less from px to px
_SHARP = 1 / 64  # px of a level: what is interpolated by less stays as it is


class OpenSlideReader:
    """See `Reader`."""

    in_memory = False
    notes: tuple[str, ...] = ()
    bits = 0  # OpenSlide gives 8 each
    kind = "RGB"
    planes = 1  # which it does not tell apart

    def __init__(self, path: Path, slide: Any) -> None:
        self._path, self._slide = path, slide
        self._factors = tuple(map(float, slide.level_downsamples))  # by which OpenSlide addresses its levels
        self.levels = levels_of(list(slide.level_dimensions))
        self.properties: Mapping[str, str] = dict(slide.properties)
        self.part = _scanned_part(self.properties, *slide.dimensions)
        self.resolution = None
        with suppress(KeyError, ValueError):
            self.resolution = (float(self.properties["openslide.mpp-x"]), float(self.properties["openslide.mpp-y"]))

    def read_region(self, level: int, x: int, y: int, width: int, height: int) -> np.ndarray:
        """See `Reader`.

        OpenSlide takes a corner in whole px of level 0, and interpolates bilinearly where these are no whole px of the
        level: neighbouring tiles came out sharp or soft by their place. The nearest corner is asked for, and what is
        left of the interpolation is undone.
        """
        factor = self._factors[level]
        corner = round(x * factor), round(y * factor)
        off = [place / factor - wanted for place, wanted in zip(corner, (x, y), strict=True)]
        if max(map(abs, off)) < _SHARP:
            return np.asarray(self._read(corner, level, (width, height)))
        corner = round((x - _AROUND) * factor), round((y - _AROUND) * factor)
        off = [place / factor - (wanted - _AROUND) for place, wanted in zip(corner, (x, y), strict=True)]
        pixels = np.asarray(self._read(corner, level, (width + 2 * _AROUND, height + 2 * _AROUND)), np.float32)
        for axis, amount in ((1, off[0]), (0, off[1])):
            pixels = _uninterpolated(pixels, amount, axis)
        inside = pixels[_AROUND : _AROUND + height, _AROUND : _AROUND + width]
        return np.rint(inside.clip(0, 255)).astype(np.uint8)

    def close(self) -> None:
        """See `Reader`."""
        self._slide.close()

    def _read(self, corner: tuple[int, int], level: int, size: tuple[int, int]) -> Image.Image:
        import openslide

        try:
            image = self._slide.read_region(corner, level, size)
        except openslide.OpenSlideError as error:
            raise SlideError(
                f"damaged at x {corner[0]}, y {corner[1]} ({error})",
                where=self._path,
                remedy="copy or scan the slide again",
            ) from error
        white = Image.new("RGB", image.size, (255, 255, 255))
        white.paste(image, mask=image.getchannel("A"))
        return white


def open_reader(path: Path, bits: int | None = None, plane: int | None = None) -> OpenSlideReader | None:
    """The slide, or None where OpenSlide does not know the format."""
    try:
        import openslide
    except ImportError as error:
        raise MissingDependencyError(
            f"slides need OpenSlide ({error})", where=path, remedy="pip install openslide-python openslide-bin"
        ) from error
    try:
        return OpenSlideReader(path, openslide.OpenSlide(path))
    except openslide.OpenSlideUnsupportedFormatError:
        return None
    except openslide.OpenSlideError as error:
        raise SlideError(f"cannot be read ({error})", where=path, remedy="copy or convert the slide again") from error


def _scanned_part(properties: Mapping[str, str], width: int, height: int) -> tuple[int, int, int, int]:
    """Left, top, width and height of what was scanned, where the file says it and it can be."""
    try:
        x, y, across, down = (int(properties[f"openslide.bounds-{name}"]) for name in ("x", "y", "width", "height"))
    except (KeyError, ValueError):
        return 0, 0, width, height
    inside = 0 <= x < x + across <= width and 0 <= y < y + down <= height
    return (x, y, across, down) if inside else (0, 0, width, height)


def _uninterpolated(pixels: np.ndarray, off: float, axis: int) -> np.ndarray:
    """Pixels before they were read `off` of a pixel (-.5 to .5) further along an axis, by linear interpolation.

    Each value read is (1 - off) of its pixel and off of the next (the one before, where `off` is negative); solved
    from the far end, so that an error there dies out.
    """
    if abs(off) < _SHARP:
        return pixels
    share = abs(off) / (1 - abs(off))
    ahead = np.flip(pixels, axis) if off > 0 else pixels
    # as if what lies beyond the end repeated it
    start = -share * np.take(ahead, [0], axis)
    solved, _ = lfilter([1 + share], [1, share], ahead, axis=axis, zi=start)
    return np.flip(solved, axis) if off > 0 else solved
