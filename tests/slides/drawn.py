"""The same annotations as QuPath 0.2 to 0.7, ASAP and a mask write them."""

from __future__ import annotations

import gzip
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from shapely.geometry import Polygon, mapping

Drawn = Sequence[tuple[str, Polygon]]
VERSIONS = ("0.2", "0.3", "0.4", "0.5", "0.6", "0.7")


def qupath(file: Path, drawn: Drawn, version: str = "0.6", *, colour: bool = True, packed: bool = False) -> Path:
    """Write annotations as a version of QuPath exports them."""
    features = [_feature(name, polygon, version, colour, number) for number, (name, polygon) in enumerate(drawn)]
    content: Any = features if version == "0.2" else {"type": "FeatureCollection", "features": features}
    text = json.dumps(content).encode()
    file.write_bytes(gzip.compress(text) if packed else text)
    return file


def _feature(name: str, polygon: Polygon, version: str, colour: bool, number: int) -> dict[str, Any]:
    classification: dict[str, Any] = {"name": name}
    if version == "0.7":
        classification = {"names": name.split(": ")}
    if colour:
        classification |= {"colorRGB": -3670016} if version in ("0.2", "0.3") else {"color": [200, 0, 0]}
    properties: dict[str, Any] = {"classification": classification} if name else {}
    geometry: dict[str, Any] = json.loads(json.dumps(mapping(polygon)))
    if version == "0.2":
        properties |= {"isLocked": False, "measurements": []}
        return {"type": "Feature", "id": "PathAnnotationObject", "geometry": geometry, "properties": properties}
    properties |= {"object_type" if version == "0.3" else "objectType": "annotation"}
    properties |= {"name": None} if version == "0.5" else {"isLocked": True}
    if version in ("0.6", "0.7"):
        geometry["plane"] = {"c": -1, "z": 0, "t": 0}
    unique = {} if version == "0.3" else {"id": f"4c2a2f0e-6f0a-4d0c-9d5c-00000000000{number}"}
    return {"type": "Feature", **unique, "geometry": geometry, "properties": properties}


def asap(file: Path, drawn: Drawn, *, comma: bool = False, exclusion: str = "_2") -> Path:
    """Write annotations as ASAP does, in which holes are annotations of a group of their own."""
    parts = [(name, polygon.exterior.coords[:-1]) for name, polygon in drawn]
    parts += [(exclusion, hole.coords[:-1]) for _, polygon in drawn for hole in polygon.interiors]
    rows = []
    for number, (group, points) in enumerate(parts):
        rows.append(f'<Annotation Name="Annotation {number}" Type="Polygon" PartOfGroup="{group}" Color="#F4FA58">')
        texts = [(f"{x:.3f}", f"{y:.3f}") for x, y in points]
        texts = [(x.replace(".", ","), y.replace(".", ",")) for x, y in texts] if comma else texts
        lines = [f'<Coordinate Order="{order}" X="{x}" Y="{y}" />' for order, (x, y) in enumerate(texts)]
        rows += ["<Coordinates>", *reversed(lines), "</Coordinates></Annotation>"]
    groups = '<AnnotationGroups><Group Name="_0" PartOfGroup="None" Color="#00ff00"/></AnnotationGroups>'
    body = f"<Annotations>{''.join(rows)}</Annotations>{groups}"
    file.write_text(f'<?xml version="1.0"?>\n<ASAP_Annotations>{body}</ASAP_Annotations>')
    return file


def mask(file: Path, drawn: Drawn, size: tuple[int, int], values: dict[str, int], step: int = 1) -> Path:
    """Write a picture of the values of classes; a px is of the class in which its middle lies."""
    import shapely

    y, x = np.mgrid[0 : size[1] : step, 0 : size[0] : step] + step / 2
    picture = np.zeros(x.shape, np.uint8)
    for name, polygon in drawn:
        picture[shapely.contains_xy(polygon, x, y)] = values[name]
    Image.fromarray(picture).save(file)
    return file
