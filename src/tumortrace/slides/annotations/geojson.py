"""GeoJSON of QuPath, in the ways in which its versions write it.

0.2 writes a bare list of features whose `id` is their kind (`PathAnnotationObject`) and classes with `colorRGB`; 0.3 a
FeatureCollection with `object_type`; 0.4 and newer `objectType`, an id of each object and classes with `color`, from
0.6 on with `names` where they are derived. https://qupath.readthedocs.io/en/stable/docs/advanced/exporting_annotations.html
"""

from __future__ import annotations

import gzip
import json
import zipfile
import zlib
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from tumortrace.cohorts.findings import count
from tumortrace.errors import SlideError, shown
from tumortrace.slides.annotations.region import Outlines, Region

_MOST = 2 << 30  # bytes, unpacked
_KINDS = {
    "PathAnnotationObject": "annotation",
    "PathDetectionObject": "detection",
    "PathCellObject": "cell",
    "PathTileObject": "tile",
    "TMACoreObject": "tmaCore",
    "tma_core": "tmaCore",
    "PathRootObject": "root",
}
_DETECTED = ("detection", "cell")
_NO_ANNOTATION = ("tile", "tmaCore", "root")  # what QuPath lays out, and nobody drew
_LEFT_OUT = {"Point": "point", "MultiPoint": "point", "LineString": "line", "MultiLineString": "line"}
_GEOMETRIES = ("Polygon", "MultiPolygon", "GeometryCollection", *_LEFT_OUT)


def read_geojson(path: Path, size: tuple[int, int], notes: list[str]) -> list[Region]:
    """The regions of a GeoJSON file; for arguments, results and errors see `read_annotations`."""
    outlines = Outlines(path, size)
    kinds: Counter[str] = Counter()
    try:
        for feature in _features(_content(path)):
            kind = _kind(feature)
            if kind in _NO_ANNOTATION:
                outlines.leave_out({"tmaCore": "TMA core"}.get(kind, kind))
                continue
            kinds[kind] += 1
            _add(outlines, _class_name(feature), feature.get("geometry"))
    except (ValueError, TypeError, KeyError, IndexError, AttributeError, RecursionError) as error:
        raise _damaged(path, str(error) or type(error).__name__) from None
    regions = outlines.regions()
    detected = {kind: kinds[kind] for kind in _DETECTED if kinds[kind]}
    if detected:
        what = " and ".join(count(number, kind) for kind, number in detected.items())
        notes.append(f"{what} taken as annotations are")
    notes += outlines.notes
    return regions


def _damaged(path: Path, why: str) -> SlideError:
    return SlideError(
        f"not GeoJSON ({shown(why)[1:-1]})",
        where=path,
        expected="a FeatureCollection, or features, as QuPath exports them",
        remedy="export it again: File > Export objects as GeoJSON",
    )


def _content(path: Path) -> Any:
    """What the file holds, unpacked."""
    try:
        raw = _unpacked(path)
    except (OSError, EOFError, zlib.error, zipfile.BadZipFile, RuntimeError) as error:
        raise _damaged(path, str(error)) from None
    if len(raw) > _MOST:
        raise SlideError(f"more than {_MOST >> 30} GiB", where=path, expected="less", remedy="export annotations alone")
    return json.loads(raw)  # finds out which UTF it is


def _unpacked(path: Path) -> bytes:
    with path.open("rb") as file:
        head = file.read(4)
    if head.startswith(b"\x1f\x8b"):
        with gzip.open(path) as packed:
            return packed.read(_MOST + 1)
    if head == b"PK\x03\x04":
        with zipfile.ZipFile(path) as archive:
            names = [name for name in archive.namelist() if name.lower().endswith((".geojson", ".json"))]
            if len(names) != 1:
                raise zipfile.BadZipFile(f"{len(names)} files of GeoJSON in it, not one")
            with archive.open(names[0]) as packed:
                return packed.read(_MOST + 1)
    with path.open("rb") as file:
        return file.read(_MOST + 1)


def _features(content: Any) -> Iterator[dict[str, Any]]:
    """Each feature of a collection, list, or alone; those within one (hierarchies) after it."""
    if isinstance(content, list):
        for item in content:
            yield from _features(item)
    elif not isinstance(content, dict):
        raise ValueError(f"{shown(content)} in the place of a feature")
    elif content.get("type") == "FeatureCollection":
        yield from _features(content["features"])
    elif content.get("type") == "Feature":
        yield content
        yield from _features(content.get("childObjects") or [])
    elif content.get("type") in _GEOMETRIES:
        yield {"geometry": content}
    else:
        raise ValueError(f"type {shown(content.get('type'))}")


def _kind(feature: dict[str, Any]) -> str:
    """What QuPath calls such an object: annotation, detection, cell, tile, tmaCore or root."""
    properties = feature.get("properties") or {}
    told = properties.get("objectType", properties.get("object_type", properties.get("type")))
    told = feature.get("id") if told is None else told
    kind = _KINDS.get(str(told), str(told))
    return kind if kind in _DETECTED + _NO_ANNOTATION else "annotation"


def _class_name(feature: dict[str, Any]) -> str:
    """The class of a feature: its name, or `A: B` where it is derived; blank where it has none."""
    told = (feature.get("properties") or {}).get("classification")
    if isinstance(told, dict):
        names = told.get("names")
        told = ": ".join(map(str, names)) if isinstance(names, list) and names else told.get("name")
    return "" if told is None else str(told).strip()


def _add(outlines: Outlines, name: str, geometry: Any) -> None:
    """Add the areas of a geometry, which may be a collection of others."""
    if geometry is None:
        return outlines.leave_out("object without geometry")
    kind = geometry["type"]
    if kind == "GeometryCollection":
        for part in geometry["geometries"]:
            _add(outlines, name, part)
    elif kind in _LEFT_OUT:
        outlines.leave_out(_LEFT_OUT[kind])
    elif kind in ("Polygon", "MultiPolygon"):
        for rings in [geometry["coordinates"]] if kind == "Polygon" else geometry["coordinates"]:
            if rings:
                outlines.add(name, [_ring(ring) for ring in rings])
    else:
        raise ValueError(f"geometry of type {shown(kind)}")
    return None


def _ring(points: Any) -> np.ndarray:
    """X and y of each point; further coordinates are passed over."""
    return np.array([[float(point[0]), float(point[1])] for point in points], np.float64).reshape(-1, 2)
