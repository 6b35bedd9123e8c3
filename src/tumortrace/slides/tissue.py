"""Where there is tissue on a slide: by its colour, on grey slides by its darkness, or as a mask says."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from skimage.color import rgb2hsv
from skimage.filters import gaussian, threshold_otsu
from skimage.measure import label
from skimage.morphology import dilation, disk

from tumortrace.images.stain import find_ink
from tumortrace.slides.slide import Slide

# Otsu's threshold always parts something: on bare glass it parts noise, on a slide full of tissue it parts tissue.
# Glass and stitching seams stay below a saturation of .05, stained tissue lies above .15.
_LIMITS = (0.06, 0.15)
_APART = 0.035  # between the means of two kinds
_TWO_KINDS = 0.7  # share of the variance that lies between two kinds: of the halves of one bell it is .64
_WINDOWS = (128, 512)  # px of the thumbnail, about 1 and 4 mm
_GREY = 3  # levels by which the channels of a grey picture differ at most
_BLACK = 0.12  # value below which a grey picture shows no tissue
_DARK_FIELD = 0.5  # share of a grey picture that is black where tissue shines on a dark ground
NOTABLE = 0.05  # share of tissue left out that is worth a note


class Rest(NamedTuple):
    """Shares of the picture that are no tissue, by their reason."""

    black: float
    ink: float
    pale: float
    glass: float

    def __str__(self) -> str:
        parts = {"black": self.black, "pen marks": self.ink, "paler than tissue": self.pale, "bare glass": self.glass}
        return ", ".join(f"{100 * share:.3g} % {name}" for name, share in parts.items() if share >= 0.0005)


@dataclass(frozen=True)
class Tissue:
    """The tissue on a thumbnail.

    Attributes:
        mask: bool array (height, width).
        told_by: `colour`, `darkness` of a grey slide, or `mask`.
        pale: Area that was left out as too pale though it is no glass, as a share of it and the tissue; None with a
            mask.
        rest: Why the remainder is no tissue; None with a mask.
    """

    mask: np.ndarray
    told_by: str
    pale: float | None = None
    rest: Rest | None = None

    @property
    def notes(self) -> list[str]:
        """What a reader of the scan should know of it."""
        return self.told("; --tissue-mask FILE says where tissue is")

    def told(self, remedy: str = "") -> list[str]:
        """What is to be known of it, with what to do where it is wrong."""
        notes = []
        if self.told_by == "darkness" and self.mask.any():
            notes.append("the slide is grey: tissue was told by its darkness")
        if not self.mask.any():
            notes.append(f"no tissue found: {self.rest}{remedy}" if self.rest else "no tissue found")
        elif self.pale and self.pale >= NOTABLE:
            notes.append(f"{self.pale:.0%} of what may be tissue was left out as too pale{remedy}")
        return notes


def overview(slide: Slide, resolution: float | None, progress: Callable[[int, int], None] | None = None) -> np.ndarray:
    """Thumbnail on which tissue is sought: about 8 um per px, with a longer side of 512 to 2048 px.

    Args:
        slide: The slide.
        resolution: Its um per px, or None.
        progress: As `Slide.read_region` takes it.

    Returns:
        uint8 array (height, width, 3).
    """
    longest = 2048.0 if resolution is None else max(slide.width, slide.height) * resolution / 8
    return slide.thumbnail(round(min(2048.0, max(512.0, longest))), progress)


def find_tissue(thumbnail: np.ndarray, resolution: float | None = None) -> np.ndarray:
    """Mask of the tissue on a thumbnail: coloured areas without pen marks, specks and pinholes.

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
    return tell_tissue(thumbnail, resolution).mask


