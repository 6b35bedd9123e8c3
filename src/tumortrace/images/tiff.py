"""TIFF as the field writes it: channels as pages, 9 to 32 bits, rare compressions, pyramids, resolution in XML.

Pillow and OpenSlide read some of it wrongly without a word: 12 bits in 16 nearly black, int16 half as bright, an
unspecified fourth sample as glass, the first of three colour pages alone, a thumbnail before the picture in its place,
of three samples that are called grey the red one. What they read rightly is left to them.
"""

from __future__ import annotations

import re
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from tumortrace.errors import ImageError
from tumortrace.images.depth import depth_of, to_eight_bit
from tumortrace.images.tiff_pages import (
    UNITS,
    full_resolution,
    larger_than,
    of_a_microscope,
    of_ome,
    orientation_of,
    refuse_incomplete,
)

if TYPE_CHECKING:
    from tifffile import TiffFile, TiffPage

MAX_PIXELS = 100_000_000
"""Pixels from which on an image is refused. Pillow itself only warns between 90 and 179 million."""

_MAX_SAMPLE = 281  # a tag
_MINISWHITE, _MINISBLACK, _RGB, _YCBCR = 0, 1, 2, 6  # photometric interpretations
COMMON = {1, 2, 3, 4, 5, 6, 7, 8, 32773, 32946}  # compressions that Pillow's libtiff knows in every build
_CONVERT = "convert it to 8-bit RGB, as with `vips colourspace IN OUT srgb`"


