"""DICOM slides that OpenSlide does not read: of more than 8 bits or of grey samples, in tiles side by side."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from tumortrace.errors import ImageError, SlideError
from tumortrace.images.depth import Depth
from tumortrace.images.dicom import beside_the_slide, depth_of_stored, is_dicom, not_for_openslide, series_of, shown
from tumortrace.images.readers import levels_of

RANK = 20
SUFFIXES = (".dcm", ".dicom")
_LOOKED_AT = 64  # tiles by which it is told how many bits are used
_CONVERT = "convert it to OME-TIFF, which is read at any depth: `bfconvert FILE OUT.ome.tiff` (Bio-Formats)"


class _Instance(NamedTuple):
    """One level: its file, its header without pixels, and its size in px."""

    file: Path
    header: Any
    width: int
    height: int


class DicomReader:
    """See `Reader`; reads the frames that a region touches.

    NEMA PS3.3, C.8.12.4 (whole slide image) and C.7.6.17 (frames of a TILED_FULL image go row by row).
    """

    in_memory = False
    planes = 1

    def __init__(self, instances: list[_Instance], bits: int | None) -> None:
        self._instances, first = instances, instances[0].header
        self.levels = levels_of([(level.width, level.height) for level in instances])
        self.part = (0, 0, self.levels[0].width, self.levels[0].height)
        self.resolution = _resolution(first)
        self.properties: Mapping[str, str] = {"description": str(first.get("SeriesDescription", ""))}
        self.kind = "16 bit" if int(first.BitsAllocated) > 8 else "grey"
        self._depth = self._settled(bits)
        self.bits = self._depth.likely
        self.notes = (self._depth.note,) if self._depth.note else ()

    def read_region(self, level: int, x: int, y: int, width: int, height: int) -> np.ndarray:
        """See `Reader`."""
        result = np.full((height, width, 3), 255, np.uint8)
        instance = self._instances[level]
        rows, columns = int(instance.header.Rows), int(instance.header.Columns)
        left, top = max(0, x), max(0, y)
        right, bottom = min(instance.width, x + width), min(instance.height, y + height)
        if left >= right or top >= bottom:
            return result
        across = -(-instance.width // columns)
        tiles = product(range(top // rows, -(-bottom // rows)), range(left // columns, -(-right // columns)))
        for row, column in tiles:
            tile, _ = shown(instance.header, self._frame(instance, row * across + column), self._depth)
            near, far = max(left, column * columns), min(right, (column + 1) * columns)
            upper, lower = max(top, row * rows), min(bottom, (row + 1) * rows)
            piece = tile[upper - row * rows : lower - row * rows, near - column * columns : far - column * columns]
            result[upper - y : lower - y, near - x : far - x] = piece
        return result

    def close(self) -> None:
        """See `Reader`; files are open only while they are read."""

    def _settled(self, bits: int | None) -> Depth:
        """The value of white, by tiles of the smallest level where nothing states it."""
        smallest = self._instances[-1]
        number = int(smallest.header.NumberOfFrames)
        frames = [self._frame(smallest, place) for place in range(0, number, -(-number // _LOOKED_AT))]
        ends = np.array([end for frame in frames for end in (frame.min(), frame.max())])
        return depth_of_stored(smallest.header, ends, bits, str(smallest.file))

    @staticmethod
    def _frame(instance: _Instance, number: int) -> np.ndarray:
        from pydicom.pixels import pixel_array

        try:
            return np.asarray(pixel_array(instance.file, index=number))
        except Exception as error:  # damaged files make pydicom raise nearly anything
            found = f"damaged at frame {number} ({' '.join(str(error).split())[:160]})"
            raise SlideError(found, where=instance.file, remedy="copy or scan the slide again") from error


def open_reader(path: Path, bits: int | None = None, plane: int | None = None) -> DicomReader | None:
    """The slide, or None for what is no DICOM slide, and for those that OpenSlide reads.

    Raises:
        SlideError: Its tiles do not lie side by side, or of several planes or optical paths, or some are missing.
    """
    if not is_dicom(str(path)):
        return None
    path = _picture_of(path)
    found = not_for_openslide(path)
    if not found:
        return None
    try:
        return DicomReader(_instances(path, found), bits)
    except ImageError as error:
        raise SlideError(error.found, where=path, expected=error.expected, remedy=error.remedy) from error
    except (AttributeError, TypeError, ValueError, ArithmeticError, LookupError) as error:
        why = f"no {error.name}" if isinstance(error, AttributeError) and error.name else str(error)
        raise SlideError(f"{found}, whose header is not right ({why})", where=path, remedy=_CONVERT) from error


def _picture_of(path: Path) -> Path:
    """The file itself, or of a label or an overview, which may name the patient, one of the slide's picture.

    Raises:
        SlideError: The series has none.
    """
    if not beside_the_slide(path):
        return path
    series = series_of(path)
    for file in sorted(path.parent.iterdir()):
        if file.is_file() and is_dicom(str(file)) and series_of(file) == series and not beside_the_slide(file):
            return file
    found = "a slide's label or overview, without its picture"
    raise SlideError(found, where=path, expected="all files of the series", remedy="copy the others beside it")


def _instances(path: Path, found: str) -> list[_Instance]:
    """The levels of the series, the largest first."""
    import pydicom

    series = series_of(path)
    levels = {}
    for file in sorted(path.parent.iterdir()):
        if not file.is_file() or not is_dicom(str(file)) or series_of(file) != series:
            continue
        header = pydicom.dcmread(file, stop_before_pixels=True)
        if beside_the_slide(file) or ("VOLUME" not in header.get("ImageType", ()) and file != path):
            continue
        _refuse_others(header, file, found)
        size = int(header.TotalPixelMatrixColumns), int(header.TotalPixelMatrixRows)
        levels[size] = _Instance(file, header, *size)
    return [levels[size] for size in sorted(levels, reverse=True)]


def _refuse_others(header: Any, file: Path, found: str) -> None:
    wide, high = int(header.TotalPixelMatrixColumns), int(header.TotalPixelMatrixRows)
    wanted = -(-wide // int(header.Columns)) * -(-high // int(header.Rows))
    several = max(int(header.get("TotalPixelMatrixFocalPlanes", 1)), int(header.get("NumberOfOpticalPaths", 1)))
    if int(header.get("PixelRepresentation", 0)):
        raise SlideError(f"{found}, which are signed", where=file, expected="numbers from 0 on", remedy=_CONVERT)
    if header.get("DimensionOrganizationType") != "TILED_FULL" or several > 1:
        expected = "tiles side by side (TILED_FULL), of one plane of focus and one optical path"
        raise SlideError(found, where=file, expected=expected, remedy=_CONVERT)
    if int(header.NumberOfFrames) < wanted:
        lost = f"incomplete: {wanted - int(header.NumberOfFrames)} of {wanted} tiles are missing"
        raise SlideError(lost, where=file, expected="a complete file", remedy="copy or convert it again")


def _resolution(header: Any) -> tuple[float, float] | None:
    """Um per px across and down."""
    try:
        down, across = header.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0].PixelSpacing
        return 1000 * float(across), 1000 * float(down)
    except (AttributeError, IndexError, TypeError, ValueError):
        return None
