"""FROC of lesions on slides by the rules of CAMELYON16: which lesions are found, at how many false alarms a slide.

The rules, in own words after Ehteshami Bejnordi et al., JAMA 2017, "Diagnostic Assessment of Deep Learning Algorithms
for Detection of Lymph Node Metastases", its supplement and its published evaluation:

- Outlines are widened by half of 75 um (five tumour cells side by side), so that what lies closer than 75 um is one
  lesion, and holes in it are filled.
- A widened lesion whose major axis is below 275 um (200 um and the 75 of the widening) is isolated tumour cells: it
  does not count as a lesion, and a detection in it is neither a hit nor a false alarm.
- A detection inside any other widened lesion hits it. A lesion counts once, by its surest detection.
- Every detection elsewhere is a false alarm, on slides with and without tumour; they are averaged over all slides.
- The score is the mean of the sensitivities at 1/4, 1/2, 1, 2, 4 and 8 false alarms a slide.

Nothing is interpolated: the sensitivity at a rate is the highest that a threshold with no more false alarms reaches.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np
import shapely
from numpy.typing import ArrayLike, NDArray
from shapely import MultiPolygon, Polygon

from tumortrace.errors import PredictionsError
from tumortrace.evaluation.intervals import percentile_interval, wilson
from tumortrace.evaluation.replicates import draws
from tumortrace.records.metrics import Estimate
from tumortrace.records.slides import Froc

Floats = NDArray[np.float64]
RATES = (0.25, 0.5, 1.0, 2.0, 4.0, 8.0)
"""False alarms a slide at which sensitivities are told and averaged."""
JOINED = 75.0
"""Um: outlines closer than this are one lesion."""
ISOLATED = 275.0
"""Um: a widened lesion whose major axis is shorter is isolated tumour cells."""
MISS, IGNORED = -1, -2


@dataclass(frozen=True)
class Lesion:
    """A lesion as it is judged.

    Attributes:
        outline: Widened, without holes, in pixels of level 0.
        axis: Major axis of the ellipse with the same second moments, um.
        isolated: Whether it is isolated tumour cells, which do not count.
    """

    outline: Polygon
    axis: float
    isolated: bool


@dataclass(frozen=True)
class Detections:
    """What was detected on one slide.

    Attributes:
        probability: Of each detection, shape (n,), in [0, 1].
        hit: The number of the lesion that it hits, from 0; `MISS` for none, `IGNORED` for isolated cells; shape (n,).
        lesions: How many lesions there are to hit.
        isolated: How many groups of isolated cells.
        group: The patient, or whatever is drawn together; None makes the slide its own.
    """

    probability: Floats
    hit: NDArray[np.int64]
    lesions: int
    isolated: int = 0
    group: Hashable | None = None


def lesions_of(outlines: Sequence[Polygon | MultiPolygon], resolution: float) -> list[Lesion]:
    """The lesions of a slide from the outlines of its tumour.

    Args:
        outlines: In pixels of level 0, in any number of pieces; holes are filled.
        resolution: Um per px of level 0.

    Returns:
        Largest first.

    Raises:
        PredictionsError: The resolution is not above 0.

    Example:
        >>> big, small = shapely.box(0, 0, 600, 600), shapely.box(2000, 0, 2060, 60)
        >>> [(round(lesion.axis), lesion.isolated) for lesion in lesions_of([big, small], 1.0)]
        [(777, False), (148, True)]
    """
    if not resolution > 0:
        raise PredictionsError(f"a resolution of {resolution}", expected="um per px, above 0")
    joined = shapely.union_all([outline.buffer(JOINED / 2 / resolution) for outline in outlines])
    parts = [Polygon(part.exterior) for part in shapely.get_parts(joined) if not part.is_empty]
    whole = shapely.get_parts(shapely.union_all(parts))  # a lesion in the hole of another is part of it
    axes = [(part, major_axis(part) * resolution) for part in whole if not part.is_empty]
    lesions = [Lesion(part, axis, axis < ISOLATED) for part, axis in axes]
    return sorted(lesions, key=lambda lesion: (-lesion.outline.area, lesion.outline.bounds))


def major_axis(outline: Polygon) -> float:
    """Length of the major axis of the ellipse with the same second moments as a polygon without holes, in its unit.

    Example:
        >>> disc = shapely.Point(0, 0).buffer(10, quad_segs=64)
        >>> round(major_axis(disc), 2), round(major_axis(shapely.box(0, 0, 6, 2)), 4)
        (20.0, 6.9282)
    """
    corners = np.asarray(outline.exterior.coords)[:, :2] - np.asarray(outline.centroid.coords[0])
    x, y = corners[:-1].T
    p, q = corners[1:].T
    cross = x * q - p * y
    area = cross.sum() / 2
    xx = (cross * (x * x + x * p + p * p)).sum() / 12 / area
    yy = (cross * (y * y + y * q + q * q)).sum() / 12 / area
    xy = (cross * (x * q + 2 * x * y + 2 * p * q + p * y)).sum() / 24 / area
    return float(4 * np.sqrt((xx + yy) / 2 + np.hypot((xx - yy) / 2, xy)))


def match(
    points: ArrayLike, probability: ArrayLike, lesions: Sequence[Lesion], group: Hashable | None = None
) -> Detections:
    """Which lesion each detection of a slide hits.

    Args:
        points: x and y of each, pixels of level 0, shape (n, 2).
        probability: Of each, shape (n,).
        lesions: Of the slide, from `lesions_of`.
        group: Patient.

    Example:
        >>> lesions = lesions_of([shapely.box(0, 0, 600, 600), shapely.box(2000, 0, 2060, 60)], 1.0)
        >>> match([[300, 300], [2030, 30], [1500, 0]], [0.9, 0.8, 0.7], lesions).hit.tolist()
        [0, -2, -1]
    """
    places = np.asarray(points, dtype=np.float64).reshape(-1, 2)
    chances = np.asarray(probability, dtype=np.float64)
    if len(places) != len(chances) or not ((chances >= 0) & (chances <= 1)).all():
        raise PredictionsError(
            f"{len(places)} places and {len(chances)} probabilities", expected="one from 0 to 1 for each place"
        )
    hit = np.full(len(places), MISS, dtype=np.int64)
    counted = 0
    for lesion in lesions:
        hit[shapely.intersects_xy(lesion.outline, places)] = IGNORED if lesion.isolated else counted
        counted += not lesion.isolated
    return Detections(chances, hit, counted, len(lesions) - counted, group)


def froc(slides: Sequence[Detections], *, replicates: int = 1000, seed: int = 0) -> Froc:
    """The FROC of slides and its mean sensitivity, with 95 % intervals.

    Args:
        slides: Each slide, those without tumour among them.
        replicates: Of the bootstrap, which draws whole patients where slides have them, else slides.
        seed: Of the draws.

    Returns:
        Values are None where there is no lesion to find. Where no replicate differs, the interval is Wilson's with the
        patients (slides) that have a lesion as trials.

    Raises:
        PredictionsError: There is no slide.

    Example:
        >>> one = Detections(np.array([0.9, 0.8, 0.7]), np.array([0, MISS, 1]), 2)
        >>> found = froc([one], replicates=10)
        >>> found.sensitivity["0.25"].value, found.sensitivity["1"].value, found.mean.value
        (0.5, 1.0, 0.8333333333333334)
    """
    if not slides:
        raise PredictionsError("no slide", expected="one slide or more, with their detections")
    names = [number if slide.group is None else slide.group for number, slide in enumerate(slides)]
    place = {name: number for number, name in enumerate(dict.fromkeys(names))}
    unit = np.array([place[name] for name in names])
    counts = _Counts(slides, unit, len(place))
    value = counts.at_rates(np.ones((1, len(place))))[0]
    drawn = counts.at_rates(draws(len(place), replicates, seed).astype(np.float64))
    holders = int((np.bincount(unit, [slide.lesions for slide in slides], len(place)) > 0).sum())
    entries = [_estimate(float(number), drawn[:, row], holders) for row, number in enumerate(value)]
    whole = np.ones(len(place))
    return Froc(
        slides=len(slides),
        groups=len(place),
        lesions=sum(slide.lesions for slide in slides),
        isolated=sum(slide.isolated for slide in slides),
        sensitivity={f"{rate:g}": entry for rate, entry in zip(RATES, entries, strict=False)},
        mean=entries[-1],
        curve=[(float(rate), float(found)) for rate, found in zip(*counts.curve(whole), strict=True)],
        intervals=f"95 % intervals: percentile bootstrap that draws whole {_drawn(slides)} ({len(place)}, {replicates} "
        f"replicates, seed {seed}); Wilson score of those with a lesion where no replicate differs",
    )


def _drawn(slides: Sequence[Detections]) -> str:
    return "slides" if all(slide.group is None for slide in slides) else "patients"


class _Counts:
    """Hits and false alarms of each unit at each probability at which a lesion is found, the highest first."""

    def __init__(self, slides: Sequence[Detections], unit: NDArray[np.int64], units: int) -> None:
        hits: list[tuple[float, int]] = []
        alarms: list[tuple[float, int]] = []
        for slide, of in zip(slides, unit.tolist(), strict=True):
            alarms += [(chance, of) for chance in slide.probability[slide.hit == MISS].tolist()]
            for lesion in range(slide.lesions):
                inside = slide.probability[slide.hit == lesion]
                if len(inside):  # counted once, by its surest detection
                    hits.append((float(inside.max()), of))
        self.levels = np.unique([chance for chance, _ in hits])[::-1]
        self.hits, self.alarms = self._reached(hits, units), self._reached(alarms, units)
        self.slides = np.bincount(unit, minlength=units).astype(np.float64)
        self.lesions = np.bincount(unit, [slide.lesions for slide in slides], units)

    def _reached(self, events: list[tuple[float, int]], units: int) -> Floats:
        """How many events of each unit (rows) are at or above each level (columns)."""
        reached = np.zeros((units, len(self.levels) + 1))
        for chance, of in events:
            reached[of, np.searchsorted(-self.levels, -chance)] += 1
        return np.cumsum(reached, axis=1)[:, :-1]

    def at_rates(self, times: Floats) -> Floats:
        """Sensitivity at each of `RATES`, and their mean, where units are drawn so many times; (r, rates + 1)."""
        lesions = (times @ self.lesions)[:, None]
        rate = times @ self.alarms / (times @ self.slides)[:, None]
        with np.errstate(invalid="ignore"):
            sensitivity = np.where(lesions > 0, times @ self.hits / lesions, np.nan)
        start = np.where(lesions > 0, 0.0, np.nan)  # calling nothing
        reached = np.concatenate([start, sensitivity], axis=1)
        allowed = [(rate <= most).sum(axis=1) for most in RATES]  # rates rise from level to level
        at = np.stack([np.take_along_axis(reached, count[:, None], 1)[:, 0] for count in allowed], axis=1)
        return np.concatenate([at, at.mean(axis=1, keepdims=True)], axis=1)

    def curve(self, times: Floats) -> tuple[Floats, Floats]:
        """False alarms a slide and sensitivity at each level, from calling nothing on; empty without lesions."""
        lesions = times @ self.lesions
        if not lesions:
            return np.empty(0), np.empty(0)
        rate, found = times @ self.alarms / (times @ self.slides), times @ self.hits / lesions
        return np.append(0.0, rate), np.append(0.0, found)


def _estimate(value: float, drawn: Floats, holders: int) -> Estimate:
    if np.isnan(value):
        return Estimate(value=None, ci95=None)
    defined = drawn[~np.isnan(drawn)]
    ends = percentile_interval(drawn)
    if (defined == value).all():
        low, high = wilson(value * holders, holders)
        ends = [float(low), float(high)]
    return Estimate(value=value, ci95=None if ends is None else (ends[0], ends[1]))