class Pixels:
    """How the pixels of an opened TIFF become 8-bit RGB.

    Args:
        tiff: An opened `tifffile.TiffFile`.
        path: For messages.
        plane: Number of the plane of focus to read, from 1; None for the middle one.

    Attributes:
        page: The first page, or where that is a thumbnail, the page of full resolution.
        thumbnail: Whether the first page is one.
        planes: Planes of focus.
        levels: Pages of each level of its pyramid, full resolution first: one, or three where colours are pages.
        frames: Pictures in the file, of which one is read.
        usual: Whether Pillow (and OpenSlide, of a pyramid) reads it as it is meant.
        note: What was assumed.

    Raises:
        ImageError: Channels as pages that are not red, green and blue; samples of a kind that is not known here; a
            plane that there is not.
    """

    def __init__(self, tiff: TiffFile, path: str | Path, plane: int | None = None) -> None:
        self.tiff, self.path, self.note = tiff, path, ""
        self._series = series = full_resolution(tiff)
        self.thumbnail = series is not tiff.series[0]
        self.page: TiffPage = series.levels[0].pages[0].aspage()
        axes = dict(zip(series.axes, series.shape, strict=True)) if tiff.is_ome or tiff.is_imagej else {}
        channels, self.planes = axes.get("C", 1), axes.get("Z", 1)
        if plane is not None and not 1 <= plane <= self.planes:
            planes = f"1 to {self.planes}" if self.planes > 1 else "no --plane: the file states no planes of focus"
            raise ImageError(f"--plane {plane}", where=path, expected=planes, remedy="change it, or leave it out")
        self._plane = self.planes // 2 if plane is None else plane - 1
        self.colour_pages = channels == 3 and self.page.samplesperpixel == 1
        if channels not in (1, 3) and self.page.samplesperpixel == 1:
            found = f"{channels} channels in pages of their own"
            raise ImageError(found, where=path, expected="red, green and blue", remedy="save it as RGB")
        if int(self.page.photometric) == _MINISBLACK and self._samples > 3:
            found = f"{self._samples} samples per pixel that its tag calls grey"
            raise ImageError(found, where=path, expected="grey or RGB", remedy=_CONVERT)
        self._stack = [(name, size) for name, size in axes.items() if name not in "YXS"]
        self.levels = [self._pages(level) for level in series.levels]
        alike = 1 if axes else sum(page.shape == self.page.shape for page in tiff.pages)
        if alike == len(tiff.pages) == 3 and self.page.samplesperpixel == 1:
            raise ImageError(
                "three grey pages of one size, which may be colours or planes",
                where=path,
                expected="one picture",
                remedy="save it as RGB, or each page as a file of its own",
            )
        self.frames = self.planes * axes.get("T", 1) if axes else alike if self.thumbnail else len(tiff.pages)
        if self.planes > 1:
            which = f"plane {self._plane + 1}" + (", the middle one" if plane is None else "")
            self.note = f"{which} of {self.planes} planes of focus{',' if plane is None else ''} was read"
        elif axes.get("T", 1) > 1 or alike > 1:
            self.note = f"the first of {max(axes.get('T', 1), alike)} pictures of one size was read"
        elif self.thumbnail:
            small = tiff.pages.first
            size = f"{self.page.imagewidth} x {self.page.imagelength} px"
            self.note = f"the page of {size} was read, as the first ({small.imagewidth} x {small.imagelength}) is small"
        elif larger := larger_than(self.page, tiff):
            size, other = (f"{page.imagewidth} x {page.imagelength}" for page in (self.page, larger))
            self.note = f"the first page ({size} px) was read, though a later one of another shape is larger ({other})"
        elif self._called_grey:
            self.note = "three samples per pixel that its tag calls grey were read as red, green and blue"
        self.top, self.stated = self._white()
        self.usual = (
            not self.colour_pages
            and self.planes == 1
            and not self.thumbnail
            and not self._called_grey
            and str(self.page.dtype) == "uint8"
            and self.page.bitspersample == 8
            and int(self.page.compression) in COMMON
            and not (self._unspecified and int(self.page.photometric) == _RGB)
        )

    @property
    def kind(self) -> str:
        """Kind of pixels, as `Facts` names it."""
        kind = np.dtype(self.page.dtype).str[1:]
        if kind in ("b1", "u1"):
            shallow = "1 bit" if kind == "b1" or self.page.bitspersample == 1 else "grey"
            return "RGB" if self._colours == 3 else shallow
        return "16 bit" if kind in ("u2", "i2") else "numbers of an unusual type"

    @property
    def orientation(self) -> int:
        """1 to 8; 1 is upright."""
        return orientation_of(self.page)

    @property
    def resolution(self) -> tuple[float, float] | None:
        """Um per px across and down as OME's XML, ImageJ's unit or the tags state it; None where none does."""
        with suppress(Exception):  # damaged metadata state none
            if self.tiff.is_ome:
                return of_ome(str(self.tiff.ome_metadata))
            densities = [tag.value[0] / tag.value[1] for tag in (self.page.tags[282], self.page.tags[283])]
            unit = {2: 25400.0, 3: 1e4}.get(int(self.page.resolutionunit))
            if self.tiff.is_imagej:
                named = str((self.tiff.imagej_metadata or {}).get("unit", "")).replace("\\u00B5", "µ")
                unit = UNITS.get(named.strip().lower(), unit)
            return (unit / densities[0], unit / densities[1]) if unit else None
        return None

    @property
    def plausible_resolution(self) -> float | None:
        """The resolution of a patch: OME's or ImageJ's, or that of the tags where it is a microscope's."""
        if self.resolution is None:
            return None
        mean = sum(self.resolution) / 2
        return mean if 0 < mean < 1000 and (self.tiff.is_ome or self.tiff.is_imagej) else of_a_microscope(mean)

    def colours_of(self, raw: np.ndarray) -> np.ndarray:
        """Decoded samples without transparency and others."""
        return raw[..., : self._colours] if raw.ndim == 3 else raw

    def to_rgb(self, raw: np.ndarray) -> np.ndarray:
        """Decoded samples as 8-bit RGB.

        Args:
            raw: Shape (height, width), or (height, width, samples): of one page, or stacked from colour pages.

        Raises:
            ImageError: Values beyond the range of their type (floating point: 0 to 1); samples not known here.
        """
        photometric = int(self.page.photometric)
        raw, colours = raw[..., None] if raw.ndim == 2 else raw, self._colours
        if (photometric > _RGB and photometric != _YCBCR) or raw.shape[2] < colours:
            found = f"{getattr(self.page.photometric, 'name', photometric)} with {raw.shape[2]} samples per pixel"
            raise ImageError(found, where=self.path, expected="grey or RGB", remedy=_CONVERT)
        values = to_eight_bit(raw[..., :colours], self.top, self.path)
        if photometric == _MINISWHITE:
            values = 255 - values
        rgb = np.broadcast_to(values, (*values.shape[:2], 3))
        if raw.shape[2] > colours and self._after in (1, 2):  # transparency, laid over white
            alpha = to_eight_bit(raw[..., colours : colours + 1], self.top, self.path).astype(np.float32) / 255
            ink = rgb if self._after == 1 else rgb * alpha
            rgb = np.rint(np.minimum(ink + 255 * (1 - alpha), 255)).astype(np.uint8)
        return np.ascontiguousarray(rgb)

    def upright(self, rgb: np.ndarray) -> np.ndarray:
        """The picture turned as its orientation tag says."""
        number = self.orientation
        rgb = rgb.swapaxes(0, 1) if number >= 5 else rgb
        rgb = rgb[::-1] if number in (3, 4, 7, 8) else rgb
        return rgb[:, ::-1] if number in (2, 3, 6, 7) else rgb

    def whole(self) -> np.ndarray:
        """Samples of the full resolution, as `to_rgb` takes them."""
        series = self._series
        if not self._stack:
            raw = self.page.asarray()
            return np.moveaxis(raw, 0, -1) if self._planar(raw) else raw
        raw = series.asarray()
        axes = series.axes
        for name, _ in self._stack:
            if name != "C":
                raw = raw.take(self._plane if name == "Z" else 0, axes.index(name))
                axes = axes.replace(name, "")
        order = [axes.index(name) for name in "YX"] + [axes.index(name) for name in axes if name in "CS"]
        return raw.transpose(order).reshape(*(raw.shape[place] for place in order[:2]), -1)

    @property
    def _colours(self) -> int:
        in_colour = int(self.page.photometric) in (_RGB, _YCBCR)
        return 3 if in_colour or self.colour_pages or self._called_grey else 1

    @property
    def _extra(self) -> list[int]:
        """What samples after those that the photometric tag counts are: 1 and 2 transparency, 0 not stated."""
        return [int(sample) for sample in self.page.extrasamples or ()]

    @property
    def _samples(self) -> int:
        """Samples of a pixel without a last one of transparency."""
        return int(self.page.samplesperpixel) - bool(self._extra and self._extra[-1] in (1, 2))

    @property
    def _called_grey(self) -> bool:
        """Whether there are three samples that the photometric tag calls grey, as careless writers call colours."""
        return int(self.page.photometric) == _MINISBLACK and self._samples == 3

    @property
    def _after(self) -> int:
        """What the sample after the colours is; 0 where there is none."""
        place = self._colours - (int(self.page.samplesperpixel) - len(self._extra))
        return self._extra[place] if 0 <= place < len(self._extra) else 0

    @property
    def _unspecified(self) -> bool:
        return 0 in self._extra

    def _planar(self, raw: np.ndarray) -> bool:
        return raw.ndim == 3 and int(self.page.planarconfig) == 2

    def _pages(self, level: Any) -> list[Any]:
        """The page, or the colour pages, of a level: of the middle plane, at the first moment."""
        picked = np.arange(len(level.pages))
        if self._stack and len(level.pages) == np.prod([size for _, size in self._stack]):
            picked = picked.reshape([size for _, size in self._stack])
            index = tuple(slice(None) if name == "C" else self._plane if name == "Z" else 0 for name, _ in self._stack)
            picked = np.atleast_1d(picked[index])
        else:
            picked = picked[:1]
        chosen = (level.pages[int(number)] for number in (picked if self.colour_pages else picked[:1]))
        return [page.aspage() for page in chosen]  # tifffile keeps frames of a series without their tags

    def _white(self) -> tuple[float, bool]:
        """The value of white, and whether the file states that it is another than the largest of its type."""
        dtype, bits = np.dtype(self.page.dtype), int(self.page.bitspersample)
        if dtype.kind in "bf":
            return 1.0, True
        full = 2.0 ** (8 * dtype.itemsize - (dtype.kind == "i")) - 1
        if self.tiff.is_ome and (said := re.search(r'SignificantBits="(\d+)"', str(self.tiff.ome_metadata))):
            bits = min(bits, int(said[1]))
        tag = self.page.tags.get(_MAX_SAMPLE)
        if tag is not None and (most := int(np.max(tag.value))) > 255:
            return float(most), most < full
        top = 2.0 ** (bits - (dtype.kind == "i")) - 1
        return top, top < full


