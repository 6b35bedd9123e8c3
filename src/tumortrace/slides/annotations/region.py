"""What an annotation is once it is read: a class and an area in px of full resolution."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import shapely
from shapely.geometry import MultiPolygon, Polygon, box
from shapely.geometry.base import BaseGeometry

from tumortrace.cohorts.findings import count
from tumortrace.errors import SlideError, shown


@dataclass(frozen=True)
class Region:
    """An area that was annotated.

    Attributes:
        name: Of its class, as the file has it; blank where it has none.
        geometry: In px of level 0, x to the right and y down, holes as interiors; valid, of some area, on the slide.
    """

    name: str
    geometry: Polygon | MultiPolygon


class Outlines:
    """Outlines as a file has them, gathered one by one; what cannot be taken is counted and told.

    Attributes:
        notes: What was mended or left out, once `regions` was asked.
    """

    def __init__(self, path: Path, size: tuple[int, int]) -> None:
        self.path, self.size = path, size
        self.notes: list[str] = []
        self._outlines: list[tuple[str, BaseGeometry]] = []
        self._left_out: Counter[str] = Counter()

    def add(self, name: str, rings: Sequence[np.ndarray]) -> None:
        """An outline and its holes, each an array (N, 2) of x and y.

        Raises:
            SlideError: A coordinate is no number.
        """
        if not all(np.isfinite(ring).all() for ring in rings):
            raise SlideError(
                f"an outline of class {shown(name)} with coordinates that are no numbers", where=self.path, remedy=_ANEW
            )
        if len(rings[0]) < 3:
            return self.leave_out("outline without area")
        shell, *holes = rings
        self._outlines.append((name, Polygon(shell, [hole for hole in holes if len(hole) >= 3])))
        return None

    def leave_out(self, kind: str) -> None:
        """Count something that has no area, such as `point`."""
        self._left_out[kind] += 1

    def regions(self, exclusions: Iterable[str] = ()) -> list[Region]:
        """All outlines, mended where they cross themselves, and cut off at the slide's edges.

        Args:
            exclusions: Classes, in lower case, whose areas are taken out of all others and are no region.

        Raises:
            SlideError: All of them lie outside of the slide, or have no area.
        """
        excluded = set(exclusions)
        mended = [(name, mend(outline)) for name, outline in self._outlines]
        crossing = sum(not outline.is_valid for _, outline in self._outlines)
        holes = [area for name, area in mended if name.lower() in excluded and area is not None]
        kept = [(name, area) for name, area in mended if name.lower() not in excluded]
        if holes:
            hole = shapely.union_all(holes)
            kept = [(name, area if area is None else polygonal(area.difference(hole))) for name, area in kept]
        self._left_out["outline without area"] += sum(area is None for _, area in kept)
        areas = [(name, area) for name, area in kept if area is not None]
        slide = box(0, 0, *self.size)
        cut = [(name, area, polygonal(area.intersection(slide))) for name, area in areas]
        if cut and all(inside is None for _, _, inside in cut):
            self._refuse_outside([area for _, area in areas])
        if not areas and (lost := {kind: n for kind, n in self._left_out.items() if n and kind not in LAID_OUT}):
            raise SlideError(
                f"nothing in it has an area: {_counted(lost)}",
                where=self.path,
                expected="outlines, as all that is not outlined is taken for normal",
                remedy="outline areas, or remove the file",
            )
        self._left_out["outline outside of the slide"] += sum(inside is None for _, _, inside in cut)
        beyond = sum(inside is not None and not slide.buffer(1).covers(area) for _, area, inside in cut)
        out = _counted(self._left_out)
        self.notes += [f"{count(crossing, 'self-crossing outline')} mended"] if crossing else []
        self.notes += [f"cut off at the slide's edge: {count(beyond, 'outline')}"] if beyond else []
        self.notes += [f"left out: {out}"] if out else []
        return [Region(name, inside) for name, _, inside in cut if inside is not None]

    def _refuse_outside(self, areas: list[Polygon | MultiPolygon]) -> None:
        left, top, right, bottom = shapely.total_bounds(areas)
        raise SlideError(
            f"all outlines outside of the slide: x {left:.6g} to {right:.6g}, y {top:.6g} to {bottom:.6g}",
            where=self.path,
            expected=f"px of full resolution, 0 to {self.size[0]} and 0 to {self.size[1]}",
            remedy="check that they are of this slide",
        )


_ANEW = "export the annotations again"
LAID_OUT = ("tile", "TMA core", "root")
"""What QuPath lays out, and nobody drew."""


def _counted(kinds: Mapping[str, int]) -> str:
    return ", ".join(f"{kind} ({number:,})" for kind, number in kinds.items() if number)


def mend(outline: BaseGeometry) -> Polygon | MultiPolygon | None:
    """An outline as a valid area: whatever it runs around is inside; None where that has no area.

    Example:
        >>> mend(Polygon([(0, 0), (2, 2), (2, 0), (0, 2)])).area
        2.0
    """
    if outline.is_valid:
        return polygonal(outline)
    return polygonal(shapely.make_valid(outline, method="structure", keep_collapsed=False))


def polygonal(area: BaseGeometry) -> Polygon | MultiPolygon | None:
    """The parts of a geometry that have an area; None where there are none.

    Example:
        >>> polygonal(Polygon([(0, 0), (2, 0), (0, 2)]).intersection(Polygon([(0, 0), (0, 2), (-2, 0)]))) is None
        True
    """
    parts = [part for part in _flat(area) if isinstance(part, Polygon) and part.area > 0]
    if not parts:
        return None
    return parts[0] if len(parts) == 1 else MultiPolygon(parts)


def _flat(area: BaseGeometry) -> list[BaseGeometry]:
    parts = getattr(area, "geoms", None)
    return [area] if parts is None else [inner for part in parts for inner in _flat(part)]
