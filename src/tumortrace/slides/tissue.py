"""Where there is tissue on a slide: by its colour, on grey slides by its darkness, or as a mask says."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from skimage.color import rgb2hsv
from skimage.measure import label
from skimage.morphology import dilation, disk

from tumortrace.images.stain import find_ink, may_be_ink
from tumortrace.slides.slide import Slide

# Otsu's threshold always parts something: on bare glass it parts noise, on a slide full of tissue it parts tissue.
# Glass and stitching seams stay below a saturation of .05, stained tissue lies above .15.
_LIMITS = (0.06, 0.15)
_APART = 0.035  # between the means of two kinds
_TWO_KINDS = 0.7  # share of the variance that lies between two kinds: of the halves of one bell it is .64
_LEVELS = 2049  # of strength in a histogram
_CELL = 64  # px of the thumbnail, about .5 mm
_WINDOWS = (2, 8)  # cells, about 1 and 4 mm
_GAUSSIAN = np.exp(-0.5 * np.arange(5, dtype=np.float64) ** 2)  # of one px, from its middle on
_GAUSSIAN = (_GAUSSIAN / (2 * _GAUSSIAN.sum() - 1)).astype(np.float32)
_ROWS = 64  # that are blurred at once
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
    return slide.thumbnail(overview_side(slide, resolution), progress)


def overview_side(slide: Slide, resolution: float | None) -> int:
    """Px of the longer side of an overview, of a slide that has so many."""
    longest = 2048.0 if resolution is None else max(slide.width, slide.height) * resolution / 8
    return round(min(2048.0, max(512.0, longest)))


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
    smooth = _smoothed(thumbnail)
    value = smooth.max(0)
    with np.errstate(invalid="ignore"):
        saturation = np.nan_to_num(1 - smooth.min(0) / value)
    grey = _is_grey(thumbnail)
    ink, black = _inked(smooth, saturation, value)
    if grey:
        ink = black = value < _BLACK
    ink = _marked(ink)
    strength = _darkness(value, ink) if grey else saturation
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
    red, green, blue = np.moveaxis(thumbnail, 2, 0)
    spread = np.maximum(np.maximum(red, green), blue) - np.minimum(np.minimum(red, green), blue)
    return np.count_nonzero(spread > _GREY) <= 0.001 * spread.size


def _smoothed(thumbnail: np.ndarray) -> np.ndarray:
    """Red, green and blue in [0, 1], blurred by a Gaussian of one px, float32 (3, height, width).

    Block by block, as what stays in the processor's cache is blurred five times as fast.
    """
    reach = len(_GAUSSIAN) - 1
    height, width, _ = thumbnail.shape
    result = np.empty((3, height, width), np.float32)
    wider = np.pad(thumbnail, ((reach, reach), (reach, reach), (0, 0)), mode="edge")
    for plane, blurred in zip(np.moveaxis(wider, 2, 0), result, strict=True):
        for top in range(0, height, _ROWS):
            rows = plane[top : top + _ROWS + 2 * reach] / np.float32(255)
            blurred[top : top + _ROWS] = _blurred(_blurred(rows.T).T)
    return result


def _blurred(lines: np.ndarray) -> np.ndarray:
    """Blurred along the last axis, which loses the reach of the Gaussian at both ends."""
    reach, length = len(_GAUSSIAN) - 1, lines.shape[-1]
    result = lines[..., reach : length - reach] * _GAUSSIAN[0]
    both = np.empty_like(result)
    for away in range(1, reach + 1):
        left, right = lines[..., reach - away : length - reach - away], lines[..., reach + away : length - reach + away]
        np.add(left, right, out=both)
        both *= _GAUSSIAN[away]
        result += both
    return result


def _inked(smooth: np.ndarray, saturation: np.ndarray, value: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Where there is ink of any pen, and where it is black; hues are told of what may be ink alone."""
    ink, black = np.zeros(value.shape, bool), np.zeros(value.shape, bool)
    some = may_be_ink(smooth, saturation, value)
    inks = find_ink(rgb2hsv(smooth[:, some].T)) if some.any() else None
    if inks is not None:
        ink[some], black[some] = np.logical_or.reduce(inks), inks.black
    return ink, black


