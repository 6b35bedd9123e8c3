"""Whole slides and plain images behind one door: size, resolution, and regions at any scale as RGB."""

from __future__ import annotations

import math
from contextlib import suppress
from itertools import pairwise
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from PIL import Image

from tumortrace.errors import ImageError, MissingDependencyError, SlideError
from tumortrace.images.decoding import MAX_PIXELS, read_image

RESOLUTIONS = (0.05, 20.0)  # um/px that a microscope scan can have; 72 or 96 dpi mean that nobody measured
_SQUARE = 0.1  # sides of a pixel may differ by this much before the resolution counts as unknown
_BLOCK = 4096  # largest square, in pixels of a level, that is decoded at once


class Slide:
    """An open whole slide, or a plain image (PNG, JPEG, flat TIFF) that stands for one.

    Whatever OpenSlide recognises is read with OpenSlide, other files as plain images. The label and the overview
    picture of a slide, which may name the patient, are never read. Regions may be read from several threads.

    Args:
        path: The slide's file.
        name: What to call it; the file's name where None.

    Attributes:
        path, name: The file and its name.
        width, height: Size in px at full resolution (level 0). Where the file says which part of it was scanned
            (MIRAX and others), that part is the slide and coordinates begin at its corner, as they do in QuPath.
        resolution: Micrometres per px at level 0, or None when the file states none that can be true.
        coarsest: How many times smaller its smallest level is; 1 where it has no levels besides full resolution.
        notes: What was assumed while opening.

    Raises:
        SlideError: The file is missing, damaged, of no known format, or too large to be read without levels.
        MissingDependencyError: OpenSlide is not installed.

    Example:
        >>> import tempfile
        >>> file = Path(tempfile.mkdtemp()) / "a.png"
        >>> Image.new("RGB", (300, 200), "purple").save(file)
        >>> with Slide(file) as slide:
        ...     slide.width, slide.height, slide.resolution, slide.read_region(0, 0, 300, 200, size=(30, 20)).shape
        (300, 200, None, (20, 30, 3))
    """

    def __init__(self, path: str | Path, *, name: str | None = None) -> None:
        self.path = Path(path)
        self.name = name or self.path.name
        if not self.path.is_file():
            raise SlideError("no such file", where=path, expected="a slide", remedy="check the path")
        self._pixels: np.ndarray | None = None
        self._origin, self.coarsest = (0, 0), 1.0
        self._slide: Any = _open_with_openslide(self.path)
        if self._slide is not None:
            self._origin, (self.width, self.height) = _scanned_part(self._slide)
            self.coarsest = float(max(self._slide.level_downsamples))
            stated = [self._slide.properties.get(f"openslide.mpp-{axis}") for axis in "xy"]
        else:
            self._pixels, stated = _read_plain(self.path)
            self.height, self.width = self._pixels.shape[:2]
        self.resolution, self.notes = _believable(stated)
        # A file can open and still hold nothing readable; better said now than after the model has loaded.
        self.read_region(self.width // 2, self.height // 2, 1, 1, size=(1, 1))

    def read_region(self, x: int, y: int, width: int, height: int, *, size: tuple[int, int]) -> np.ndarray:
        """Pixels of a rectangle, read from the best level of the pyramid and resized with antialiasing (Lanczos).

        Args:
            x, y: Upper left corner in level-0 px; what lies outside the slide is white.
            width, height: Size in level-0 px.
            size: Width and height of the result in px.

        Returns:
            uint8 array of shape (size[1], size[0], 3), RGB, transparency laid over white.

        Raises:
            SlideError: The file is damaged there.
        """
        level, downsample = self._best_level(min(width / size[0], height / size[1]))
        columns = _edges(size[0], width / downsample)
        rows = _edges(size[1], height / downsample)
        result = np.empty((size[1], size[0], 3), np.uint8)
        for top, bottom in pairwise(rows):
            for left, right in pairwise(columns):
                x0, x1 = (x + round(edge * width / size[0]) for edge in (left, right))
                y0, y1 = (y + round(edge * height / size[1]) for edge in (top, bottom))
                block = self._read(x0, y0, max(1, x1 - x0), max(1, y1 - y0), level, downsample)
                block = block.resize((right - left, bottom - top), Image.Resampling.LANCZOS)
                result[top:bottom, left:right] = np.asarray(block)
        return result

    def thumbnail(self, longest: int) -> np.ndarray:
        """The whole slide as uint8 RGB whose longer side has `longest` px (fewer when the slide itself has)."""
        factor = min(1.0, longest / max(self.width, self.height))
        size = (max(1, round(self.width * factor)), max(1, round(self.height * factor)))
        return self.read_region(0, 0, self.width, self.height, size=size)

    @property
    def in_memory(self) -> bool:
        """Whether it is a plain image, whose pixels have all been decoded."""
        return self._pixels is not None

    def close(self) -> None:
        """Close the file; nothing can be read afterwards."""
        if self._slide is not None:
            self._slide.close()

    def __enter__(self) -> Slide:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _best_level(self, downsample: float) -> tuple[int, float]:
        if self._slide is None:
            return 0, 1.0
        # 1 % of tolerance: a level's factor is often 4.0003, and full resolution would be read for nothing.
        level = self._slide.get_best_level_for_downsample(downsample * 1.01)
        return level, self._slide.level_downsamples[level]

    def _read(self, x: int, y: int, width: int, height: int, level: int, downsample: float) -> Image.Image:
        size = (max(1, round(width / downsample)), max(1, round(height / downsample)))
        if self._pixels is not None:
            canvas = np.full((height, width, 3), 255, np.uint8)
            inside = self._pixels[max(0, y) : max(0, y + height), max(0, x) : max(0, x + width)]
            top, left = max(0, -y), max(0, -x)
            canvas[top : top + inside.shape[0], left : left + inside.shape[1]] = inside
            return Image.fromarray(canvas)
        import openslide

        try:
            return _over_white(self._slide.read_region((self._origin[0] + x, self._origin[1] + y), level, size))
        except openslide.OpenSlideError as error:
            raise SlideError(
                f"damaged at x {x}, y {y} ({error})", where=self.path, remedy="copy or scan the slide again"
            ) from error


def _open_with_openslide(path: Path) -> Any:
    """The slide, or None when OpenSlide does not know the format."""
    try:
        import openslide
    except ImportError as error:
        raise MissingDependencyError(
            f"slides need OpenSlide ({error})", where=path, remedy="pip install openslide-python openslide-bin"
        ) from error
    try:
        return openslide.OpenSlide(path)
    except openslide.OpenSlideUnsupportedFormatError:
        return None
    except openslide.OpenSlideError as error:
        raise SlideError(f"cannot be read ({error})", where=path, remedy="copy or convert the slide again") from error


def _scanned_part(slide: Any) -> tuple[tuple[int, int], tuple[int, int]]:
    """Upper left corner and size, in px of level 0, of what was scanned; the rest of the canvas is empty."""
    width, height = slide.dimensions
    try:
        x, y, across, down = (
            int(slide.properties[f"openslide.bounds-{name}"]) for name in ("x", "y", "width", "height")
        )
    except (KeyError, ValueError):
        return (0, 0), (width, height)
    inside = 0 <= x < x + across <= width and 0 <= y < y + down <= height
    return ((x, y), (across, down)) if inside else ((0, 0), (width, height))


def _read_plain(path: Path) -> tuple[np.ndarray, list[float | None]]:
    """Pixels of a plain image, uint8 (height, width, 3), and its um per px in x and y."""
    try:
        pixels = read_image(path)
    except ImageError as error:
        raise SlideError(
            error.found,
            where=path,
            expected=f"a slide that OpenSlide knows, or an image of at most {MAX_PIXELS // 10**6} megapixels",
            remedy="check that the file is complete; `vips tiffsave IN OUT --tile --pyramid` makes a slide of an image",
        ) from error
    dpi: tuple[float, float] = (0, 0)
    with suppress(Exception), Image.open(path) as image:  # what Pillow does not know states no resolution
        dpi = image.info.get("dpi", dpi)
    return pixels, [25400 / float(value) if value else None for value in dpi]


def _over_white(image: Image.Image) -> Image.Image:
    """RGBA as RGB, transparency laid over white."""
    white = Image.new("RGB", image.size, (255, 255, 255))
    white.paste(image, mask=image.getchannel("A"))
    return white


def _believable(stated: list[Any]) -> tuple[float | None, tuple[str, ...]]:
    """Geometric mean of the stated um per px in x and y where both can be true, and what to say about it."""
    try:
        x, y = (float(value) for value in stated)
    except (TypeError, ValueError):
        return None, ()
    if not all(RESOLUTIONS[0] <= value <= RESOLUTIONS[1] for value in (x, y)):
        return None, (f"stated resolution of {x:.4g} x {y:.4g} um/px is not a microscope's and was ignored",)
    if max(x, y) > min(x, y) * (1 + _SQUARE):
        return None, (f"pixels are not square ({x:.4g} x {y:.4g} um); the stated resolution was ignored",)
    notes = (f"pixels are not quite square ({x:.4g} x {y:.4g} um); the mean was used",) if abs(x / y - 1) > 0.01 else ()
    return math.sqrt(x * y), notes


def _edges(size: int, level_pixels: float) -> list[int]:
    """Edges that cut `size` px of result into blocks of at most `_BLOCK` px of the level (or single px)."""
    blocks = min(size, max(1, math.ceil(level_pixels / _BLOCK)))
    return [round(size * block / blocks) for block in range(blocks + 1)]
