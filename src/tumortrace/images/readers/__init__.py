"""Slides behind one door. Each reader is a file here, found by itself: `RANK`, `SUFFIXES` and `open_reader`."""

from __future__ import annotations

import pkgutil
from collections.abc import Mapping
from functools import cache
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import NamedTuple, Protocol

import numpy as np

from tumortrace.errors import SlideError


class Level(NamedTuple):
    """One picture of a pyramid.

    Attributes:
        width, height: Its size in px of its own.
        across, down: Px of full resolution to one of its own, in each direction; 1 for level 0.
    """

    width: int
    height: int
    across: float
    down: float


class Reader(Protocol):
    """An open slide. Regions may be read from several threads.

    Attributes:
        levels: Pictures of the pyramid, full resolution first.
        part: Left, top, width and height in px of level 0 of what was scanned; the rest of the canvas is empty.
        resolution: Micrometres per px across and down at level 0 as the file states them, None where it states none.
        properties: What else the file says, as text by name.
        in_memory: Whether all pixels are decoded already.
        notes: What was assumed while opening.
        bits: Bits that its numbers seem to hold where nothing states it, so that it may be much too dark; else 0.
        kind: Kind of pixels, as `images.decoding.Facts` names it.
        planes: Planes of focus of which one can be read.
    """

    levels: tuple[Level, ...]
    part: tuple[int, int, int, int]
    resolution: tuple[float, float] | None
    properties: Mapping[str, str]
    in_memory: bool
    notes: tuple[str, ...]
    bits: int
    kind: str
    planes: int

    def read_region(self, level: int, x: int, y: int, width: int, height: int) -> np.ndarray:
        """Whole pixels of a level, as stored: nothing is interpolated.

        Args:
            level: Number in `levels`.
            x, y: Upper left corner in px of that level; may be negative.
            width, height: In px of that level, 1 or more.

        Returns:
            uint8, shape (height, width, 3), RGB; white where there is nothing, and behind what is transparent.

        Raises:
            SlideError: The file is damaged there.
        """
        ...

    def close(self) -> None:
        """Close the file; nothing can be read afterwards."""
        ...


@cache
def _readers() -> tuple[ModuleType, ...]:
    """The modules of this package in the order of their `RANK`.

    Each has `open_reader(path, bits, plane)`, which returns a `Reader`, or None for a file that is not its own; the
    last one opens or refuses what is left. `SUFFIXES` are endings, in lower case, by which its files are found.
    """
    modules = (import_module(f"{__name__}.{module.name}") for module in pkgutil.iter_modules(__path__))
    return tuple(sorted(modules, key=lambda module: int(module.RANK)))


def slide_suffixes() -> frozenset[str]:
    """Endings, in lower case, by which slides are found in folders. What a file is, its content says.

    Example:
        >>> {".svs", ".tif", ".dcm"} <= slide_suffixes()
        True
    """
    return frozenset().union(*(reader.SUFFIXES for reader in _readers()))


def open_reader(path: Path, bits: int | None = None, plane: int | None = None) -> Reader:
    """The slide's reader: the first, by rank, that knows the file.

    Args:
        path: The slide's file.
        bits: Bits that its numbers hold where it does not say so; None where nothing was said.
        plane: Number of the plane of focus to read, from 1; None for the middle one.

    Raises:
        SlideError: The file is missing, damaged, of no known format, too large to be read without levels, or has no
            such plane.
        MissingDependencyError: The library that reads it is not installed.
    """
    if not path.is_file():
        raise SlideError("no such file", where=path, expected="a slide", remedy="check the path")
    try:
        for module in _readers():
            reader: Reader | None = module.open_reader(path, bits, plane)
            if reader is None:
                continue
            if plane is None or reader.planes > 1:
                return reader
            reader.close()
            found = f"--plane {plane} of a file in which no planes of focus are known"
            expected = "an OME-TIFF or ImageJ stack that states its planes"
            raise SlideError(found, where=path, expected=expected, remedy="leave out --plane")
    except OSError as error:
        found = f"cannot be read ({error.strerror or error})"
        raise SlideError(found, where=path, expected="a slide", remedy="check the rights and the disk") from error
    raise SlideError("no reader knows this file", where=path, expected="a slide or an image", remedy="convert it")


def levels_of(sizes: list[tuple[int, int]]) -> tuple[Level, ...]:
    """Levels with the factors that their sizes tell.

    A file gives sizes only, rounded down or up: 4001 px over 1000 are 4 px to one and a rest, not 4.001. At the far
    edge of a slide of 100,000 px the difference is several px.

    Args:
        sizes: Width and height of each level, full resolution first.

    Example:
        >>> [level[2:] for level in levels_of([(4001, 3003), (1000, 750), (400, 300)])]
        [(1.0, 1.0), (4.0, 4.0), (10.0, 10.0)]
    """
    full = sizes[0]
    levels = []
    for size in sizes:
        whole = round(full[0] / size[0])
        fits = all(length // whole <= short <= -(-length // whole) for length, short in zip(full, size, strict=True))
        across, down = (whole, whole) if fits else (full[0] / size[0], full[1] / size[1])
        levels.append(Level(*size, float(across), float(down)))
    return tuple(levels)


def cut(pixels: np.ndarray, x: int, y: int, width: int, height: int) -> np.ndarray:
    """A rectangle of a picture, white where it reaches beyond.

    Args:
        pixels: uint8, shape (H, W, 3).
        x, y: Its corner, negative or beyond the picture too.
        width, height: Its size.

    Example:
        >>> cut(np.zeros((2, 2, 3), np.uint8), 1, -1, 2, 2)[..., 0].tolist()
        [[255, 255], [0, 255]]
    """
    canvas = np.full((height, width, 3), 255, np.uint8)
    inside = pixels[max(0, y) : max(0, y + height), max(0, x) : max(0, x + width)]
    top, left = max(0, -y), max(0, -x)
    canvas[top : top + inside.shape[0], left : left + inside.shape[1]] = inside
    return canvas