def _darkness(value: np.ndarray, ink: np.ndarray) -> np.ndarray:
    """Share of the light of glass, the brightest there is, that is missing."""
    glass = float(np.quantile(value, 0.99))
    return (1 - value / glass).clip(0) if glass > 0 else np.zeros_like(value)


def _thresholds(strength: np.ndarray, inside: np.ndarray) -> np.ndarray:
    """For each px the lowest of the thresholds of the whole picture and of the windows that it lies in.

    All are told from histograms of cells, which the windows are made of.
    """
    height, width = strength.shape
    level = (strength * (_LEVELS - 1)).astype(np.int32)
    counts = np.bincount((level if inside.all() else level[inside]).ravel(), minlength=_LEVELS)
    whole = float(np.clip(_end(_parted(counts[None]))[0], *_LIMITS))
    below = int(whole * (_LEVELS - 1)) + 1
    level[~inside | (strength > whole)] = below  # the last one, which is left out
    down, across = -(-height // _CELL), -(-width // _CELL)
    cell = np.arange(height)[:, None] // _CELL * across + np.arange(width) // _CELL
    counts = np.bincount((cell * (below + 1) + level).ravel(), minlength=down * across * (below + 1))
    counts = counts.reshape(down, across, -1)[..., :-1]
    lowest = np.full((down, across), whole)
    windows = [
        np.s_[top : top + cells, left : left + cells]
        for cells in _WINDOWS
        for top in range(0, down, cells // 2)
        for left in range(0, across, cells // 2)
    ]
    here = _pale_from(np.stack([counts[window].sum((0, 1)) for window in windows]), whole)
    for window, threshold in zip(windows, here, strict=True):
        lowest[window] = np.minimum(lowest[window], threshold)
    return lowest.astype(np.float32).repeat(_CELL, 0)[:height].repeat(_CELL, 1)[:, :width]


def _pale_from(counts: np.ndarray, limit: float) -> np.ndarray:
    """A lower threshold where what lies below `limit` is of two kinds, glass and pale tissue; else `limit`.

    Args:
        counts: Histograms of what lies below, shape (N, K).
        limit: The threshold of the whole picture.

    Returns:
        Shape (N,).
    """
    if limit <= _LIMITS[0]:
        return np.full(len(counts), limit)
    values, cut = _middle(np.arange(counts.shape[1])), _parted(counts)
    pale = np.where(np.arange(counts.shape[1]) > cut[:, None], counts, 0)
    number, of_pale = counts.sum(1), pale.sum(1)
    with np.errstate(invalid="ignore", divide="ignore"):  # where there is nothing, or one kind alone
        mean, paler = counts @ values / number, pale @ values / of_pale
        spread = counts @ values**2 / number - mean**2
        share, apart = of_pale / number, (paler - mean) / (1 - of_pale / number)
        two = (apart >= _APART) & (share * (1 - share) * apart**2 >= _TWO_KINDS * spread)
    return np.where(two, np.maximum(_LIMITS[0], _end(cut)), limit)


def _parted(counts: np.ndarray) -> np.ndarray:
    """The last level of the lower part by Otsu's threshold, int (N,), of histograms (N, K)."""
    values = np.arange(counts.shape[1])
    low, total = counts.cumsum(1), counts.sum(1, keepdims=True)
    lower = (counts * values).cumsum(1)
    with np.errstate(invalid="ignore", divide="ignore"):
        apart = lower / low - (lower[:, -1:] - lower) / (total - low)
    return np.asarray(np.nan_to_num(low * (total - low) * apart**2, posinf=0.0).argmax(1))


def _middle(level: np.ndarray) -> np.ndarray:
    """The strength in the middle of a level."""
    return (level + 0.5) / (_LEVELS - 1)


def _end(level: np.ndarray) -> np.ndarray:
    """The strength that no px of a level exceeds: glass of one strength stays below a threshold as a whole."""
    return (level + 1) / (_LEVELS - 1)


def _marked(ink: np.ndarray) -> np.ndarray:
    """Pen marks with their rim, three px wide, which is paler than they are."""
    marks = _without_small(ink, 16)
    return dilation(marks, disk(3)) if marks.any() else marks


def _without_small(mask: np.ndarray, area: float) -> np.ndarray:
    """The mask without its connected parts of at most `area` px."""
    if not mask.any():
        return mask
    parts = label(mask, connectivity=1)
    large = np.bincount(parts.ravel()) > area
    large[0] = False
    return large[parts]
