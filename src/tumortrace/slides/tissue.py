"""Where there is tissue on a slide, and how many square millimetres of it."""

from __future__ import annotations

import numpy as np
from skimage.color import rgb2hsv
from skimage.filters import gaussian, threshold_otsu
from skimage.measure import label
from skimage.morphology import dilation, disk

from tumortrace.images.stain import find_ink
from tumortrace.slides.slide import Slide

# Otsu's threshold always parts something: on bare glass it parts noise, on a slide full of tissue it parts tissue.
# Glass and stitching seams stay below a saturation of .05, stained tissue lies above .15.
_SATURATION = (0.06, 0.15)


def overview(slide: Slide, resolution: float | None) -> np.ndarray:
    """Thumbnail on which tissue is sought: about 8 um per px, with a longer side of 512 to 2048 px.

    Args:
        slide: The slide.
        resolution: Its um per px, or None.

    Returns:
        uint8 array (height, width, 3).
    """
    longest = 2048.0 if resolution is None else max(slide.width, slide.height) * resolution / 8
    return slide.thumbnail(round(min(2048.0, max(512.0, longest))))


def find_tissue(thumbnail: np.ndarray, resolution: float | None = None) -> np.ndarray:
    """Mask of the tissue on a thumbnail: coloured areas without pen marks, specks and pinholes.

    The threshold on the saturation is that of Otsu (IEEE Trans. Syst. Man Cybern. 9:62, 1979), taken without
    the ink and kept between .06 and .15, so that bare glass yields no tissue.

    Args:
        thumbnail: uint8 array (height, width, 3).
        resolution: Um per px of the thumbnail; specks and holes up to 0.01 mm² are dropped and filled
            (up to 1 % of the picture at most). None: up to 150 px.

    Returns:
        bool array (height, width).

    Example:
        >>> picture = np.full((100, 100, 3), 245, np.uint8)
        >>> picture[20:60, 20:60] = 180, 60, 140
        >>> round(find_tissue(picture, 8.0).mean() * 10_000)  # 1600 px and a rim
        1744
        >>> bool(find_tissue(np.full((100, 100, 3), 245, np.uint8)).any())
        False
    """
    smooth = gaussian(thumbnail.astype(np.float32) / 255, 1, channel_axis=-1)
    hsv = rgb2hsv(smooth)
    ink = _marked(hsv)
    saturation = hsv[..., 1]
    if ink.all():
        return np.zeros_like(ink)
    mask = (saturation > np.clip(threshold_otsu(saturation[~ink]), *_SATURATION)) & ~ink
    area = 150.0 if resolution is None else 1e4 / resolution**2
    area = min(area, mask.size / 100)
    return ~_without_small(~_without_small(mask, area), area) & ~ink


def _marked(hsv: np.ndarray) -> np.ndarray:
    """Pen marks with their rim, three px wide, which is paler than they are."""
    return dilation(_without_small(np.logical_or.reduce(find_ink(hsv)), 16), disk(3))


def _without_small(mask: np.ndarray, area: float) -> np.ndarray:
    """The mask without its connected parts of at most `area` px."""
    parts = label(mask, connectivity=1)
    large = np.bincount(parts.ravel()) > area
    large[0] = False
    return large[parts]