class Read(NamedTuple):
    """A picture, uint8 of shape (height, width, 3), and what its file shows: see `images.decoding.Facts`."""

    rgb: np.ndarray
    kind: str
    frames: int = 1
    note: str = ""
    bits: int = 0
    resolution: float | None = None


def read_tiff(
    path: str, max_pixels: int, *, slide: bool = False, bits: int | None = None, plane: int | None = None
) -> tuple[Read | None, float | None]:
    """A TIFF's first picture, or None where Pillow reads it as it is meant; and the um per px that it states.

    Raises:
        ImageError: It is damaged, too large, or of a kind that has no sure meaning as a picture.
    """
    import tifffile

    try:
        tiff = tifffile.TiffFile(path)
    except Exception:  # what tifffile cannot open, Pillow may, or say what is the matter
        return None, None
    with tiff:
        try:
            pixels = Pixels(tiff, path, plane)
            _refuse_slides(tiff, pixels, max_pixels, slide, path)
            if pixels.usual:
                return None, pixels.plausible_resolution
            refuse_incomplete(pixels.levels[0], path)
            raw = pixels.whole()
            depth = depth_of(pixels.colours_of(raw), pixels.top, stated=pixels.stated, bits=bits, path=path)
            pixels.top = depth.top
            note = "; ".join(text for text in (pixels.note, depth.note) if text)
            rgb = pixels.upright(pixels.to_rgb(raw))
            resolution = pixels.plausible_resolution
            return Read(rgb, pixels.kind, pixels.frames, note, depth.likely, resolution), resolution
        except ImageError:
            raise
        except Exception as error:  # damaged files make decoders raise nearly anything
            found = f"a TIFF that is damaged or of an unknown kind ({' '.join(str(error).split())[:160]})"
            raise ImageError(found, where=path, remedy="restore it from its source, or save it as PNG") from None


def _refuse_slides(tiff: TiffFile, pixels: Pixels, max_pixels: int, slide: bool, path: str) -> None:
    """Refuse what is too large, and pyramids: a patch has one size, and a slide shrunk to it shows nothing."""
    page, scan = pixels.page, "use `tumortrace scan` for slides"
    size = f"{page.imagewidth} x {page.imagelength}"
    if page.imagewidth * page.imagelength > max_pixels:
        expected = f"at most {max_pixels // 1_000_000} megapixels"
        raise ImageError(f"too many pixels ({size})", where=path, expected=expected, remedy=scan)
    if not slide and page.is_tiled and (len(pixels.levels) > 1 or pixels.thumbnail or tiff.is_svs):
        raise ImageError(f"a whole slide ({size} px, in levels)", where=path, expected="a patch", remedy=scan)
