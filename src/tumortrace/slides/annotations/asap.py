"""XML of ASAP, in which CAMELYON16 and CAMELYON17 were annotated.

CAMELYON16: the groups `_0` and `_1` (or `Tumor`) are tumour, `_2` (or `Exclusion`) what is cut out of it. CAMELYON17:
`metastases`, and `normal` within them. `None` is no group. https://camelyon17.grand-challenge.org/Data/
"""

from __future__ import annotations

from pathlib import Path
from xml.parsers import expat

import numpy as np

from tumortrace.errors import SlideError, plain, shown
from tumortrace.slides.annotations.region import Outlines, Region

EXCLUSIONS = ("_2", "exclusion", "exclusions")
_AREAS = ("polygon", "rectangle", "spline")
_LEFT_OUT = {"dot": "point", "pointset": "point", "measurement": "line"}


def read_asap(path: Path, size: tuple[int, int], notes: list[str]) -> list[Region]:
    """The regions of a file of ASAP; for arguments, results and errors see `read_annotations`."""
    annotations = _Annotations(path)
    parser = expat.ParserCreate()
    parser.StartElementHandler = annotations.start
    parser.StartDoctypeDeclHandler = annotations.refuse_doctype  # without one there are no entities to expand or fetch
    try:
        with path.open("rb") as file:
            parser.ParseFile(file)
    except expat.ExpatError as error:
        raise _damaged(path, str(error)) from None
    outlines = Outlines(path, size)
    for kind, group, points in annotations.read:
        ring = np.array([points[order] for order in sorted(points)], np.float64).reshape(-1, 2)
        if kind in _LEFT_OUT:
            outlines.leave_out(_LEFT_OUT[kind])
        elif kind not in _AREAS:
            raise SlideError(
                f"an annotation of type {shown(kind)}", where=path, expected=", ".join((*_AREAS, *_LEFT_OUT))
            )
        else:
            outlines.add(group, [_rectangle(ring) if len(ring) == 2 and kind == "rectangle" else ring])
    splines = sum(kind == "spline" for kind, _, _ in annotations.read)
    regions = outlines.regions(EXCLUSIONS)
    notes += [f"{splines} splines taken as polygons through their points, as ASAP does"] if splines else []
    notes += outlines.notes
    return regions


class _Annotations:
    """What the parser meets: type, group and points of each annotation, in `read`."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.read: list[tuple[str, str, dict[int, tuple[float, float]]]] = []
        self._root = ""

    def start(self, name: str, attributes: dict[str, str]) -> None:
        if not self._root:
            self._root = name
            if name != "ASAP_Annotations":
                known = {"Annotations": " (Aperio ImageScope writes such)"}.get(name, "")
                raise SlideError(
                    f"XML whose outermost element is {plain(name)}{known}",
                    where=self.path,
                    expected="ASAP_Annotations",
                    remedy="save it with ASAP, or open it in QuPath and export GeoJSON",
                )
        elif name == "Annotation":
            group = attributes.get("PartOfGroup", "").strip()
            kind = attributes.get("Type", "Polygon").strip().lower()
            self.read.append((kind, "" if group.lower() == "none" else group, {}))
        elif name == "Coordinate" and self.read:
            points = self.read[-1][2]
            try:
                place = float(attributes["X"].replace(",", ".")), float(attributes["Y"].replace(",", "."))
                order = int(attributes.get("Order", len(points)))
            except (KeyError, ValueError):
                raise _damaged(self.path, f"a coordinate {shown(attributes)}") from None
            if order in points:
                raise _damaged(self.path, f"two coordinates of order {order} in an annotation")
            points[order] = place

    def refuse_doctype(self, *_: object) -> None:
        raise SlideError(
            "XML with a document type, which ASAP does not write",
            where=self.path,
            expected="annotations of ASAP",
            remedy="save it with ASAP",
        )


def _damaged(path: Path, why: str) -> SlideError:
    return SlideError(f"not XML of ASAP ({why})", where=path, expected="ASAP_Annotations", remedy="save it anew")


def _rectangle(corners: np.ndarray) -> np.ndarray:
    """The four corners of a rectangle of which two opposite ones are given."""
    (left, top), (right, bottom) = corners
    return np.array([[left, top], [right, top], [right, bottom], [left, bottom]])
