"""Tumour outlines of a scan, as polygons and as the GeoJSON that QuPath opens."""

from __future__ import annotations

import uuid
from typing import Any

import numpy as np
import pandas as pd
import shapely
from shapely.geometry import MultiPolygon, Polygon, mapping
from shapely.geometry.polygon import orient

from tumortrace.records.provenance import RESEARCH_USE

_COLOUR = (200, 0, 0)  # as QuPath paints its own class "Tumor"


def tumour_polygons(cells: pd.DataFrame, slide: tuple[int, int]) -> list[Polygon]:
    """Union of the positive cells, cut off at the slide's edges, as separate polygons, largest first.

    Cells that share an edge become one polygon; those that meet in a corner alone stay two. Negative cells and gaps
    enclosed by positive ones are holes. Outlines follow the cells and are not smoothed: they say no more than
    the model did.

    Args:
        cells: Columns `x`, `y`, `width`, `height` (level-0 px) and `prediction` (0 or 1), from `tiling.cells`.
        slide: Width and height in level-0 px.

    Returns:
        Valid polygons with whole-numbered corners in level-0 px.

    Example:
        >>> cells = pd.DataFrame({"x": [0, 10, 30], "y": 0, "width": 10, "height": 10, "prediction": [1, 1, 1]})
        >>> [(part.area, part.bounds) for part in tumour_polygons(cells, (35, 10))]
        [(200.0, (0.0, 0.0, 20.0, 10.0)), (50.0, (30.0, 0.0, 35.0, 10.0))]
    """
    positive = cells[cells["prediction"] == 1]
    x, y, width, height = positive[["x", "y", "width", "height"]].to_numpy().T
    boxes = shapely.box(x, y, np.minimum(x + width, slide[0]), np.minimum(y + height, slide[1]))
    union = shapely.simplify(shapely.union_all(boxes), 0)  # drops the corners along straight edges, nothing else
    parts = list(union.geoms) if isinstance(union, MultiPolygon) else [union]
    # By area, then by place, so that one scan always gives one file.
    return sorted((part for part in parts if not part.is_empty), key=lambda part: (-part.area, part.bounds))


def outlines_geojson(
    polygons: list[Polygon], cells: pd.DataFrame, *, slide_name: str, positive_class: str, resolution: float | None
) -> dict[str, Any]:
    """The polygons as annotations that QuPath 0.4 and newer opens: dropped on the slide, or File > Import objects.

    Each carries the positive class as its classification and, as measurements, its area, the tiles whose middle lies
    in it, and their mean and highest probability. Ids follow from the slide and the outline, so that
    one scan always gives one file.

    Args:
        polygons: From `tumour_polygons`.
        cells: Columns `x`, `y`, `width`, `height` (level-0 px), `probability` and `prediction`.
        slide_name: Name of the slide.
        positive_class: Name of the class that is outlined.
        resolution: Um per px at level 0; None leaves out areas in mm².

    Returns:
        A GeoJSON FeatureCollection (RFC 7946, in pixels instead of degrees), ready for JSON.
    """
    positive = cells[cells["prediction"] == 1]
    x = (positive["x"] + positive["width"] / 2).to_numpy()
    y = (positive["y"] + positive["height"] / 2).to_numpy()
    probability = positive["probability"].to_numpy()
    features = []
    for number, polygon in enumerate(polygons, start=1):
        shapely.prepare(polygon)
        inside = probability[shapely.intersects_xy(polygon, x, y)]
        measurements = {"Area px^2": float(polygon.area), "Tiles": len(inside)}
        if resolution is not None:
            measurements["Area mm^2"] = float(polygon.area * resolution**2 / 1e6)
        if len(inside):  # a cell that reaches beyond the slide may have its middle there
            measurements |= {"Mean probability": float(inside.mean()), "Max probability": float(inside.max())}
        geometry = _whole_numbers(mapping(orient(polygon)))  # outer rings counter-clockwise, as RFC 7946 has them
        features.append(
            {
                "type": "Feature",
                "id": str(uuid.uuid5(uuid.NAMESPACE_URL, f"tumortrace:{slide_name}:{polygon.wkt}")),
                "geometry": geometry,
                "properties": {
                    "objectType": "annotation",
                    "name": f"outline {number}",
                    "classification": {"name": positive_class, "color": list(_COLOUR)},
                    "measurements": measurements,
                },
            }
        )
    return {"type": "FeatureCollection", "features": features, "research_use": RESEARCH_USE}


def _whole_numbers(geometry: dict[str, Any]) -> dict[str, Any]:
    rings = [[[int(x), int(y)] for x, y in ring] for ring in geometry["coordinates"]]
    return {"type": geometry["type"], "coordinates": rings}