def tell_tissue(thumbnail: np.ndarray, resolution: float | None = None) -> Tissue:
    """The tissue on a thumbnail, and what was left out.

    The threshold on the saturation is that of Otsu (IEEE Trans. Syst. Man Cybern. 9:62, 1979), taken without the ink
    and kept between .06 and .15, so that bare glass yields no tissue. What lies below is parted again in windows
    of the picture where it is of two kinds, so that strong stain does not hide pale tissue. A grey
    picture has no saturation: there it is how much darker than glass it is; one on a dark ground has no tissue.

    Args:
        thumbnail: See `find_tissue`.
        resolution: See `find_tissue`.
    """
    smooth = gaussian(thumbnail.astype(np.float32) / 255, 1, channel_axis=-1)
    hsv = rgb2hsv(smooth)
    grey = _is_grey(thumbnail)
    inks = find_ink(hsv)
    black = hsv[..., 2] < _BLACK if grey else inks.black
    ink = _marked(black if grey else np.logical_or.reduce(inks))
    strength = _darkness(hsv[..., 2], ink) if grey else hsv[..., 1]
    if ink.all() or (grey and black.mean() > _DARK_FIELD):
        mask = coloured = np.zeros_like(ink)
    else:
        coloured = (strength > _LIMITS[0]) & ~ink
        mask = (strength > _thresholds(strength, ~ink)) & ~ink
    area = 150.0 if resolution is None else 1e4 / resolution**2
    area = min(area, mask.size / 100)
    mask = ~_without_small(~_without_small(mask, area), area) & ~ink
    pale = _without_small(coloured & ~mask, area)
    dark = float((ink & black).mean())
    rest = Rest(dark, float(ink.mean()) - dark, float(pale.mean()), float((~(mask | ink | pale)).mean()))
    seen = int(pale.sum() + mask.sum())
    return Tissue(mask, "darkness" if grey else "colour", float(pale.sum() / seen) if seen else 0.0, rest)


def _is_grey(thumbnail: np.ndarray) -> bool:
    """Whether its channels are alike: a slide of one channel, or one that was saved without its colours."""
    spread = thumbnail.max(2) - thumbnail.min(2)
    return bool(np.quantile(spread, 0.999) <= _GREY)


def _darkness(value: np.ndarray, ink: np.ndarray) -> np.ndarray:
    """Share of the light of glass, the brightest there is, that is missing."""
    glass = float(np.quantile(value, 0.99))
    return 1 - value / glass if glass > 0 else np.zeros_like(value)


def _thresholds(strength: np.ndarray, inside: np.ndarray) -> np.ndarray:
    """For each px the lowest of the thresholds of the whole picture and of the windows that it lies in."""
    whole = float(np.clip(threshold_otsu(strength[inside]), *_LIMITS))
    lowest = np.full(strength.shape, whole)
    for side in _WINDOWS:
        for top in range(0, strength.shape[0], side // 2):
            for left in range(0, strength.shape[1], side // 2):
                window = np.s_[top : top + side, left : left + side]
                here = _pale_from(strength[window][inside[window]], whole)
                lowest[window] = np.minimum(lowest[window], here)
    return lowest


def _pale_from(values: np.ndarray, limit: float) -> float:
    """A lower threshold where what lies below `limit` is of two kinds, glass and pale tissue; else `limit`."""
    values = values[values <= limit]
    if limit <= _LIMITS[0] or len(values) < 2:
        return limit
    cut, spread = float(threshold_otsu(values)), float(values.var())
    pale = values > cut
    if pale.all() or not pale.any():
        return limit
    share, apart = float(pale.mean()), float(values[pale].mean() - values[~pale].mean())
    if apart < _APART or share * (1 - share) * apart**2 < _TWO_KINDS * spread:
        return limit
    return max(_LIMITS[0], cut)


def _marked(ink: np.ndarray) -> np.ndarray:
    """Pen marks with their rim, three px wide, which is paler than they are."""
    return dilation(_without_small(ink, 16), disk(3))


def _without_small(mask: np.ndarray, area: float) -> np.ndarray:
    """The mask without its connected parts of at most `area` px."""
    parts = label(mask, connectivity=1)
    large = np.bincount(parts.ravel()) > area
    large[0] = False
    return large[parts]
