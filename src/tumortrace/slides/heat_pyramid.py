"""The heat of a scan as a pyramidal OME-TIFF with resolution, which QuPath opens beside the slide."""

from __future__ import annotations

import zlib
from pathlib import Path
from typing import Any
from uuid import NAMESPACE_OID, uuid5

import numpy as np
import pandas as pd
import tifffile

from tumortrace.records.files import replacing
from tumortrace.slides.heatmap import heat_array

_PER_CELL = 4  # px along a cell's side
_LONGEST = 4096  # px of the largest level
_SMALLEST = 256  # px: no level has a longer side below it
_TILE = 256


def heat_levels(cells: pd.DataFrame, slide: tuple[int, int]) -> list[np.ndarray]:
    """The probability of each cell as a picture that covers the whole slide, and smaller ones.

    A px has the probability of the cell around it, in every level; cells smaller than a px, of slides beyond 4,096 px
    of heat, are averaged.

    Args:
        cells: Columns `x`, `y`, `width`, `height` (level-0 px) and `probability`, from `tiling.cells`.
        slide: Width and height in level-0 px.

    Returns:
        float32 arrays (height, width) in [0, 1], NaN where no tile lies, each half as large as the one before.

    Example:
        >>> cells = pd.DataFrame({"x": [0], "y": [0], "width": [40], "height": [40], "probability": [0.5]})
        >>> level, = heat_levels(cells, (80, 40))
        >>> level.shape, level[0].tolist()
        ((4, 8), [0.5, 0.5, 0.5, 0.5, nan, nan, nan, nan])
    """
    side = min(cells["width"].median(), cells["height"].median()) / _PER_CELL if len(cells) else max(slide) / _SMALLEST
    side = max(side, max(slide) / _LONGEST, 1.0)
    shape = (max(1, round(slide[1] / side)), max(1, round(slide[0] / side)))
    levels = [heat_array(cells, slide, shape).astype(np.float32)]
    while max(levels[-1].shape) >= 2 * _SMALLEST and min(levels[-1].shape) >= 2:
        height, width = (length // 2 * 2 for length in levels[-1].shape)
        levels.append(levels[-1][:height:2, :width:2])
    return levels


def write_heat(target: Path, levels: list[np.ndarray], slide: tuple[int, int], resolution: float | None) -> None:
    """Write levels as one OME-TIFF, whole or not at all; the same levels give the same bytes.

    Args:
        target: File to write.
        levels: From `heat_levels`.
        slide: Width and height in level-0 px.
        resolution: Um per px of the slide at level 0; None leaves it out.
    """
    largest = levels[0]
    metadata: dict[str, Any] = {"axes": "YX", "Name": "probability of tumour, research use only"}
    metadata["UUID"] = str(uuid5(NAMESPACE_OID, f"{slide} {resolution} {zlib.crc32(largest.tobytes())}"))
    options: dict[str, Any] = {"tile": (_TILE, _TILE), "compression": "zlib", "photometric": "minisblack"}
    if resolution is not None:
        across, down = (resolution * length / pixels for length, pixels in zip(slide, largest.shape[::-1], strict=True))
        metadata |= {"PhysicalSizeX": across, "PhysicalSizeXUnit": "µm"}
        metadata |= {"PhysicalSizeY": down, "PhysicalSizeYUnit": "µm"}
        options |= {"resolution": (1e4 / across, 1e4 / down), "resolutionunit": "CENTIMETER"}
    with replacing(target) as temporary, tifffile.TiffWriter(temporary, ome=True) as tiff:
        tiff.write(largest, subifds=len(levels) - 1, metadata=metadata, **options)
        for number, level in enumerate(levels[1:], 1):
            if resolution is not None:
                options["resolution"] = (1e4 / across / 2**number, 1e4 / down / 2**number)
            tiff.write(level, subfiletype=1, metadata=None, **options)
